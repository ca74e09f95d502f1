"""The http transport over real sockets, with both exchanges: against the origin, and servers that lie."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError
from raw_server import RawServer, answering, ok, raw_server, saying, unused_port
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.jobs.objects import job_from_mapping
from fetcher.origin import Origin, OriginConfig
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer

    from fetcher.interfaces import Transport
    from fetcher.model import Job, Response


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens a transport with the given sections of a config."""

    def make(**sections: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, **sections)

    return make


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    server = Origin(OriginConfig())
    await server.start()
    yield server
    await server.close()


async def failure(transport: Transport, wanted: Job) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value


def sent_headers(response: Response) -> list[list[str]]:
    headers: list[list[str]] = json.loads(response.body or b"")["headers"]
    return headers


# What is asked for, and what comes back


async def test_describes_a_plain_response(opened, origin):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin.url}/bytes/1024?i=1"))
    assert (response.status, response.method, response.http_version) == (200, "GET", "1.1")
    assert response.final_url == f"{origin.url}/bytes/1024?i=1"
    assert response.remote_ip == "127.0.0.1"
    assert len(response.body) == response.body_size == response.wire_size == response.content_length == 1024
    assert response.content_type == "application/octet-stream"
    assert len(response.sha256) == 64
    assert not response.truncated


async def test_sends_each_default_header_once(opened, origin):
    async with opened(user_agent="me/1") as transport:
        response = await transport.fetch(job(f"{origin.url}/headers"))
    assert sorted(name.lower() for name, _ in sent_headers(response)) == [
        "accept",
        "accept-encoding",
        "host",
        "user-agent",
    ]
    assert ["User-Agent", "me/1"] in sent_headers(response)


async def test_a_jobs_headers_take_the_place_of_the_defaults(opened, origin):
    headers = [
        ("accept", "text/html"),
        ("USER-AGENT", "mine"),
        ("Host", "other.test"),
        ("X-A", "1"),
        ("X-A", "2"),
    ]
    async with opened(request={"headers": {"accept": "text/plain", "x-batch": "yes"}}) as transport:
        response = await transport.fetch(job(f"{origin.url}/headers", headers=headers))
    assert {(name.lower(), value) for name, value in sent_headers(response)} == {
        ("accept", "text/html"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("user-agent", "mine"),
        ("host", "other.test"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-batch", "yes"),
    }
    assert len(sent_headers(response)) == 7


async def test_a_jobs_method_and_body_are_sent(opened, origin):
    async with opened() as transport:
        row = {"url": f"{origin.url}/json/x", "method": "put", "json": {"a": "\u00e9"}}
        response = await transport.fetch(job_from_mapping("1", row))
        large = await transport.fetch(job(f"{origin.url}/echo", method="POST", body=b"x" * 300_000))
    seen = json.loads(response.body)
    assert (seen["method"], json.loads(seen["body"])) == ("PUT", {"a": "\u00e9"})
    assert seen["headers"]["content-type"] == "application/json"
    assert large.body == b"x" * 300_000


@pytest.mark.parametrize(("method", "length"), [("POST", "0"), ("PUT", "0"), ("GET", None)])
async def test_a_missing_body_is_announced_where_one_is_expected(opened, origin, method, length):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin.url}/json", method=method))
    assert json.loads(response.body)["headers"].get("content-length") == length


async def test_a_batchs_method_is_the_default(opened, origin):
    async with opened(request={"method": "HEAD"}) as transport:
        response = await transport.fetch(job(f"{origin.url}/bytes/1000"))
    assert (response.method, response.body_size, response.content_length) == ("HEAD", 0, 1000)


@pytest.mark.parametrize("path", ["/json?a=%61%2f+b&c=d%20e", "?q=1", ""])
async def test_the_url_is_sent_byte_for_byte(opened, path):
    seen = []

    async def script(peer: Peer) -> None:
        seen.append((await peer.request()).split(b" ", 2)[1])
        await peer.send(ok())

    async with raw_server(script) as server, opened() as transport:
        await transport.fetch(job(server.url(path)))
    assert seen == [(path if path.startswith("/") else f"/{path}").encode()]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_leaves_the_connection_usable(opened, status, method):
    # Of a 204 that speaks of a body, one may still come.
    length = "Content-Length: 5\r\n" if status == 304 else ""
    head = f"HTTP/1.1 {status} X\r\n{length}\r\n".encode()
    async with raw_server(answering(head, ok(b"next"))) as server, opened() as transport:
        asked = job(server.url(), method=method, headers=[("If-None-Match", '"a"')])
        response = await transport.fetch(asked)
        following = await transport.fetch(job(server.url()))
        assert server.connections == 1
    assert (response.status, response.body, following.body) == (status, b"", b"next")


async def test_a_body_that_ends_with_the_connection(opened, origin):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin.url}/close/70000"))
    assert (response.body_size, response.content_length) == (70_000, None)


async def test_interim_responses_are_passed_over(opened):
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"final")
    async with raw_server(saying(answer)) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).body == b"final"


async def test_header_bytes_are_kept(opened):
    lines = "X-A: \xff\x80", "x-a: two", "Content-Type: text/\xe9"
    async with raw_server(saying(ok(b"", *lines))) as server, opened() as transport:
        response = await transport.fetch(job(server.url()))
    assert response.headers[1:] == [("X-A", "\xff\x80"), ("x-a", "two"), ("Content-Type", "text/\xe9")]
    assert response.content_type == "text/\xe9"
    assert response.content_type.encode()


# Nothing in a job can make two requests of one

HOSTILE = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "row",
    [
        {"method": "GET / HTTP/1.1\r\nX: y"},
        {"headers": {"X-A": HOSTILE}},
        {"headers": {"X\r\nY": "z"}},
        {"headers": {"Content-Length": "3"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
    ],
)
def test_intake_refuses_to_smuggle(row):
    assert job_from_mapping("1", {"url": "http://h.test/", **row}).rejected is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "GET / HTTP/1.1\r\nX: y"},
        {"headers": [("X-A", HOSTILE)]},
        {"headers": [("X\r\nY", "z")]},
        {"headers": [("X", "a\0b")]},
        {"headers": [("content-length", "3")], "body": b"abcdef"},
        {"headers": [("Transfer-Encoding", "chunked")], "body": b"0\r\n\r\n"},
        {"url": "/ HTTP/1.1\r\nX: y"},
        {"url": "/a b"},
        {"url": "/\u00e9"},
    ],
)
async def test_the_transport_refuses_to_smuggle_by_itself(opened, fields):
    async with raw_server(saying(ok())) as server, opened() as transport:
        others = {name: value for name, value in fields.items() if name != "url"}
        error = await failure(transport, job(server.url(fields.get("url", "/")), **others))
        assert server.connections == 0
    assert error.kind in {ErrorKind.INVALID_ROW, ErrorKind.INVALID_URL}
    assert not error.sent


# Redirects


async def test_follows_exactly_as_many_redirects_as_allowed(opened, origin):
    async with opened(request={"max_redirects": 3}) as transport:
        response = await transport.fetch(job(f"{origin.url}/redirect/3"))
        error = await failure(transport, job(f"{origin.url}/redirect/4"))
    assert (response.status, response.final_url) == (200, f"{origin.url}/redirect/0")
    assert [hop.url for hop in response.redirects] == [f"{origin.url}/redirect/{n}" for n in (3, 2, 1)]
    assert (response.redirects[0].status, response.redirects[0].location) == (302, "/redirect/2")
    assert (error.kind, error.status) == (ErrorKind.TOO_MANY_REDIRECTS, 302)


async def test_none_means_none(opened, origin):
    async with opened(request={"max_redirects": 0}) as transport:
        response = await transport.fetch(job(f"{origin.url}/redirect/1"))
    assert (response.status, response.redirects) == (302, [])


async def test_a_loop_ends(opened, origin):
    async with opened() as transport:
        error = await failure(transport, job(f"{origin.url}/redirect-to?url=/redirect-to%3Furl%3D/redirect/9"))
    assert error.kind is ErrorKind.TOO_MANY_REDIRECTS


@pytest.mark.parametrize("location", ["file:///etc/passwd", "javascript:alert(1)", "ftp://h/x", "http://[::1"])
async def test_a_redirect_to_nowhere(opened, origin, location):
    async with opened() as transport:
        error = await failure(transport, job(f"{origin.url}/redirect-to?url={location}"))
    assert (error.kind, error.status) == (ErrorKind.BAD_REDIRECT, 302)


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
async def test_method_and_body_after_a_redirect(opened, origin, status, method, then):
    url = f"{origin.url}/redirect-to?url=/json&status={status}"
    async with opened() as transport:
        sent = job(url, method=method, body=b"abc", headers=[("content-type", "text/plain")])
        response = await transport.fetch(sent)
    seen = json.loads(response.body)
    assert (seen["method"], response.method) == (then, then)
    assert seen["body"] == ("" if then == "GET" else "abc")
    assert seen["headers"].get("content-type") == (None if then == "GET" else "text/plain")


async def test_credentials_stay_with_their_origin(opened, origin):
    secrets = [
        ("Authorization", "Basic x"),
        ("cookie", "a=b"),
        ("Proxy-Authorization", "y"),
        ("X-Other", "z"),
    ]
    async with opened(resolve={"other.test": "127.0.0.1"}) as transport:
        target = f"http://other.test:{origin.port}/headers"
        away = await transport.fetch(job(f"{origin.url}/redirect-to?url={target}", headers=secrets))
        same = await transport.fetch(job(f"{origin.url}/redirect-to?url=/headers", headers=secrets))
    names = {name.lower() for name, _ in sent_headers(away)}
    assert names.isdisjoint({"authorization", "cookie", "proxy-authorization"})
    assert "x-other" in names
    assert {"authorization", "cookie"} <= {name.lower() for name, _ in sent_headers(same)}


async def test_the_body_of_a_redirect_need_not_be_whole(opened, origin):
    target = f"Location: {origin.url}/health"
    broken = f"HTTP/1.1 302 Found\r\n{target}\r\nContent-Length: 100\r\n\r\nshort".encode()
    async with raw_server(saying(broken)) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).status == 200


async def test_a_post_that_was_redirected_counts_as_sent(opened, origin):
    nowhere = f"http://127.0.0.1:{unused_port()}/"
    async with opened() as transport:
        error = await failure(
            transport, job(f"{origin.url}/redirect-to?url={nowhere}&status=303", method="POST", body=b"once")
        )
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_REFUSED, True)


# Codings and caps


@pytest.mark.parametrize("path", ["gzip", "deflate"])
async def test_decodes(opened, origin, path):
    async with opened() as transport:
        plain = await transport.fetch(job(f"{origin.url}/bytes/200000"))
        response = await transport.fetch(job(f"{origin.url}/{path}/200000"))
    assert (response.body_size, response.sha256) == (200_000, plain.sha256)
    assert response.wire_size < 200_000


async def test_a_bomb_stops_at_the_cap(opened, origin):
    async with opened(body={"max_size": "1MiB"}) as transport:
        error = await failure(transport, job(f"{origin.url}/gzip/{2**30}"))
    assert (error.kind, error.status) == (ErrorKind.BODY_TOO_LARGE, 200)
    assert error.message == "longer than body.max_size (1048576 bytes)"


@pytest.mark.parametrize("path", ["bytes", "gzip", "chunked"])
async def test_a_long_body_is_cut_where_that_is_wanted(opened, origin, path):
    async with opened(body={"max_size": 5000, "overflow": "truncate"}) as transport:
        cut = await transport.fetch(job(f"{origin.url}/{path}/100000"))
        exact = await transport.fetch(job(f"{origin.url}/{path}/5000"))
    assert (len(cut.body), cut.body_size, cut.truncated) == (5000, 5000, True)
    assert (exact.body_size, exact.truncated) == (5000, False)


async def test_bodies_are_not_kept_where_they_are_not_wanted(opened, origin):
    async with opened(body={"store": "none"}) as transport:
        response = await transport.fetch(job(f"{origin.url}/bytes/10"))
    assert (response.body, response.body_size) == (None, 10)


# Servers that lie, break off, or are none

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
BROKEN = {
    "short": (
        HEAD + b"Content-Length: 2048\r\n\r\n" + b"x" * 1024,
        ErrorKind.BODY_INCOMPLETE,
        "the connection ended after 1024 of 2048 bytes",
    ),
    "no last chunk": (CHUNKED, ErrorKind.BODY_INCOMPLETE, "the connection ended before the last chunk"),
    "half gzip": (
        ok(gzip.compress(b"hello" * 99)[:-4], "Content-Encoding: gzip"),
        ErrorKind.BODY_INCOMPLETE,
        "the gzip body ends before its end-of-stream mark",
    ),
    "no gzip": (ok(b"hello", "Content-Encoding: gzip"), ErrorKind.BAD_ENCODING, "the gzip body is damaged"),
    "bad chunk": (CHUNKED + b"zz\r\n", ErrorKind.BAD_HTTP, "size: b'zz'"),
    "two lengths": (
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ErrorKind.BAD_HTTP,
        "Content-Length",
    ),
    "101": (
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ErrorKind.BAD_HTTP,
        "switched",
    ),
    "ssh": (
        b"SSH-2.0-OpenSSH_9.6\r\n",
        ErrorKind.NOT_HTTP,
        "the answer is not HTTP; it begins with b'SSH-2.0-OpenSSH_9.6'",
    ),
    "long header": (
        HEAD + b"A: " + b"x" * 300_000 + b"\r\n\r\n",
        ErrorKind.HEADERS_TOO_LARGE,
        "262144 bytes",
    ),
    "many headers": (
        HEAD + b"A: b\r\n" * 300 + b"\r\n",
        ErrorKind.HEADERS_TOO_LARGE,
        " header fields",
    ),
    "nothing": (b"", ErrorKind.SERVER_DISCONNECTED, "the server closed the connection without an answer"),
    "half a head": (
        HEAD + b"A: b\r\n",
        ErrorKind.SERVER_DISCONNECTED,
        "the server closed the connection in the middle of a response head",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_names_what_is_wrong_with_an_answer(opened, name):
    answer, kind, message = BROKEN[name]
    async with raw_server(saying(answer)) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is kind
    assert message in error.message
    assert error.sent


async def test_a_chunk_that_breaks_later_is_no_silence(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        # Long enough that the client reads the next bytes by themselves; if it does not, that is no failure.
        await asyncio.sleep(0.05)
        await peer.send(b"zz\r\n")
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.BAD_HTTP


async def test_a_reset_in_the_middle_of_a_body(opened):
    async def reset(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 10\r\n\r\nfive!")
        peer.reset()

    async with raw_server(reset) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    # Where the reset overtakes the head there was no body yet.
    assert error.kind in {ErrorKind.BODY_INCOMPLETE, ErrorKind.CONNECTION_RESET}


async def test_a_bad_response_is_never_status_400(opened):
    async with raw_server(saying(b"HTTP/1.1 2x0 OK\r\n\r\n")) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert (error.kind, error.status) == (ErrorKind.BAD_HTTP, None)


async def test_a_port_where_nobody_listens(opened):
    url = f"http://127.0.0.1:{unused_port()}/"
    async with opened() as transport:
        refused = await failure(transport, job(url))
    assert (refused.kind, refused.sent) == (ErrorKind.CONNECT_REFUSED, False)
    assert refused.message == f"{url[7:-1]} refused the connection"


# Connections


async def test_a_connection_is_reused(opened):
    async with (
        raw_server(answering(ok(), ok())) as server,
        opened(resolve={"a.test": "127.0.0.1"}) as transport,
    ):
        first = await transport.fetch(job(server.url(host="a.test")))
        second = await transport.fetch(job(server.url(host="a.test")))
        assert server.connections == 1
    assert None not in (first.timings.dns, first.timings.connect, first.timings.first_byte)
    assert first.timings.tls is None
    assert (second.timings.dns, second.timings.connect, second.timings.tls) == (None, None, None)
    assert second.timings.first_byte is not None
    assert second.remote_ip == "127.0.0.1"


@pytest.mark.parametrize("break_off", ["close", "reset"])
async def test_a_connection_closed_just_as_it_is_reused(opened, break_off):
    """The keep-alive race: the second request is read, and the connection then closed instead of answered."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"%d" % peer.number))
        await peer.request()
        if peer.number == 1:
            getattr(peer, break_off)()

    async with raw_server(script) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).body == b"1"
        assert (await transport.fetch(job(server.url()))).body == b"2"


async def test_the_race_is_not_retried_for_a_post(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()

    async with raw_server(script) as server, opened() as transport:
        await transport.fetch(job(server.url()))
        error = await failure(transport, job(server.url(), method="POST", body=b"once"))
        assert server.connections == 1
    assert (error.kind, error.sent) == (ErrorKind.SERVER_DISCONNECTED, True)


async def test_a_retry_that_is_refused_says_so(opened):
    """What was true of the first, reused connection is not true of the second."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()
        stop.set()
        await closed.wait()

    stop, closed = asyncio.Event(), asyncio.Event()
    async with opened() as transport:
        async with raw_server(script) as server:
            await transport.fetch(job(server.url()))
            fetching = asyncio.create_task(failure(transport, job(server.url())))
            await stop.wait()
        error = await fetching
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_REFUSED, True)


@pytest.mark.parametrize(
    "push", [ok(b"evil"), b"HTTP/1.1 200 OK\r\nX-Half: ", b"\x00", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_bytes_that_nobody_asked_for_are_never_an_answer(opened, push):
    """F13. And once there was such a push, connections to this peer are not used twice for a while."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(ok(request.split(b" ", 2)[1]))
            if peer.number == 1:
                await idle.wait()
                await peer.send(push)
                pushed.set()

    idle, pushed = asyncio.Event(), asyncio.Event()
    async with raw_server(script) as server, opened() as transport:
        assert (await transport.fetch(job(server.url("/1")))).body == b"/1"
        idle.set()
        await pushed.wait()
        # The client's side of the loop reads what has arrived before it is asked to fetch again.
        await asyncio.sleep(0.02)
        for path in ("/2", "/3", "/4"):
            assert (await transport.fetch(job(server.url(path)))).body == path.encode()
        assert server.connections == 4


async def test_extra_bytes_behind_a_response_are_not_the_next_one(opened):
    async with raw_server(answering(ok(b"1") + ok(b"evil"), ok(b"2"))) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).body == b"1"
        assert (await transport.fetch(job(server.url()))).body == b"1"
        assert server.connections == 2


async def test_a_connection_is_not_reused_while_its_request_is_unread(opened):
    async def early(peer: Peer) -> None:
        await peer.receive(1)
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await done.wait()

    done = asyncio.Event()
    async with raw_server(early) as server, opened() as transport:
        for _ in range(2):
            large = job(server.url(), method="POST", body=b"x" * 30_000_000)
            assert (await transport.fetch(large)).status == 413
        assert server.connections == 2
        done.set()


# Names


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("pattern", ["a.b.test", "*.test", "*.B.Test"])
async def test_names_are_mapped(opened, pattern, address):
    async def script(peer: Peer) -> None:
        host = next(line for line in (await peer.request()).split(b"\r\n") if line.lower().startswith(b"host:"))
        await peer.send(ok(host[5:].strip()))

    async with raw_server(script, host=address) as server, opened(resolve={pattern: address}) as transport:
        response = await transport.fetch(job(server.url(host="A.b.test")))
        assert response.body.lower() == f"a.b.test:{server.port}".encode()
        assert response.remote_ip == address


async def test_an_ipv6_address_in_a_url(opened):
    async with raw_server(saying(ok()), host="::1") as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).remote_ip == "::1"


def test_a_name_maps_to_an_address_only():
    with pytest.raises(ValidationError, match="should map to an IP address"):
        HttpConfig(resolve={"a.test": "b.test"})


# Time


async def hang(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def hang_in_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(HEAD + b"Content-Length: 10\r\n\r\nfive!")
    await peer.gone()


@pytest.mark.parametrize("script", [hang, hang_in_body])
async def test_silence_is_a_read_timeout(opened, script):
    async with (
        raw_server(script) as server,
        opened(request={"timeout": {"read": 0.1, "total": 30, "connect": 30}}) as transport,
    ):
        error = await failure(transport, job(server.url()))
    assert (error.kind, error.message) == (ErrorKind.READ_TIMEOUT, "nothing arrived for 0.1 s")


@pytest.mark.parametrize("script", [hang, hang_in_body])
async def test_the_total_timeout_of_a_job(opened, script):
    async with raw_server(script) as server, opened(request={"timeout": {"total": 30}}) as transport:
        error = await failure(transport, job(server.url(), timeout=0.1))
    assert (error.kind, error.message) == (ErrorKind.TOTAL_TIMEOUT, "took longer than 0.1 s in all")


async def test_a_drip_does_not_outlive_the_total_timeout(opened, origin):
    async with opened(request={"timeout": {"read": 5, "total": 0.3}}) as transport:
        error = await failure(transport, job(f"{origin.url}/drip/1000/60"))
    assert error.kind is ErrorKind.TOTAL_TIMEOUT


async def test_a_handshake_that_stalls(opened):
    async with (
        raw_server(hang) as server,
        opened(request={"timeout": {"connect": 0.1, "read": 0.01}}) as transport,
    ):
        error = await failure(transport, job(f"https://127.0.0.1:{server.port}/"))
    assert (error.kind, error.sent) == (ErrorKind.TLS_TIMEOUT, False)


async def test_a_cancelled_fetch_closes_its_connection(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        gone.set()

    asked, gone = asyncio.Event(), asyncio.Event()
    async with raw_server(script) as server, opened() as transport:
        fetching = asyncio.create_task(transport.fetch(job(server.url())))
        await asked.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await gone.wait()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_tls(opened, authority, ca_file):
    context = serving(authority.issue_cert("good.test"))
    async with (
        raw_server(answering(ok(), ok()), tls=context) as server,
        opened(tls={"ca_file": ca_file}, resolve={"*.test": "127.0.0.1"}) as transport,
    ):
        first = await transport.fetch(job(server.url(host="good.test")))
        second = await transport.fetch(job(server.url(host="good.test")))
        assert server.connections == 1
    assert None not in (first.timings.dns, first.timings.connect, first.timings.tls)
    assert second.timings.tls is None


def bad_certificates(authority: trustme.CA) -> dict[ErrorKind, trustme.LeafCert]:
    past = datetime.now(UTC) - timedelta(days=1)
    return {
        ErrorKind.TLS_EXPIRED: authority.issue_cert("good.test", not_after=past),
        ErrorKind.TLS_HOSTNAME: authority.issue_cert("other.test"),
        ErrorKind.TLS_UNTRUSTED: trustme.CA().issue_cert("good.test"),
    }


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "good.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("good.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "self.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize("kind", [ErrorKind.TLS_EXPIRED, ErrorKind.TLS_HOSTNAME, ErrorKind.TLS_UNTRUSTED])
async def test_a_bad_certificate(opened, authority, ca_file, kind):
    context = serving(bad_certificates(authority)[kind])
    async with (
        raw_server(saying(ok()), tls=context) as server,
        opened(tls={"ca_file": ca_file}, resolve={"*.test": "127.0.0.1"}) as transport,
    ):
        error = await failure(transport, job(server.url(host="good.test")))
    assert (error.kind, error.sent) == (kind, False)
    assert "the certificate of good.test" in error.message


async def test_a_self_signed_certificate(opened, tmp_path):
    async with (
        raw_server(saying(ok()), tls=self_signed(tmp_path)) as server,
        opened(resolve={"*.test": "127.0.0.1"}) as transport,
    ):
        error = await failure(transport, job(server.url(host="good.test")))
    assert error.kind is ErrorKind.TLS_SELF_SIGNED


async def confused(peer: Peer) -> None:
    """Answer a handshake as an http server does that did not understand."""
    await peer.receive(1)
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_plain_http_on_a_tls_port_and_the_reverse(opened, authority, ca_file):
    async with (
        raw_server(confused) as plain,
        raw_server(saying(ok()), tls=serving(authority.issue_cert("good.test"))) as server,
        opened(tls={"ca_file": ca_file}) as transport,
    ):
        to_plain = await failure(transport, job(f"https://127.0.0.1:{plain.port}/"))
        to_tls = await failure(transport, job(f"http://127.0.0.1:{server.port}/"))
    assert (to_plain.kind, to_plain.sent) == (ErrorKind.TLS_PROTOCOL, False)
    assert to_tls.kind in {ErrorKind.NOT_HTTP, ErrorKind.SERVER_DISCONNECTED, ErrorKind.CONNECTION_RESET}


async def test_a_connection_lost_in_the_handshake(opened):
    async def script(peer: Peer) -> None:
        await peer.receive(1)
        peer.reset()

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(f"https://127.0.0.1:{server.port}/"))
    assert (error.kind, error.sent) == (ErrorKind.CONNECTION_RESET, False)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_can_not_be_used(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"http\.tls\.ca_file"):
        async with http_transport("connection", tls={"ca_file": str(path)}):
            pass


# The loop that runs in production


def test_on_uvloop(authority, ca_file):
    """Every error text and class of a socket differs a little there."""

    async def kinds(exchange: str) -> list[ErrorKind | int]:
        async def fetch(wanted: Job) -> ErrorKind | int:
            try:
                return (await transport.fetch(wanted)).status
            except FetchError as error:
                return error.kind

        def url(server: RawServer) -> str:
            return server.url(host="good.test")

        timeout = {"timeout": {"read": 0.2, "connect": 5, "total": 9}}
        async with (
            http_transport(
                exchange, tls={"ca_file": ca_file}, resolve={"*.test": "127.0.0.1"}, request=timeout
            ) as transport,
            raw_server(answering(ok(), ok()), tls=serving(authority.issue_cert("good.test"))) as good,
            raw_server(answering(ok()), tls=serving(authority.issue_cert("other.test"))) as other,
            raw_server(answering(ok(), ok())) as plain,
            raw_server(saying(HEAD + b"Content-Length: 9\r\n\r\nx")) as short,
            raw_server(saying(b"")) as nothing,
            raw_server(hang) as silent,
            raw_server(confused) as rude,
        ):
            jobs = [job(url(server)) for server in (good, good, other, plain, plain, short, nothing, silent)]
            jobs += [job(f"https://good.test:{rude.port}/"), job(f"http://127.0.0.1:{unused_port()}/")]
            return [await fetch(each) for each in jobs]

    for exchange in HTTP_EXCHANGES:
        assert uvloop.run(kinds(exchange)) == [
            200,
            200,
            ErrorKind.TLS_HOSTNAME,
            200,
            200,
            ErrorKind.BODY_INCOMPLETE,
            ErrorKind.SERVER_DISCONNECTED,
            ErrorKind.READ_TIMEOUT,
            ErrorKind.TLS_PROTOCOL,
            ErrorKind.CONNECT_REFUSED,
        ]
