"""Time: what comes too slowly, too late, or never ends. Rows F8, F16, F55, F57 and F58."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from raw_server import blackhole, ok, raw_server
from transport_factories import HTTP_TRANSPORTS, job

from fetcher.errors import ErrorKind, FetchError

PATIENT = {"connect": 60, "read": 60, "total": 60}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
PAUSE = 0.02


@pytest.fixture(params=HTTP_TRANSPORTS)
def opened(request):
    """Return what opens a transport; ``timeout`` and the like are its section ``request``."""

    def make(body: dict[str, Any] | None = None, timeout: dict[str, Any] | None = None, **settings: Any):
        settings["timeout"] = PATIENT | (timeout or {})
        return HTTP_TRANSPORTS[request.param](request=settings, body=body or {})

    return make


async def failure(transport, job, **options) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(job, **options)
    return caught.value


def dripping(head: bytes, drop: bytes = b"x", left: asyncio.Event | None = None):
    """Send ``head`` and then a drop at a time for ever; ``left`` is set when the client goes."""

    async def script(peer):
        await peer.request()
        await peer.send(head)
        try:
            while True:
                await peer.send(drop)
                await asyncio.sleep(PAUSE)
        finally:
            if left is not None:
                left.set()

    return script


async def test_f08_a_connection_that_nobody_takes_is_a_connect_timeout(opened):
    with blackhole() as port:
        async with opened(timeout={"connect": 0.3}) as transport:
            error = await failure(transport, job(f"http://127.0.0.1:{port}/"))
    assert error.kind is ErrorKind.CONNECT_TIMEOUT
    assert not error.sent


async def test_f08_what_it_waits_for_is_the_connection(opened):
    with blackhole() as port:
        async with opened() as transport:
            asked = job(f"http://127.0.0.1:{port}/")
            async with fetching(transport, asked):
                assert (await phase(transport, asked, "connect")).received == 0


async def test_f55_an_endless_body_stops_at_the_cap(opened):
    left = asyncio.Event()
    endless = dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, left)
    async with raw_server(endless) as server, opened(body={"max_size": "1MiB"}) as transport:
        error = await failure(transport, job(server.url()))
        await left.wait()
    assert (error.kind, error.status) == (ErrorKind.BODY_TOO_LARGE, 200)


async def test_f55_an_endless_body_is_cut_at_the_cap_if_that_is_wanted(opened):
    left = asyncio.Event()
    endless = dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, left)
    body = {"max_size": "1MiB", "overflow": "truncate"}
    async with raw_server(endless) as server, opened(body=body) as transport:
        response = await transport.fetch(job(server.url()))
        await left.wait()
    assert (response.truncated, response.body_size) == (True, 1024 * 1024)


@pytest.mark.parametrize("deadline", [False, True])
async def test_f55_an_endless_body_stops_at_the_deadline(opened, deadline):
    left = asyncio.Event()
    endless = dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000, left)
    timeout = {} if deadline else {"total": 0.5}
    async with raw_server(endless) as server, opened(timeout=timeout) as transport:
        error = await failure(transport, job(server.url()), **({"within": 0.5} if deadline else {}))
        await left.wait()
    assert error.kind is (ErrorKind.DEADLINE if deadline else ErrorKind.TOTAL_TIMEOUT)
    assert error.status == 200


async def test_f57_a_head_that_does_not_come_is_a_read_timeout(opened):
    async def silent(peer):
        await peer.request()
        await peer.gone()

    async with raw_server(silent) as server, opened(timeout={"read": 0.3}) as transport:
        error = await failure(transport, job(server.url()))
    assert (error.kind, error.message) == (ErrorKind.READ_TIMEOUT, "nothing arrived for 0.3 s")


async def test_f57_a_head_that_drips_is_a_read_timeout(opened):
    left = asyncio.Event()
    slow = dripping(b"HTTP/1.1 200 OK\r\nX: ", left=left)
    async with raw_server(slow) as server, opened(timeout={"read": 0.3}) as transport:
        error = await failure(transport, job(server.url()))
        await left.wait()
    assert error.kind is ErrorKind.READ_TIMEOUT


async def test_f58_a_body_that_drips_is_too_slow(opened):
    left = asyncio.Event()
    async with raw_server(dripping(HEAD, left=left)) as server, opened(min_rate=1000, min_rate_span=0.3) as transport:
        error = await failure(transport, job(server.url()))
        await left.wait()
    assert (error.kind, error.status) == (ErrorKind.TOO_SLOW, 200)
    assert error.message.endswith("bytes of the body in 0.3 s, less than request.min_rate (1000 bytes a second)")


async def test_f58_a_body_that_begins_fast_and_then_drips_is_too_slow(opened):
    fast = HEAD + b"x" * 500_000
    async with raw_server(dripping(fast)) as server, opened(min_rate=1000, min_rate_span=0.3) as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.TOO_SLOW


async def test_f58_a_slow_body_may_come_at_the_least_rate(opened):
    # 50 drops of 100 bytes, over three spans at least.
    async def slow(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        for _ in range(50):
            await peer.send(b"x" * 100)
            await asyncio.sleep(PAUSE)
        await peer.gone()

    async with raw_server(slow) as server, opened(min_rate=100, min_rate_span=0.3) as transport:
        assert (await transport.fetch(job(server.url()))).body_size == 5000


@pytest.mark.parametrize("off", [True, False])
async def test_f58_a_drip_may_go_on_if_no_rate_is_asked_for_or_its_span_is_longer(opened, off):
    async def slow(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
        for _ in range(40):
            await peer.send(b"x")
            await asyncio.sleep(PAUSE)
        await peer.gone()

    settings = {"min_rate": 0, "min_rate_span": 0.2} if off else {"min_rate": 1000, "min_rate_span": 60}
    async with raw_server(slow) as server, opened(**settings) as transport:
        assert (await transport.fetch(job(server.url()))).body_size == 40


async def test_f58_waiting_for_the_head_is_not_slow(opened):
    async def thinking(peer):
        await peer.request()
        await asyncio.sleep(0.8)
        await peer.send(ok())
        await peer.gone()

    async with raw_server(thinking) as server, opened(min_rate="1MB", min_rate_span=0.2) as transport:
        assert (await transport.fetch(job(server.url()))).status == 200


async def test_f58_waiting_for_the_head_after_a_redirect_is_not_slow(opened):
    async def script(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 3\r\n\r\nabc")
        await peer.request()
        await asyncio.sleep(0.8)
        await peer.send(ok())
        await peer.gone()

    async with raw_server(script) as server, opened(min_rate="1MB", min_rate_span=0.2) as transport:
        assert (await transport.fetch(job(server.url()))).status == 200


@pytest.mark.parametrize(("head", "expected"), [(b"", "first byte"), (HEAD + b"x" * 300, "body")])
async def test_f57_what_a_fetch_waits_for_can_be_asked(opened, head, expected):
    async def script(peer):
        await peer.request()
        if head:
            await peer.send(head)
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        asked = job(server.url())
        async with fetching(transport, asked):
            standing = await phase(transport, asked, expected, received=300 if head else 0)
            assert 0 < standing.left <= 60
        assert transport.standing(asked) is None


async def test_f16_a_handshake_that_stalls_is_named(opened):
    async def silent(peer):
        await peer.gone()

    async with raw_server(silent) as server, opened() as transport:
        asked = job(server.url().replace("http:", "https:"))
        async with fetching(transport, asked):
            await phase(transport, asked, "tls")


@contextlib.asynccontextmanager
async def fetching(transport, asked):
    """Fetch a job until the block ends."""
    task = asyncio.create_task(transport.fetch(asked))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def phase(transport, asked, expected, received=0):
    """Wait until the fetch of a job is in this phase and has received so much."""
    async with asyncio.timeout(30):
        while True:
            standing = transport.standing(asked)
            if standing is not None and (standing.phase, standing.received) == (expected, received):
                return standing
            await asyncio.sleep(PAUSE)
