"""What every transport promises (``fetcher.interfaces.Transport``), over all of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import ok, raw_server, unused_port
from transport_factories import TRANSPORTS, job

from fetcher.errors import ErrorKind, FetchError
from fetcher.origin import Origin, OriginConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from raw_server import Peer

    from fetcher.interfaces import Transport


@pytest.fixture(params=TRANSPORTS)
def opened(request: pytest.FixtureRequest) -> Any:
    return TRANSPORTS[request.param]


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    server = Origin(OriginConfig())
    await server.start()
    yield server
    await server.close()


async def kind_of(transport: Transport, url: str, **fields: Any) -> ErrorKind:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(job(url, **fields))
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.kind


def open_files() -> set[str]:
    """What this process has open, sockets by their number."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  Path.iterdir would hold one open
        try:
            found.add(f"{name} {Path('/proc/self/fd', name).readlink()}")
        except FileNotFoundError:
            continue  # it was that of the listing
    return found


async def stall(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    await peer.gone()


async def test_fetches(opened, origin):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin.url}/bytes/1024"))
    assert (response.body_size, len(response.body), response.truncated) == (1024, 1024, False)


async def test_a_status_is_no_error(opened, origin):
    async with opened() as transport:
        assert (await transport.fetch(job(f"{origin.url}/status/500"))).status == 500


async def test_every_fetch_ends_by_its_deadline(opened):
    async with raw_server(stall) as server, opened(request={"timeout": {"total": 0.2}}) as transport:
        assert await kind_of(transport, server.url()) is ErrorKind.TOTAL_TIMEOUT


async def test_a_stall_ends(opened):
    async with raw_server(stall) as server, opened(request={"timeout": {"read": 0.1}}) as transport:
        assert await kind_of(transport, server.url()) is ErrorKind.READ_TIMEOUT


async def test_a_jobs_own_timeout_goes_first(opened):
    async with raw_server(stall) as server, opened() as transport:
        assert await kind_of(transport, server.url(), timeout=0.1) is ErrorKind.TOTAL_TIMEOUT


async def test_a_body_is_capped(opened, origin):
    async with opened(body={"max_size": 1000}) as transport:
        assert await kind_of(transport, f"{origin.url}/bytes/1001") is ErrorKind.BODY_TOO_LARGE
        assert (await transport.fetch(job(f"{origin.url}/bytes/1000"))).body_size == 1000


async def test_an_endless_body_is_capped(opened):
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 65_536)

    async with raw_server(endless) as server, opened(body={"max_size": "1MiB"}) as transport:
        assert await kind_of(transport, server.url()) is ErrorKind.BODY_TOO_LARGE


async def test_refused(opened):
    async with opened() as transport:
        assert await kind_of(transport, f"http://127.0.0.1:{unused_port()}/") is ErrorKind.CONNECT_REFUSED


async def test_reset(opened):
    async def reset(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async with raw_server(reset) as server, opened() as transport:
        assert await kind_of(transport, server.url()) is ErrorKind.CONNECTION_RESET


async def test_many_at_once_get_their_own_answers(opened):
    async def echo(peer: Peer) -> None:
        while True:
            await peer.send(ok((await peer.request()).split(b" ", 2)[1]))

    async with raw_server(echo) as server, opened() as transport:
        urls = [server.url(f"/{number}") for number in range(300)]
        answers = await asyncio.gather(*(transport.fetch(job(url)) for url in urls))
    assert [answer.body for answer in answers] == [f"/{number}".encode() for number in range(300)]


async def test_cancellation_releases_everything(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number % 2:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        there.append(peer.number)
        if len(there) == 20:
            all_there.set()
        await peer.gone()
        gone.append(peer.number)
        if len(gone) == 20:
            all_gone.set()

    there: list[int] = []
    gone: list[int] = []
    all_there, all_gone = asyncio.Event(), asyncio.Event()
    async with raw_server(script) as server, opened() as transport:
        before = asyncio.all_tasks()
        fetches = [asyncio.create_task(transport.fetch(job(server.url()))) for _ in range(20)]
        await all_there.wait()
        for fetch in fetches:
            fetch.cancel()
        ended = await asyncio.gather(*fetches, return_exceptions=True)
        await all_gone.wait()
        assert {type(error) for error in ended} == {asyncio.CancelledError}
        left = {task for task in asyncio.all_tasks() - before if "serve" not in str(task.get_coro())}
        assert not left


async def test_nothing_leaks_over_two_thousand_jobs(opened, origin):
    paths = [
        "bytes/100",
        "status/404",
        "truncated/100",
        "redirect/1",
        "gzip/3000",
        "close/9",
        "reset/1/health",
    ]

    async def fetch(number: int) -> None:
        async with slots:
            url = f"{origin.url}/{paths[number % len(paths)]}?{number}"
            try:
                await transport.fetch(job(url))
            except FetchError as error:
                kinds.add(error.kind)

    slots = asyncio.Semaphore(50)
    kinds: set[ErrorKind] = set()
    before, tasks = open_files(), asyncio.all_tasks()
    async with opened() as transport:
        await asyncio.gather(*(fetch(number) for number in range(2000)))
        # A reset on a reused connection is taken for the keep-alive race, and retried.
        assert kinds - {ErrorKind.CONNECTION_RESET} == {ErrorKind.BODY_INCOMPLETE}
        assert len(open_files() - before) <= 2 * 50 + 10
        await transport.close()
        await transport.close()
    await origin.close()
    await asyncio.sleep(0)
    left = {name for name in open_files() - before if "socket:" in name}
    assert not left
    assert asyncio.all_tasks() == tasks
