"""F66 and F67: robots.txt, over real sockets (RFC 9309)."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from batches import TEST_HOSTS, run_batch
from raw_server import ok, raw_server, unused_port
from sites import NOT_FOUND, Site, redirect, status
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Outcome
from fetcher.transports.http.robots import obeying as robots
from fetcher.transports.http.robots.rules import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from raw_server import Peer, RawServer

    from fetcher.model import Result
    from fetcher.transports.http.transport import HttpTransport

ROBOTS = "/robots.txt"
RESOLVE = {"*.test": "127.0.0.1"}
ALL_FORBIDDEN = ok(b"User-agent: *\nDisallow: /\n")


@pytest.fixture(params=HTTP_EXCHANGES)
def exchange(request):
    return request.param


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(robots, "_PAUSES", (0.0, 0.0))


@asynccontextmanager
async def obeying(exchange: str = "connection", **sections: Any) -> AsyncIterator[HttpTransport]:
    async with http_transport(exchange, **{"robots": "obey", "resolve": RESOLVE, **sections}) as transport:
        yield transport


async def result(transport: HttpTransport, url: str, **fields: Any) -> Result:
    """Return the record of a job, as it would be written."""
    return (await Worker("batch", {"http": transport}, "GET").attempt(job(url, **fields), 0.0))[0]


def outcome(record: Result) -> tuple[Outcome, ErrorKind | None]:
    return record.outcome, record.error_kind


DISALLOWED = (Outcome.SKIPPED, ErrorKind.ROBOTS_DISALLOWED)
UNREACHABLE = (Outcome.SKIPPED, ErrorKind.ROBOTS_UNREACHABLE)
FETCHED = (Outcome.OK, None)


async def test_f66_what_is_disallowed_is_skipped_and_not_asked_for(exchange):
    site = Site({ROBOTS: ok(b"User-agent: *\nDisallow: /private\n")})
    async with raw_server(site) as server, obeying(exchange) as transport:
        assert outcome(await result(transport, server.url("/private/1"))) == DISALLOWED
        assert outcome(await result(transport, server.url("/public"))) == FETCHED
    assert site.paths == [ROBOTS, "/public"]


async def test_f66_by_default_nobody_is_asked():
    site = Site({ROBOTS: ALL_FORBIDDEN})
    async with raw_server(site) as server, http_transport("connection") as transport:
        assert outcome(await result(transport, server.url("/x"))) == FETCHED
    assert site.paths == ["/x"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 429, 499])
async def test_f66_4xx_allows_everything(exchange, code):
    site = Site({ROBOTS: status(code, body=b"User-agent: *\nDisallow: /\n")})
    async with raw_server(site) as server, obeying(exchange) as transport:
        assert outcome(await result(transport, server.url("/x"))) == FETCHED
    assert site.paths == [ROBOTS, "/x"]
    assert server.connections == 1


async def test_f66_4xx_counts_though_its_body_never_ends():
    async def endless(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9999\r\n\r\n...")
        await peer.gone()

    site = Site({ROBOTS: endless})
    async with raw_server(site) as server, obeying() as transport:
        assert outcome(await result(transport, server.url("/x"))) == FETCHED
    assert site.paths == [ROBOTS, "/x"]


@pytest.mark.parametrize("code", [500, 503, 599, 999])
async def test_f66_5xx_disallows_everything_after_a_few_tries(exchange, code):
    site = Site({ROBOTS: status(code, body=b"User-agent: *\nAllow: /\n")})
    async with raw_server(site) as server, obeying(exchange) as transport:
        first = await result(transport, server.url("/x"))
        second = await result(transport, server.url("/y"))
    assert (outcome(first), outcome(second)) == (UNREACHABLE, UNREACHABLE)
    assert f"{server.url(ROBOTS)}, http_5xx: the server answered {code}" in (first.error_message or "")
    # The verdict of three tries holds for the next job, too.
    assert site.paths == [ROBOTS] * 3


async def test_f66_one_good_answer_of_several_tries_is_enough():
    site = Site({ROBOTS: status(503)})

    async def then_recovered(peer: Peer) -> None:
        site.answers[ROBOTS] = NOT_FOUND
        await peer.send(status(503))

    site.answers[ROBOTS] = then_recovered
    async with raw_server(site) as server, obeying() as transport:
        assert outcome(await result(transport, server.url("/x"))) == FETCHED
    assert site.paths == [ROBOTS, ROBOTS, "/x"]


async def test_f66_an_origin_that_is_not_there_disallows_everything(exchange):
    async with obeying(exchange) as transport:
        record = await result(transport, f"http://127.0.0.1:{unused_port()}/x")
    assert outcome(record) == UNREACHABLE
    assert "connect_refused" in (record.error_message or "")


async def test_f66_a_dead_origin_is_tried_once_for_thousands_of_jobs():
    async def dead(peer: Peer) -> None:
        peer.reset()

    async with raw_server(dead) as server, obeying() as transport:
        urls = [server.url(f"/{number}") for number in range(2_000)]
        records = await asyncio.gather(*(result(transport, url) for url in urls[:1_000]))
        records += await asyncio.gather(*(result(transport, url) for url in urls[1_000:]))
    assert {outcome(record) for record in records} == {UNREACHABLE}
    assert server.connections == 3


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nUser-agent: *\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 24\r\n\r\n" + gzip.compress(bytes(9999))[:24],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n" + gzip.compress(b"")[:4],
        b"220 ftp.test ready\r\n",
    ],
    ids=["short", "half of a gzip", "only begun", "not http"],
)
async def test_f66_half_a_file_is_no_file(exchange, broken):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(broken)

    async with raw_server(script) as server, obeying(exchange) as transport:
        assert outcome(await result(transport, server.url("/x"))) == UNREACHABLE
    assert server.connections == 3


async def test_f66_each_scheme_host_and_port_has_its_own(exchange):
    here, there = Site({ROBOTS: ALL_FORBIDDEN}), Site({ROBOTS: NOT_FOUND})
    async with raw_server(here) as one, raw_server(there) as other, obeying(exchange) as transport:
        assert outcome(await result(transport, one.url("/x", "a.test"))) == DISALLOWED
        assert outcome(await result(transport, other.url("/x", "a.test"))) == FETCHED
        assert outcome(await result(transport, other.url("/x", "b.test"))) == FETCHED
        assert outcome(await result(transport, other.url("/x", "A.test"))) == FETCHED
    assert here.paths == [ROBOTS]
    assert there.paths == [ROBOTS, "/x", ROBOTS, "/x", "/x"]


async def test_f66_a_redirect_is_asked_about_where_it_leads(exchange):
    here, there = Site(), Site({ROBOTS: ok(b"User-agent: *\nDisallow: /secret\n")})
    async with raw_server(here) as one, raw_server(there) as other, obeying(exchange) as transport:
        here.answers = {
            ROBOTS: NOT_FOUND,
            "/a": redirect(other.url("/secret", "b.test")),
            "/b": redirect(other.url("/open", "b.test")),
        }
        refused = await result(transport, one.url("/a", "a.test"))
        assert outcome(await result(transport, one.url("/b", "a.test"))) == FETCHED
    assert outcome(refused) == DISALLOWED
    assert [hop.url for hop in refused.redirects or ()] == [one.url("/a", "a.test")]
    assert there.paths == [ROBOTS, "/open"]


async def test_f66_no_credentials_go_to_a_robots_txt(exchange):
    there = Site()
    here = Site()
    request = {"headers": {"X-Key": "secret"}}
    async with (
        raw_server(here) as one,
        raw_server(there) as other,
        obeying(exchange, request=request, user_agent="me/1") as transport,
    ):
        here.answers = {ROBOTS: redirect(other.url("/there", "b.test"))}
        url = one.url("/x", "a.test")
        assert outcome(await result(transport, url, headers=[("Authorization", "Basic c2VjcmV0")])) == FETCHED
    assert here.fields("/x")["authorization"] == "Basic c2VjcmV0"
    for fields in (here.fields(ROBOTS), there.fields("/there")):
        assert {"authorization", "x-key", "cookie", "referer"}.isdisjoint(fields)
        assert fields["user-agent"] == "me/1"


@pytest.mark.parametrize("user_agent", ["me/2.0", "Mozilla/5.0 (compatible; Me/2.0; +http://a.test/)"])
async def test_f66_the_groups_of_others_do_not_count(user_agent):
    site = Site({ROBOTS: ok(b"User-agent: *\nDisallow: /\n\nUser-agent: ME\nDisallow: /a\n")})
    async with raw_server(site) as server, obeying(user_agent=user_agent) as transport:
        assert outcome(await result(transport, server.url("/b"))) == FETCHED
        assert outcome(await result(transport, server.url("/a"))) == DISALLOWED


async def test_f66_what_is_blocked_is_blocked_and_not_skipped():
    """The guard's verdict is about the address, not about the origin's robots.txt."""
    async with raw_server(Site()) as server, obeying(guard=True) as transport:
        record = await result(transport, server.url("/x"))
    assert outcome(record) == (Outcome.FAILED, ErrorKind.BLOCKED)
    assert server.connections == 0


async def test_f67_it_is_read_to_500_kib_and_no_further(exchange):
    last = b"\nDisallow: /last\nDisallow: /far"
    start = b"User-agent: *\nDisallow: /near\n" + b"# filler\n" * (MAX_SIZE // 10)
    near = start.ljust(MAX_SIZE - len(last), b"#") + last
    far = near + b"away\nDisallow: /beyond\n" + bytes(5 * MAX_SIZE)

    async def endless(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + far)
        await peer.gone()

    site = Site({ROBOTS: endless})
    async with raw_server(site) as server, obeying(exchange) as transport:
        records = [outcome(await result(transport, server.url(path))) for path in ("/near", "/last", "/far", "/beyond")]
    assert records == [DISALLOWED, DISALLOWED, FETCHED, FETCHED]
    assert site.paths == [ROBOTS, "/far", "/beyond"]


async def test_f67_a_bomb_stops_at_500_kib():
    bomb = gzip.compress(b"User-agent: *\nDisallow: /a\n" + b"\n" * 50_000_000)
    site = Site({ROBOTS: ok(bomb, "Content-Encoding: gzip")})
    async with raw_server(site) as server, obeying() as transport:
        assert outcome(await result(transport, server.url("/a"))) == DISALLOWED


@pytest.mark.parametrize(
    "answer",
    [
        ok(gzip.compress(b"User-agent: *\nDisallow: /a\n"), "Content-Encoding: gzip"),
        ok(b"\xef\xbb\xbfUser-agent: *\r\nDisallow: /a\r\n"),
        ok(b"# caf\xe9\nUser-agent: *\nDisallow: /a\n", "Content-Type: text/plain; charset=latin-1"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\nUser-agent: *\nDisallow: /a\n\r\n0\r\n\r\n",
    ],
    ids=["gzip", "bom and crlf", "latin-1", "chunked"],
)
async def test_f67_a_file_is_read_however_it_is_written(exchange, answer):
    site = Site({ROBOTS: answer})
    async with raw_server(site) as server, obeying(exchange) as transport:
        assert outcome(await result(transport, server.url("/a"))) == DISALLOWED
        assert outcome(await result(transport, server.url("/b"))) == FETCHED


@pytest.mark.parametrize("answer", [ok(b""), ok(b"<!doctype html><title>Disallow: /</title>"), status(204)])
async def test_f67_an_empty_file_or_a_page_allows_everything(answer):
    site = Site({ROBOTS: answer})
    async with raw_server(site) as server, obeying() as transport:
        assert outcome(await result(transport, server.url("/a"))) == FETCHED


async def test_f67_five_redirects_are_followed_and_hold_for_who_was_asked(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, obeying(exchange) as transport:
        here.answers = {ROBOTS: redirect(other.url("/1", "b.test"))}
        there.answers = {f"/{n}": redirect(f"/{n + 1}", 301) for n in range(1, 5)} | {"/5": ALL_FORBIDDEN}
        assert outcome(await result(transport, one.url("/x", "a.test"))) == DISALLOWED
        # The other one's own robots.txt allows it.
        there.answers[ROBOTS] = NOT_FOUND
        assert outcome(await result(transport, other.url("/x", "b.test"))) == FETCHED
    assert (here.paths, there.paths) == ([ROBOTS], ["/1", "/2", "/3", "/4", "/5", ROBOTS, "/x"])


@pytest.mark.parametrize("location", [ROBOTS, "ftp://a.test/robots.txt", "http://[::1"])
async def test_f67_more_redirects_or_one_to_nowhere_are_as_good_as_4xx(location):
    site = Site({ROBOTS: redirect(location)})
    async with raw_server(site) as server, obeying() as transport:
        assert outcome(await result(transport, server.url("/x"))) == FETCHED
    assert site.paths == [ROBOTS] * (6 if location == ROBOTS else 1) + ["/x"]


async def test_f67_it_is_fetched_once_however_many_jobs_wait(exchange):
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        asked.set()
        await go.wait()
        await peer.send(ok(b"User-agent: *\nDisallow: /odd\n"))

    site = Site({ROBOTS: slow})
    async with raw_server(site) as server, obeying(exchange) as transport:
        urls = [server.url(f"/odd/{n}" if n % 2 else f"/{n}") for n in range(200)]
        waiting = [asyncio.create_task(result(transport, url)) for url in urls]
        await asked.wait()
        go.set()
        records = await asyncio.gather(*waiting)
    assert [outcome(record) for record in records] == [FETCHED, DISALLOWED] * 100
    assert site.paths.count(ROBOTS) == 1


async def test_f67_waiting_for_it_uses_up_no_time_of_a_request():
    """Both timeouts are shorter than the robots.txt takes; the page then takes long enough for either to have fired."""

    async def slow(peer: Peer) -> None:
        await asyncio.sleep(1.0)
        await peer.send(NOT_FOUND)

    async def page(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await peer.send(ok())

    site = Site({ROBOTS: slow, "/x": page, "/y": page})
    timeout = {"total": 0.8, "read": 0.8}
    async with raw_server(site) as server, obeying(request={"timeout": timeout}) as transport:
        record = await result(transport, server.url("/x"))
        again = await result(transport, server.url("/y"))
    assert (outcome(record), outcome(again)) == (FETCHED, FETCHED)
    assert (record.first_byte_s or 0.0) < 0.9


async def test_f67_after_it_a_request_has_no_more_time_than_before():
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.5)
        await peer.send(NOT_FOUND)

    async def never(peer: Peer) -> None:
        await peer.gone()

    site = Site({ROBOTS: slow, "/x": never})
    async with raw_server(site) as server, obeying(request={"timeout": {"total": 0.3}}) as transport:
        record = await result(transport, server.url("/x"))
    assert outcome(record) == (Outcome.FAILED, ErrorKind.TOTAL_TIMEOUT)
    assert site.paths == [ROBOTS, "/x"]


async def test_f67_the_deadline_of_a_job_goes_on_while_it_waits():
    async def never(peer: Peer) -> None:
        await peer.gone()

    site = Site({ROBOTS: never})
    async with raw_server(site) as server, obeying() as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url("/x")), within=0.3)
    assert caught.value.kind is ErrorKind.DEADLINE


async def test_f67_one_that_never_comes_has_a_time_limit_of_its_own():
    async def never(peer: Peer) -> None:
        await peer.gone()

    site = Site({ROBOTS: never})
    async with raw_server(site) as server, obeying(robots_timeout="100ms") as transport:
        record = await result(transport, server.url("/x"))
    assert outcome(record) == UNREACHABLE
    assert "took longer than http.robots_timeout (0.1 s)" in (record.error_message or "")
    assert site.paths == [ROBOTS] * 3


async def test_f67_who_stops_waiting_does_not_stop_the_others():
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        asked.set()
        await go.wait()
        await peer.send(NOT_FOUND)

    site = Site({ROBOTS: slow})
    async with raw_server(site) as server, obeying() as transport:
        first = asyncio.create_task(result(transport, server.url("/first")))
        await asked.wait()
        second = asyncio.create_task(result(transport, server.url("/second")))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        assert outcome(await second) == FETCHED
    assert site.paths == [ROBOTS, "/second"]


async def test_f67_when_all_stop_waiting_the_next_one_asks_again():
    asked = asyncio.Event()

    async def never(peer: Peer) -> None:
        asked.set()
        await peer.gone()

    site = Site({ROBOTS: never})
    async with raw_server(site) as server, obeying() as transport:
        first = asyncio.create_task(result(transport, server.url("/first")))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        site.answers[ROBOTS] = NOT_FOUND
        assert outcome(await result(transport, server.url("/second"))) == FETCHED
        left = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("robots.txt")]
    assert left == []
    assert site.paths == [ROBOTS, ROBOTS, "/second"]


async def test_f67_closing_gives_up_what_is_on_its_way():
    asked = asyncio.Event()

    async def never(peer: Peer) -> None:
        asked.set()
        await peer.gone()

    async with raw_server(Site({ROBOTS: never})) as server:
        async with obeying() as transport:
            waiting = asyncio.create_task(result(transport, server.url("/x")))
            await asked.wait()
        record = await waiting
    assert record.outcome is Outcome.FAILED


async def test_f67_crawl_delay_is_told_with_good_and_bad_answers():
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"

    async def broken(peer: Peer) -> None:
        await peer.send(short)
        peer.close()

    site = Site({ROBOTS: ok(b"User-agent: *\nCrawl-delay: 1.5\n"), "/broken": broken, "/404": NOT_FOUND})
    async with raw_server(site) as server, obeying() as transport:
        assert (await transport.fetch(job(server.url("/x")))).crawl_delay == 1.5
        assert (await transport.fetch(job(server.url("/404")))).crawl_delay == 1.5
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url("/broken")))
    assert caught.value.response is not None
    assert caught.value.response.crawl_delay == 1.5


async def test_f67_crawl_delay_is_that_of_the_host_of_the_job():
    here, there = Site(), Site({ROBOTS: ok(b"User-agent: *\nCrawl-delay: 9\n")})

    async def both(one: RawServer, other: RawServer, transport: HttpTransport) -> list[float | None]:
        here.answers = {ROBOTS: NOT_FOUND, "/x": redirect(other.url("/x", "b.test"))}
        away = await transport.fetch(job(one.url("/x", "a.test")))
        return [away.crawl_delay, (await transport.fetch(job(other.url("/x", "b.test")))).crawl_delay]

    async with raw_server(here) as one, raw_server(there) as other, obeying() as transport:
        assert await both(one, other, transport) == [None, 9.0]


async def test_f67_crawl_delay_is_kept_by_a_batch(tmp_path):
    arrived: list[float] = []

    async def page(peer: Peer) -> None:
        arrived.append(asyncio.get_running_loop().time())
        await peer.send(ok())

    paths = [f"/{number}" for number in range(4)]
    site = Site({ROBOTS: ok(b"User-agent: *\nCrawl-delay: 0.4\n")} | dict.fromkeys(paths, page))
    async with raw_server(site) as server:
        records = await run_batch(
            tmp_path,
            [server.url(path, "a.test") for path in paths],
            http=TEST_HOSTS | {"robots": "obey"},
            limits={"per_host": {"concurrency": 1}},
        )
    assert [record["outcome"] for record in records] == ["ok"] * 4
    assert all(later - earlier > 0.3 for earlier, later in pairwise(arrived))
