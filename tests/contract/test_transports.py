"""What every transport promises (``fetcher.interfaces.Transport``), over all of them and both event loops.

``tests/transport_partners`` says how another one joins.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import unused_port
from transport_factories import WAYS

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from transport_factories import Way

    from fetcher.interfaces import Transport
    from fetcher.model import Job

BOTH_LOOPS = True
AT_ONCE = 50
MANY = 300
GIVEN_UP_ON = 20


def over(behaviour: str) -> pytest.MarkDecorator:
    """Run a test over every transport whose partner can behave so."""
    return pytest.mark.parametrize(
        "way", [way for way in WAYS if behaviour not in WAYS[way].partner.lacks], indirect=True
    )


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


async def kind_of(transport: Transport, asked: Job) -> ErrorKind:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(asked)
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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a server, which may be in another thread, notes of its clients."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  it is no event of this loop
            await asyncio.sleep(0.01)


@over("answer")
@pytest.mark.parametrize("size", [1, 1024, 50_000])
async def test_fetches(way, size):
    async with way.partner.answer(size) as server, way.opened() as transport:
        response = await transport.fetch(server.job())
    assert (response.body_size, response.body, response.truncated) == (size, b"x" * size, False)
    assert response.wire_size >= size
    assert response.sha256
    assert response.remote_ip == "127.0.0.1"


@over("stall")
@pytest.mark.parametrize("begun", [0, 1])
async def test_every_fetch_ends_by_its_deadline(way, begun):
    async with way.partner.stall() as server, way.opened(request={"timeout": {"total": 0.2}}) as transport:
        assert await kind_of(transport, server.job(begun)) is ErrorKind.TOTAL_TIMEOUT


@over("drip")
async def test_a_drip_ends_by_the_deadline(way):
    async with way.partner.drip() as server, way.opened(request={"timeout": {"total": 0.3}}) as transport:
        assert await kind_of(transport, server.job()) is ErrorKind.TOTAL_TIMEOUT
        await until(lambda: not server.open)


@over("stall")
async def test_no_attempt_outlasts_the_deadline_of_its_job(way):
    async with way.partner.stall() as server, way.opened() as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(server.job(1), 0.2)
    assert caught.value.kind is ErrorKind.DEADLINE


@over("stall")
@pytest.mark.parametrize("begun", [0, 1])
async def test_a_stall_ends(way, begun):
    async with way.partner.stall() as server, way.opened(request={"timeout": {"read": 0.1}}) as transport:
        assert await kind_of(transport, server.job(begun)) is ErrorKind.READ_TIMEOUT
        await until(lambda: not server.open)


@over("stall")
async def test_a_jobs_own_timeout_goes_first(way):
    async with way.partner.stall() as server, way.opened() as transport:
        assert await kind_of(transport, server.job(1, timeout=0.1)) is ErrorKind.TOTAL_TIMEOUT


@over("answer")
async def test_a_body_is_capped(way):
    async with way.opened(body={"max_size": 1000}) as transport:
        async with way.partner.answer(1001) as server:
            assert await kind_of(transport, server.job()) is ErrorKind.BODY_TOO_LARGE
        async with way.partner.answer(1000) as server:
            assert (await transport.fetch(server.job())).body_size == 1000


@over("answer")
async def test_a_body_may_be_truncated(way):
    async with (
        way.partner.answer(1001) as server,
        way.opened(body={"max_size": 1000, "overflow": "truncate"}) as transport,
    ):
        response = await transport.fetch(server.job())
    assert response.truncated
    assert response.body_size == len(response.body) <= 1000


@over("endless")
@pytest.mark.parametrize("overflow", ["fail", "truncate"])
async def test_an_endless_body_is_capped(way, overflow):
    body = {"max_size": "1MiB", "overflow": overflow}
    async with way.partner.endless() as server, way.opened(body=body) as transport:
        if overflow == "fail":
            assert await kind_of(transport, server.job()) is ErrorKind.BODY_TOO_LARGE
        else:
            response = await transport.fetch(server.job())
            assert response.truncated
            assert response.body_size <= 1024 * 1024
        await until(lambda: not server.open)


@over("answer")
async def test_refused(way):
    async with way.partner.answer(1) as server, way.opened() as transport:
        asked = server.job()
        asked.url = asked.url.replace(f":{server.port}", f":{unused_port()}")
        assert await kind_of(transport, asked) is ErrorKind.CONNECT_REFUSED


@over("reset")
async def test_reset(way):
    async with way.partner.reset() as server, way.opened() as transport:
        assert await kind_of(transport, server.job()) is ErrorKind.CONNECTION_RESET


@over("answer")
async def test_blocked_addresses_hear_nothing(way):
    async with way.partner.answer(1) as server, way.opened(http={"guard": True}) as transport:
        assert await kind_of(transport, server.job()) is ErrorKind.BLOCKED
        assert not server.contacts
    async with way.partner.answer(1) as server, way.opened(http={"guard": {"allow": ["127.0.0.0/8"]}}) as transport:
        await transport.fetch(server.job())
        assert server.contacts


@over("own")
async def test_many_at_once_get_their_own_answers(way):
    async with way.partner.own() as server, way.opened() as transport:
        answers = await asyncio.gather(*(transport.fetch(server.job(number)) for number in range(MANY)))
    assert [answer.body for answer in answers] == [str(number).encode() for number in range(MANY)]


@over("stall")
async def test_cancellation_releases_everything(way):
    async with way.partner.stall() as server:
        before = open_files()
        async with way.opened() as transport:
            tasks = asyncio.all_tasks()
            fetches = [asyncio.create_task(transport.fetch(server.job(number))) for number in range(GIVEN_UP_ON)]
            await until(lambda: server.asked >= GIVEN_UP_ON)
            for fetch in fetches:
                fetch.cancel()
            ended = await asyncio.gather(*fetches, return_exceptions=True)
            assert {type(error) for error in ended} == {asyncio.CancelledError}
            await until(lambda: not server.open)
            await until(lambda: not strangers(tasks))
        await until(lambda: not sockets(before))


@over("own")
async def test_nothing_is_left_of_a_fetch_that_is_cancelled_anywhere(way):
    # Each a step of the loop later than the one before.
    async with way.partner.own() as server:
        before = open_files()
        async with way.opened() as transport:
            tasks = asyncio.all_tasks()
            for steps in range(60):
                fetch = asyncio.create_task(transport.fetch(server.job(steps)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                fetch.cancel()
                await asyncio.wait([fetch])
            await until(lambda: not strangers(tasks))
        await until(lambda: not sockets(before))


def strangers(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return tasks that were not there before, and are not those of a server in this process."""
    return {task for task in asyncio.all_tasks() - known if "serve" not in str(task.get_coro())}


def sockets(before: set[str]) -> set[str]:
    """Return sockets that were not open before."""
    return {name for name in open_files() - before if "socket:" in name}


@over("mixed")
async def test_nothing_leaks_over_many_jobs(way):
    async def fetch(number: int) -> None:
        async with slots:
            try:
                await transport.fetch(server.job(number))
            except FetchError as error:
                kinds[error.kind] = f"job {number}: {error.message}"

    jobs = int(os.environ.get("TRANSPORT_JOBS", way.partner.jobs))
    slots = asyncio.Semaphore(AT_ONCE)
    kinds: dict[ErrorKind, str] = {}
    before, tasks = open_files(), asyncio.all_tasks()
    async with way.partner.mixed() as server, way.opened() as transport:
        await asyncio.gather(*(fetch(number) for number in range(jobs)))
        assert kinds
        assert kinds.keys() <= way.partner.failures, kinds
        # Both ends of each are in this process.
        assert len(open_files() - before) <= 2 * AT_ONCE + 20
        await transport.close()
        await transport.close()
    await until(lambda: not sockets(before))
    await until(lambda: asyncio.all_tasks() == tasks)


@pytest.mark.parametrize("way", [name for name in WAYS if WAYS[name].section == "http"], indirect=True)
async def test_a_status_is_no_error(way):
    async with way.partner.mixed() as server, way.opened() as transport:
        asked = server.job()
        asked.url = f"http://127.0.0.1:{server.port}/status/500"
        assert (await transport.fetch(asked)).status == 500
