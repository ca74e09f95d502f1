"""F7, F9, F10, F12, F13, F27: connections that are refused, reset, closed, or not what they seem."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme
from certificates import serving
from raw_server import Peer, answering, ok, raw_server, saying, unused_port
from transport_factories import failure, http_transport, job

from fetcher.engine.retry import Attempt, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.connection import PooledConnection, Suspects
from fetcher.transports.http.wire import Bounds, ResponseParser

BOTH_LOOPS = True


def retried(error: FetchError, method: str) -> bool:
    attempt = Attempt(number=1, age=0.0, method=method, kind=error.kind, sent=error.sent)
    return decide(RetrySettings(), attempt, lambda: 0.5) is not None


async def test_f07_a_refused_connection_is_retried_only_so_often():
    url = f"http://127.0.0.1:{unused_port()}/"
    async with http_transport("connection") as transport:
        error = await failure(transport, job(url))
    assert error.kind is ErrorKind.CONNECT_REFUSED
    assert not error.sent
    assert retried(error, "POST")
    last = Attempt(number=4, age=0.0, method="GET", kind=error.kind, sent=False)
    assert decide(RetrySettings(), last, lambda: 0.5) is None


async def test_f09_a_reset_before_the_head_is_retried_if_that_does_no_harm():
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with raw_server(script) as server, http_transport("connection") as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.CONNECTION_RESET
    assert retried(error, "GET")
    assert not retried(error, "POST")


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n", b"\r\n"],
    ids=["length", "chunked", "to the end"],
)
async def test_f10_a_reset_in_the_middle_of_a_body_is_never_a_success(head):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"x" * 500)
        await received.wait()
        peer.reset()

    received = asyncio.Event()
    async with raw_server(script) as server, http_transport("connection") as transport:
        fetching = asyncio.create_task(failure(transport, job(server.url())))
        asyncio.get_running_loop().call_later(0.05, received.set)
        error = await fetching
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert error.status == 200


@pytest.mark.parametrize("close", ["close", "reset"])
async def test_f12_a_connection_closed_as_it_is_reused_is_replaced_at_once(close):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"answer"))
        if peer.number == 1:
            # The next request is on its way when the connection goes.
            await peer.request()
            getattr(peer, close)()
        else:
            await peer.gone()

    async with raw_server(script) as server, http_transport("connection") as transport:
        for _ in range(2):
            response = await transport.fetch(job(server.url()))
            assert response.body == b"answer"
        assert server.connections == 2


async def test_f12_it_is_replaced_on_every_hop():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"first"))
        await peer.request()
        if peer.number == 1:
            peer.close()  # the redirect's own hop meets a closed connection
            return
        await peer.send(ok(b"second"))

    async def redirecting(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 302 Found\r\nLocation: {target.url()}\r\nContent-Length: 0\r\n\r\n".encode())

    async with (
        raw_server(script) as target,
        raw_server(redirecting) as start,
        http_transport("connection") as transport,
    ):
        assert (await transport.fetch(job(target.url()))).body == b"first"
        response = await transport.fetch(job(start.url()))
    assert response.body == b"first"
    assert response.final_url == target.url()


def numbered(peer: Peer, request: bytes) -> bytes:
    """Answer with the path that was asked for, so that a mix-up shows."""
    return ok(request.split()[1])


@pytest.mark.parametrize(
    "push",
    [ok(b"pushed"), b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npus", b"H", b"\x00"],
    ids=["a response", "half a response", "a byte", "NUL"],
)
async def test_f13_a_response_nobody_asked_for_poisons_no_other(push):
    async def script(peer: Peer) -> None:
        await peer.send(numbered(peer, await peer.request()))
        if peer.number == 1:
            await peer.send(push)
            pushed.set()
        while True:
            await peer.send(numbered(peer, await peer.request()))

    pushed = asyncio.Event()
    async with raw_server(script) as server, http_transport("connection") as transport:
        bodies = [(await transport.fetch(job(server.url("/0")))).body]
        await pushed.wait()
        bodies += [(await transport.fetch(job(server.url(f"/{number}")))).body for number in range(1, 4)]
        assert bodies == [b"/0", b"/1", b"/2", b"/3"]
        # One sign is enough: none of this host's connections is reused for a while.
        assert server.connections == 4


async def test_f13_what_has_arrived_but_was_not_read_counts_too():
    async def script(peer: Peer) -> None:
        request = await peer.request()
        # The second is there before the event loop has had a turn to read it.
        await peer.send(numbered(peer, request))
        await peer.send(ok(b"pushed"))
        await peer.gone()

    async with raw_server(script) as server, http_transport("connection") as transport:
        bodies = [(await transport.fetch(job(server.url(f"/{number}")))).body for number in range(5)]
    assert bodies == [b"/0", b"/1", b"/2", b"/3", b"/4"]


async def test_f13_an_answer_before_the_request_is_no_answer():
    async def script(peer: Peer) -> None:
        await peer.send(ok(b"too early"))
        pushed.set()
        await peer.gone()

    pushed = asyncio.Event()
    loop = asyncio.get_running_loop()
    suspects = Suspects()
    async with raw_server(script) as server:
        _, connection = await loop.create_connection(
            lambda: PooledConnection(suspects, lambda _: None, loop), server.host, server.port
        )
        await pushed.wait()
        with pytest.raises(FetchError) as raised:
            connection.expect(ResponseParser("GET", Bounds()))
        assert raised.value.kind is ErrorKind.BAD_HTTP
        assert not raised.value.sent
        assert (server.host, server.port) in suspects
        connection.close()


async def test_f13_a_connection_without_a_sign_is_reused():
    async with (
        raw_server(answering(ok(b"1"), ok(b"2"), ok(b"3"))) as server,
        http_transport("connection") as transport,
    ):
        bodies = [(await transport.fetch(job(server.url()))).body for _ in range(3)]
        assert bodies == [b"1", b"2", b"3"]
        assert server.connections == 1


async def test_f27_an_empty_reply_is_retried_if_that_does_no_harm():
    async with raw_server(saying(b"")) as server, http_transport("connection") as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.SERVER_DISCONNECTED
    assert retried(error, "GET")
    assert not retried(error, "POST")


async def test_f13_under_tls_too_what_has_arrived_keeps_a_connection_from_being_reused():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"answer"))
        await peer.receive(1)
        await peer.send(ok(b"pushed"))
        pushed.set()
        await peer.gone()

    pushed = asyncio.Event()
    loop = asyncio.get_running_loop()
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with raw_server(script, tls=serving(authority.issue_cert("127.0.0.1"))) as server:
        transport, connection = await loop.create_connection(
            lambda: PooledConnection(Suspects(), lambda _: None, loop), server.host, server.port, ssl=trusting
        )
        parser = ResponseParser("GET", Bounds())
        connection.expect(parser)
        transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await connection.head()
        assert await connection.body(parser) == b"answer"
        connection.rest()
        assert connection.is_connected()
        transport.write(b"x")
        await pushed.wait()
        assert not connection.is_connected()
        connection.abort()


async def test_f09_a_request_that_is_not_read_leaves_nothing_behind():
    async def script(peer: Peer) -> None:
        await failed.wait()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)) as ended:
            await peer.receive(len(body))
        ends.put_nowait(ended.value)

    body = b"x" * 32 * 1024 * 1024
    failed, ends = asyncio.Event(), asyncio.Queue[BaseException]()
    async with (
        raw_server(script) as server,
        http_transport("connection", request={"timeout": {"read": 0.2}}) as transport,
    ):
        error = await failure(transport, job(server.url(), method="POST", body=body))
        assert error.kind is ErrorKind.READ_TIMEOUT
        failed.set()
        # What was still to be sent is not: the connection is gone.
        assert isinstance(await asyncio.wait_for(ends.get(), 10), asyncio.IncompleteReadError | ConnectionError)


async def test_f57_a_long_request_that_is_taken_slowly_is_no_silence():
    async def script(peer: Peer) -> None:
        head = await peer.receive_until(b"\r\n\r\n")
        assert head.startswith(b"POST")
        for _ in range(len(body) // piece):
            await peer.receive(piece)
            await asyncio.sleep(0.02)
        await peer.send(ok(b"taken"))

    piece = 512 * 1024
    body = b"x" * 64 * piece
    async with (
        raw_server(script) as server,
        http_transport("connection", request={"timeout": {"read": 0.7}}) as transport,
    ):
        response = await transport.fetch(job(server.url(), method="POST", body=body))
    assert response.body == b"taken"


@pytest.mark.parametrize("late", [b"hello", ok(b"evil")], ids=["bytes", "a response"])
@pytest.mark.parametrize(
    ("head", "method"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ],
)
async def test_f30_a_body_where_there_is_none_may_come_late(head, method, late):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head if peer.number == 1 else ok(b"right"))
        await peer.request()
        await peer.send(late)

    async with raw_server(script) as server, http_transport("connection") as transport:
        await transport.fetch(job(server.url(), method=method))
        assert (await transport.fetch(job(server.url()))).body == b"right"


async def test_f30_a_late_body_of_head_costs_one_more_connection():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" if peer.number == 1 else ok(b"right"))
        await peer.request()
        await peer.send(b"hello")

    async with raw_server(script) as server, http_transport("connection") as transport:
        await transport.fetch(job(server.url(), method="HEAD"))
        assert (await transport.fetch(job(server.url()))).body == b"right"
        assert server.connections == 2
