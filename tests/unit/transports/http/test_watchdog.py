from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.watchdog import Watch, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 1000.0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


async def wait_for_ever(watchdog: Watchdog, limit: float, patience: float) -> None:
    watch = watchdog.start(limit, patience)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise watch.verdict() from None
    finally:
        watchdog.stop(watch)


@pytest.mark.parametrize(
    ("limit", "patience", "kind", "message"),
    [
        (0.01, LONG, ErrorKind.TOTAL_TIMEOUT, "took longer than 0.01 s in all"),
        (LONG, 0.01, ErrorKind.READ_TIMEOUT, "nothing arrived for 0.01 s"),
    ],
)
async def test_it_ends_what_takes_too_long(watchdog, limit, patience, kind, message):
    with pytest.raises(FetchError) as caught:
        await wait_for_ever(watchdog, limit, patience)
    assert (caught.value.kind, caught.value.message) == (kind, message)
    assert asyncio.current_task().cancelling() == 0


async def test_a_cancellation_by_somebody_else_stays_one(watchdog):
    task = asyncio.create_task(wait_for_ever(watchdog, LONG, LONG))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_wins_over_a_timeout(watchdog):
    async def fetch() -> None:
        watch = watchdog.start(LONG, LONG)
        watches.append(watch)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise watch.verdict() from None

    watches: list[Watch] = []
    task = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    watches[0].check(asyncio.get_running_loop().time() + 2 * LONG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_progress_and_pause_put_the_read_timeout_off(watchdog):
    watch = watchdog.start(100.0, 10.0)
    start = watch.deadline - 100.0
    assert watch.quiet_until == pytest.approx(start + 10.0)
    watch.pause()
    assert watch.quiet_until == watch.deadline
    watch.progress()
    assert start + 10.0 <= watch.quiet_until < watch.deadline
    watch.check(watch.quiet_until - 0.001)
    assert watch.expired is None


async def test_one_timer_serves_all_and_stops_by_itself(watchdog):
    loop = asyncio.get_running_loop()
    watches = [watchdog.start(LONG, LONG) for _ in range(3)]
    timer = watchdog._timer
    assert timer is not None
    watchdog._look(loop)
    assert watchdog._timer is not None
    watchdog._timer.cancel()
    timer.cancel()
    for watch in watches:
        watchdog.stop(watch)
    watchdog._look(loop)
    assert watchdog._timer is None


async def test_it_can_be_closed_twice_and_used_again(watchdog):
    watchdog.start(LONG, LONG)
    watchdog.close()
    watchdog.close()
    with pytest.raises(FetchError):
        await wait_for_ever(watchdog, 0.01, LONG)
