"""The routes, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from unit.origin.wire_client import Client, connect, log_lines, running

from fetcher.origin import Origin
from fetcher.origin import routes as routes_module
from fetcher.origin.bodies import SMALL, content
from fetcher.origin.parsing import KEPT_BODY
from fetcher.origin.routes import ROUTES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, 1024, SMALL, SMALL + 1, 3_000_001])
async def test_bytes(client: Client, size: int) -> None:
    for query in ("", "?i=7"):
        answer = await client.get(f"/bytes/{size}{query}")
        assert (answer.status, answer.get("content-length")) == (200, str(size))
        assert answer.body == content(size)


def test_content_names_its_offsets() -> None:
    assert content(40)[16:32] == b"%015d\n" % 16
    assert len(content(SMALL * 2 + 5)) == SMALL * 2 + 5


@pytest.mark.parametrize("path", ["/bytes/x", "/bytes/-1", "/bytes/1073741825", "/bytes/", "/status/99", "/status/100"])
async def test_a_bad_parameter_is_400_and_the_connection_lives(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 400
    assert (await client.get("/health")).status == 200


@pytest.mark.parametrize("path", ["/delay/nan", "/delay/-1", "/delay/1e9", "/drip/5", "/retry-after/1", "/limited/x"])
async def test_a_bad_number_is_400(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 400


async def test_delay_answers_as_the_rest(client: Client) -> None:
    assert (await client.get("/delay/0.01")).body == b"ok\n"
    assert (await client.get("/delay/0.01/bytes/10")).body == content(10)
    assert (await client.get("/delay/0/delay/.01/status/404")).status == 404
    assert (await client.get("/delay/0/bytes/x")).status == 400


async def test_delay_jitter_repeats_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    pause = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await pause(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in range(2):
        async with running(delay_jitter=0.5, seed=3) as origin, connect(origin) as client:
            await client.get("/delay/2")
            await client.get("/delay/2")
    assert waits[:2] == waits[2:]
    assert waits[0] != waits[1]
    assert all(1 <= wait <= 3 for wait in waits)


@pytest.mark.parametrize("code", [200, 204, 304, 404, 500, 599, 999])
async def test_status(client: Client, code: int) -> None:
    answer = await client.get(f"/status/{code}")
    assert answer.status == code
    assert answer.body == (b"" if code in {204, 304} else b"status %d\n" % code)
    assert (await client.get("/health")).body == b"ok"


async def test_redirect_chain(client: Client) -> None:
    target, seen = "/redirect/2", []
    while (answer := await client.get(target)).status == 302:
        target = answer.get("location") or ""
        seen.append(target)
    assert (seen, answer.status) == (["/redirect/1", "/redirect/0"], 200)


async def test_redirect_to(client: Client) -> None:
    answer = await client.get("/redirect-to?url=http%3A%2F%2Fb.test%2F%3Fx%3D1&status=307")
    assert (answer.status, answer.get("location")) == (307, "http://b.test/?x=1")
    assert (await client.get("/redirect-to?url=/health")).status == 302
    assert (await client.get("/redirect-to")).status == 400
    assert (await client.get("/redirect-to?url=/x%0d%0aSet-Cookie:%20a=b")).status == 400


async def test_flaky_counts_per_host_and_target(client: Client) -> None:
    statuses = [(await client.get("/flaky/2/bytes/5?i=1")).status for _ in range(4)]
    assert statuses == [503, 503, 200, 200]
    assert (await client.get("/flaky/2/bytes/5?i=2")).status == 503
    assert (await client.get("/flaky/2/bytes/5?i=1", "Host: b.test")).status == 503


async def test_nested_attempts_count_apart(client: Client) -> None:
    answers = [await client.get("/flaky/1/retry-after/3/1/bytes/4") for _ in range(3)]
    assert [answer.get("retry-after") for answer in answers] == [None, "3", None]
    assert answers[2].body == content(4)


async def test_state_is_bounded(client: Client, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_module, "STATE_SIZE", 3)
    for number in range(5):
        await client.get(f"/flaky/1/x{number}")
    assert len(origin.routes._attempts) == 3
    assert (await client.get("/flaky/1/x0")).status == 503


@pytest.mark.parametrize("prefix", ["", "/delay/0"])
async def test_reset_drops_the_connection(origin: Origin, prefix: str) -> None:
    for _ in range(2):
        async with connect(origin) as client:
            with pytest.raises(ConnectionResetError):
                await client.get(f"{prefix}/reset/2/bytes/5")
    async with connect(origin) as client:
        assert (await client.get(f"{prefix}/reset/2/bytes/5")).body == content(5)


async def test_json_echoes_the_request(client: Client) -> None:
    answer = await client.ask("PUT", "/json/a%20b?x=1&x=2&y=", "X-A: 1", "x-a: 2", body=b"h\xc3\xa9\xff")
    document = answer.json()
    assert answer.get("content-type") == "application/json"
    assert document.pop("headers") == {"host": "a.test:80", "x-a": "1, 2", "content-length": "4"}
    assert document == {
        "method": "PUT",
        "path": "/json/a%20b",
        "query": "x=1&x=2&y=",
        "args": {"x": ["1", "2"], "y": [""]},
        "body": "h\u00e9\ufffd",
        "body_size": 4,
    }


@pytest.mark.parametrize("size", [0, 1000, SMALL * 3 + 1])
async def test_gzip_and_deflate(client: Client, size: int) -> None:
    answer = await client.get(f"/gzip/{size}")
    assert answer.get("content-encoding") == "gzip"
    assert gzip.decompress(answer.body) == content(size)
    answer = await client.get(f"/deflate/{size}")
    assert answer.get("content-encoding") == "deflate"
    assert zlib.decompress(answer.body) == content(size)


async def test_echo(client: Client) -> None:
    answer = await client.ask("POST", "/echo", "Content-Type: text/x-test", body=b"\0\xff" * 300_000)
    assert (answer.get("content-type"), answer.body) == ("text/x-test", b"\0\xff" * 300_000)
    assert (await client.get("/echo")).body == b""


async def test_a_body_past_the_kept_part_is_counted(client: Client) -> None:
    big = bytes(KEPT_BODY + 1)
    assert (await client.ask("POST", "/echo", body=big)).status == 413
    assert (await client.ask("POST", "/json/", body=big)).json()["body_size"] == len(big)


async def test_headers(client: Client) -> None:
    answer = await client.get("/headers", "X-B: 2", "X-A: \t1 ", "X-B: 3")
    assert answer.json() == {"headers": [["Host", "a.test:80"], ["X-B", "2"], ["X-A", "1"], ["X-B", "3"]]}


async def test_limited_is_a_bucket_per_host(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(routes_module, "monotonic", lambda: now)

    async def statuses(count: int, path: str = "/limited/2/bytes/1", host: str = "a.test") -> list[int]:
        return [(await client.get(path, f"Host: {host}")).status for _ in range(count)]

    assert await statuses(3) == [200, 200, 429]
    assert await statuses(1, host="b.test") == [200]
    now += 0.5
    assert await statuses(2) == [200, 429]
    assert (await client.get("/limited/2/bytes/1")).get("retry-after") == "1"
    assert await statuses(11, "/limited") == [200] * 10 + [429]


async def test_retry_after(client: Client) -> None:
    answers = [await client.get("/retry-after/7/2/bytes/3") for _ in range(3)]
    assert [(answer.status, answer.get("retry-after")) for answer in answers] == [
        (503, "7"),
        (503, "7"),
        (200, None),
    ]
    assert answers[2].body == content(3)


@pytest.mark.parametrize("size", [0, 10, SMALL * 2 + 3])
async def test_chunked(client: Client, size: int) -> None:
    answer = await client.get(f"/chunked/{size}")
    assert (answer.get("transfer-encoding"), answer.get("content-length")) == ("chunked", None)
    assert answer.body == content(size)
    assert (await client.get("/health")).status == 200


async def test_close_ends_the_body_by_closing(client: Client) -> None:
    answer = await client.get("/close/70000")
    assert (answer.get("connection"), answer.get("content-length")) == ("close", None)
    assert answer.body == content(70_000)


async def test_truncated(client: Client) -> None:
    answer = await client.get("/truncated/1001")
    assert (answer.get("content-length"), answer.whole, answer.body) == ("1001", False, content(500))


async def test_hang_is_released_when_the_origin_closes(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with running(access_log=log) as origin, connect(origin) as client, connect(origin) as other:
        client.send("GET", "/hang")
        await other.get("/health")
        await origin.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()
    assert {line["path"]: line["status"] for line in log_lines(log)} == {"/hang": 0, "/health": 200}


async def test_a_client_that_leaves_ends_its_hang(origin: Origin) -> None:
    async with connect(origin) as client:
        client.send("GET", "/hang")
        client.send("GET", "/health")
    await asyncio.wait_for(origin._empty.wait(), 5)


async def test_drip(client: Client) -> None:
    answer = await client.get("/drip/250/0.02")
    assert (answer.get("content-length"), len(answer.body)) == ("250", 250)
    assert (await client.get("/drip/0/1")).body == b""


async def test_cookies(client: Client) -> None:
    answer = await client.get("/cookies/set?a=1&b=2", "Cookie: c=3")
    assert [value for name, value in answer.fields if name == "set-cookie"] == ["a=1; Path=/", "b=2; Path=/"]
    assert answer.json() == {"cookie": "c=3"}
    assert (await client.get("/cookies")).get("set-cookie") is None


@pytest.mark.parametrize(
    ("query", "first", "following"),
    [
        ("total=25&size=10", 0, "?total=25&size=10&page=2"),
        ("total=25&size=10&page=2&n=7", 10, "?total=25&size=10&page=3&n=7"),
        ("total=25&offset=10&limit=10", 10, "?total=25&offset=20&limit=10"),
        ("total=25&cursor=c10", 10, "?total=25&cursor=c20"),
    ],
)
async def test_items_says_in_every_way_where_the_next_page_is(
    client: Client, query: str, first: int, following: str
) -> None:
    answer = await client.get(f"/delay/0/items?{query}")
    found = answer.json()
    assert [item["id"] for item in found["items"]] == list(range(first, first + 10))
    assert (found["total"], found["pages"], found["page"]) == (25, 3, first // 10 + 1)
    assert (found["next"], found["next_cursor"]) == (following, f"c{first + 10}")
    assert answer.get("link") == f'<{following}>; rel="next"'


@pytest.mark.parametrize("query", ["total=25&page=3", "total=25&offset=20", "total=5", "total=25&page=9", "total=0"])
async def test_the_last_items_have_no_next_page(client: Client, query: str) -> None:
    answer = await client.get(f"/items?{query}")
    assert (answer.json()["next"], answer.json()["next_cursor"], answer.get("link")) == (None, None, None)
    assert len(answer.json()["items"]) == {"total=25&page=9": 0, "total=0": 0}.get(query, 5)


async def test_items_after_a_cursor_in_the_body(client: Client) -> None:
    client.send("POST", "/items?total=25", "Content-Type: application/json", body=b'{"cursor": "c20"}')
    assert [item["id"] for item in (await client.answer("POST")).json()["items"]] == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("query", ["size=0", "size=1001", "total=x", "cursor=x", "page=-1"])
async def test_items_that_there_can_not_be_are_400(client: Client, query: str) -> None:
    assert (await client.get(f"/items?{query}")).status == 400


async def test_health_and_the_rest(client: Client) -> None:
    assert (await client.get("/health")).body == b"ok"
    for path in ("/", "/nothing", "/delay/0/nothing"):
        assert (await client.get(path)).status == 404


def test_every_route_is_documented() -> None:
    lines = Origin.ROUTES_HELP.splitlines()
    assert len(lines) == len(ROUTES)
    for name, line in zip(ROUTES, lines, strict=True):
        assert line.startswith(f"/{name}")
        assert line.endswith(".")


class Loopback(AbstractResolver):
    """Finds every name at 127.0.0.1."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_an_aiohttp_client_over_60_host_names(tmp_path: Path) -> None:
    hosts = [f"h{number}.test" for number in range(60)]
    log = tmp_path / "access.jsonl"
    async with (
        running(access_log=log) as origin,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Loopback())) as session,
    ):

        async def statuses(host: str, path: str, count: int) -> list[int]:
            seen = []
            for _ in range(count):
                async with session.get(f"http://{host}:{origin.port}{path}") as answer:
                    body = await answer.read()
                    assert answer.status != 200 or body == content(7)
                    seen.append(answer.status)
            return seen

        async def visit(host: str) -> None:
            assert await statuses(host, "/flaky/2/bytes/7?i=1", 3) == [503, 503, 200]
            assert await statuses(host, "/flaky/2/bytes/7?i=2", 3) == [503, 503, 200]
            assert await statuses(host, "/retry-after/0/1/bytes/7", 2) == [503, 200]
            assert await statuses(host, "/limited/1/bytes/7", 1) == [200]

        await asyncio.gather(*map(visit, hosts))
    lines = log_lines(log)
    assert {host: sum(line["host"] == host for line in lines) for host in hosts} == dict.fromkeys(hosts, 9)
    assert len(lines) == 60 * 9


async def test_slots_serve_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    serving, most, pause = 0, 0, asyncio.sleep

    async def sleep(_: float) -> None:
        nonlocal serving, most
        serving += 1
        most = max(most, serving)
        for _turn in range(20):
            await pause(0)
        serving -= 1

    async with running() as origin:
        clients = [connect(origin) for _ in range(6)]
        opened = [await client.__aenter__() for client in clients]
        monkeypatch.setattr(asyncio, "sleep", sleep)
        answers = await asyncio.gather(*(client.get("/slots/2/5/bytes/10?x") for client in opened))
        monkeypatch.undo()
        for client in clients:
            await client.__aexit__(None, None, None)
    assert [answer.body for answer in answers] == [content(10)] * 6
    assert most == 2


@pytest.mark.parametrize("path", ["/slots/0/1", "/slots/x/1", "/slots/2", "/slots/2/nan"])
async def test_slots_need_a_number_and_a_time(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 400


async def test_what_robots_are_not_allowed(client: Client) -> None:
    assert (await client.get("/robots.txt")).body == b"User-agent: *\nDisallow: /private\n"
    assert (await client.get("/private/bytes/10")).body == content(10)


async def test_at_most_so_many_are_answered_at_once_and_the_others_refused(origin: Origin) -> None:
    path = "/at-most/2/0.2/bytes/10"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(origin)) for _ in range(5)]
        answers = await asyncio.gather(*(client.get(path) for client in clients))
        other = await clients[0].get("/at-most/2/0/bytes/10", "Host: b.test")
        again = await clients[1].get(path)
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429]
    assert (other.body, again.status) == (content(10), 200)
    assert origin.routes._under_way == {}
