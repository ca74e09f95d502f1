"""The test origin: its routes, its parser and its access log, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import ssl
import subprocess
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fetcher import origin as origin_module
from fetcher.origin import KEPT_BODY, MAX_HEAD, ROUTES, SMALL, Origin, OriginConfig, content, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Answer:
    """One response as it came over the wire."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def get(self, name: str) -> str | None:
        """Return the last value of a field."""
        return dict(self.fields).get(name)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Client:
    """A connection that sends bytes as given and reads responses by their framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1") -> None:
        """Send one request; a body gets its Content-Length."""
        length = (f"Content-Length: {len(body)}",) if body else ()
        host = () if any(field.lower().startswith("host:") for field in fields) else ("Host: a.test:80",)
        lines = (f"{method} {target} HTTP/{version}", *host, *fields, *length, "\r\n")
        self.writer.write("\r\n".join(lines).encode() + body)

    async def head(self) -> Answer:
        """Read a response head."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [
            (name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        ]
        return Answer(int(lines[0].split(" ")[1]), fields, b"")

    async def answer(self, method: str = "GET") -> Answer:
        """Read a whole response."""
        answer = await self.head()
        if method == "HEAD" or answer.status in {100, 204, 304}:
            return answer
        if answer.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            assert await self.reader.readline() == b"\r\n"
        elif (length := answer.get("content-length")) is not None:
            try:
                answer.body = await self.reader.readexactly(int(length))
            except asyncio.IncompleteReadError as error:
                answer.body, answer.whole = error.partial, False
        else:
            answer.body = await self.reader.read()
        return answer

    async def ask(
        self, method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1"
    ) -> Answer:
        """Send a request and read its response."""
        self.send(method, target, *fields, body=body, version=version)
        return await self.answer(method)

    async def get(self, target: str, *fields: str) -> Answer:
        """GET a target."""
        return await self.ask("GET", target, *fields)

    async def ended(self) -> bool:
        """Whether the origin closes and sends nothing more."""
        return await self.reader.read() == b""


@asynccontextmanager
async def connect(origin: Origin, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """Open a connection to the origin."""
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.port, ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Origin]:
    """Run an origin."""
    origin = Origin(OriginConfig(**options))
    await origin.start()
    try:
        yield origin
    finally:
        await origin.close()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with running() as origin:
        yield origin


@pytest.fixture
async def client(origin: Origin) -> AsyncIterator[Client]:
    async with connect(origin) as client:
        yield client


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- routes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1024, SMALL, SMALL + 1, 3_000_001])
async def test_bytes(client: Client, size: int) -> None:
    for query in ("", "?i=7"):
        answer = await client.get(f"/bytes/{size}{query}")
        assert (answer.status, answer.get("content-length")) == (200, str(size))
        assert answer.body == content(size)


def test_content_names_its_offsets() -> None:
    assert content(40)[16:32] == b"%015d\n" % 16
    assert len(content(SMALL * 2 + 5)) == SMALL * 2 + 5


@pytest.mark.parametrize(
    "path", ["/bytes/x", "/bytes/-1", "/bytes/1073741825", "/bytes/", "/status/99", "/status/100"]
)
async def test_a_bad_parameter_is_400_and_the_connection_lives(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 400
    assert (await client.get("/health")).status == 200


@pytest.mark.parametrize(
    "path", ["/delay/nan", "/delay/-1", "/delay/1e9", "/drip/5", "/retry-after/1", "/limited/x"]
)
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
    monkeypatch.setattr(origin_module, "STATE_SIZE", 3)
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
    monkeypatch.setattr(origin_module, "monotonic", lambda: now)

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


# --- parser ----------------------------------------------------------------------------------------------


async def drained(client: Client) -> None:
    """Let the origin read what was sent: it shares this loop, and sees each write as a read of its own."""
    await client.writer.drain()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_request_byte_by_byte(client: Client) -> None:
    body = b"Host: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n"
    for byte in b"\r\nPOST /echo HTTP/1.1\r\n" + body + b"GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n":
        client.writer.write(bytes([byte]))
        await drained(client)
    assert (await client.answer()).body == b"hello!"
    assert (await client.answer()).body == content(3)


@pytest.mark.parametrize("count", [2, 64, 1000])
async def test_pipelined_requests_are_answered_in_order(client: Client, count: int) -> None:
    for number in range(count):
        client.send("GET", f"/bytes/{number}")
    assert [len((await client.answer()).body) for _ in range(count)] == list(range(count))


async def test_a_pipeline_behind_a_slow_answer_waits(client: Client) -> None:
    client.send("GET", "/delay/0.02/bytes/1")
    client.send("POST", "/echo", body=b"x" * MAX_HEAD * 2)
    client.send("GET", "/chunked/3")
    client.send("GET", "/bytes/4")
    assert [len((await client.answer()).body) for _ in range(4)] == [1, MAX_HEAD * 2, 3, 4]


async def test_a_reader_that_lags_is_waited_for(client: Client) -> None:
    for _ in range(600):
        client.send("GET", f"/bytes/{SMALL}")
    client.send("GET", "/bytes/20000000")
    await drained(client)
    for _ in range(600):
        assert len((await client.answer()).body) == SMALL
    assert len((await client.answer()).body) == 20_000_000


async def test_a_chunked_request_body(client: Client) -> None:
    head = b"POST /json/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    client.writer.write(head + b"A\r\n0123456789\r\n3\r\nabc\r\n0\r\n\r\n")
    document = (await client.answer()).json()
    assert (document["body"], document["body_size"]) == ("0123456789abc", 13)


async def test_expect_continue(client: Client) -> None:
    client.writer.write(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert (await client.answer()).status == 100
    client.writer.write(b"hi")
    assert (await client.answer()).body == b"hi"


@pytest.mark.parametrize(
    "path", ["/bytes/100", "/bytes/100000", "/chunked/5", "/gzip/100", "/delay/0/bytes/100"]
)
async def test_head_has_the_head_of_get(client: Client, path: str) -> None:
    expected = (await client.get(path)).fields
    assert (await client.ask("HEAD", path)).fields == expected
    assert (await client.get("/health")).body == b"ok"


async def test_http_1_0(origin: Origin) -> None:
    for path in ("/bytes/100", "/chunked/100"):
        async with connect(origin) as client:
            client.writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = await client.answer()
            assert (answer.body, answer.get("transfer-encoding")) == (content(100), None)
            assert answer.get("connection") == "close"
            assert await client.ended()


async def test_http_1_0_keep_alive(client: Client) -> None:
    for _ in range(2):
        answer = await client.ask("GET", "/bytes/5", "Connection: Keep-Alive", version="1.0")
        assert (answer.body, answer.get("connection")) == (content(5), "keep-alive")


async def test_connection_close(client: Client) -> None:
    await client.get("/bytes/5")
    answer = await client.get("/bytes/5", "Connection: close")
    assert (answer.body, answer.get("connection")) == (content(5), "close")
    assert await client.ended()


async def test_an_absolute_target(client: Client) -> None:
    assert (await client.get("http://b.test:80/bytes/5?i=1")).body == content(5)
    assert (await client.get("http://b.test")).status == 404


@pytest.mark.parametrize(
    "wire",
    [
        b"nonsense\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
        b"G(T /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\nb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_HEAD + 1),
        b"GET /health HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD + 1),
    ],
)
async def test_a_malformed_request_is_400_and_closes(client: Client, wire: bytes) -> None:
    await client.get("/health")
    client.writer.write(wire)
    answer = await client.answer()
    assert (answer.status, answer.get("connection")) == (400, "close")
    assert await client.ended()


async def test_a_failure_of_the_origin_drops_the_connection(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))

    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(origin.routes, "_later", fails)
    async with connect(origin) as client:
        client.send("GET", "/delay/1")
        assert await client.ended()
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]


# --- access log, life and TLS ----------------------------------------------------------------------------


async def test_access_log_lines(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with running(access_log=log) as origin, connect(origin) as client:
        await client.get("/bytes/5?i=1")
        await client.get("/bytes/5?i=2", "Host: B.test")
        await client.ask("POST", '/status/404?q="\\', "Host: [::1]:80", body=b"x")
        client.writer.write(b"bad\r\n\r\n")
        await client.answer()
    lines = log_lines(log)
    assert all(isinstance(line.pop("time"), float) for line in lines)
    assert lines == [
        {"host": "a.test", "path": "/bytes/5?i=1", "method": "GET", "status": 200, "concurrent": 1},
        {"host": "b.test", "path": "/bytes/5?i=2", "method": "GET", "status": 200, "concurrent": 1},
        {"host": "[::1]", "path": '/status/404?q="\\', "method": "POST", "status": 404, "concurrent": 1},
        {"host": "", "path": "", "method": "", "status": 400, "concurrent": 1},
    ]


async def test_access_log_counts_a_hosts_requests_in_progress(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    expect = b"POST /echo?1 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with running(access_log=log) as origin, connect(origin) as one, connect(origin) as two:
        one.writer.write(expect)
        await one.answer()
        async with connect(origin) as three:
            three.send("GET", "/hang?2")
            await drained(three)
            await two.get("/bytes/1?3")
            await two.get("/bytes/1?4", "Host: b.test")
            one.writer.write(b"hi")
            await one.answer()
            await two.get("/bytes/1?5")
        while len(origin._connections) > 2:  # noqa: ASYNC110 - the origin tells nobody else
            await asyncio.sleep(0)
        await two.get("/health?6")
        await two.get("/health?7")
    counts = {line["path"][-1]: line["concurrent"] for line in log_lines(log)}
    assert counts == {"1": 1, "2": 2, "3": 3, "4": 1, "5": 2, "6": 1, "7": 1}


async def test_access_log_is_flushed_while_running(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with running(access_log=log) as origin, connect(origin) as client:
        await client.get("/health")
        async with asyncio.timeout(5):
            while not log_lines(log):  # noqa: ASYNC110 - the file is all that tells
                await asyncio.sleep(0.01)


async def test_no_access_log_no_flusher(origin: Origin) -> None:
    assert (origin.log, origin.flusher) == (None, None)


async def test_access_log_to_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    async with running(access_log="-") as origin, connect(origin) as client:
        await client.get("/health")
    assert json.loads(capfdbinary.readouterr().out)["path"] == "/health"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_drains_and_flushes_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    log, url = tmp_path / "access.jsonl", asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(OriginConfig(access_log=log), url.set_result))
    port = int((await url).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    client.send("GET", "/drip/3/0.05")
    await client.head()
    os.kill(os.getpid(), number)
    assert await reader.read() == content(3)
    await server
    writer.close()
    assert [line["status"] for line in log_lines(log)] == [200]


async def test_close_drops_what_outlasts_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin_module, "DRAIN_SECONDS", 0.01)
    async with running() as origin, connect(origin) as client:
        client.send("GET", "/drip/2/1000")
        await client.head()
        await origin.close()
        assert await client.ended()


async def test_serve_stops_when_the_log_cannot_be_written() -> None:
    with pytest.raises(OSError, match="No space left"):
        await full_disk()


async def full_disk() -> None:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(OriginConfig(access_log="/dev/full"), url.set_result))
    reader, writer = await asyncio.open_connection("127.0.0.1", int((await url).rpartition(":")[2]))
    await Client(reader, writer).get("/health")
    writer.close()
    await asyncio.wait_for(server, 5)


async def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *subject,
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 - before anything runs
    tls = ssl.create_default_context(cafile=cert)
    async with running(certfile=cert, keyfile=key) as origin, connect(origin, tls) as client:
        assert origin.url == f"https://127.0.0.1:{origin.port}"
        assert (await client.get("/bytes/100000")).body == content(100_000)
        with pytest.raises(ConnectionResetError):
            await client.get("/reset/1/health")
