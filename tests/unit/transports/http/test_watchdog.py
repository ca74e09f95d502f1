from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job
from fetcher.transports.watchdog import TICK, Floor, Pace, Phase, Watch, Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 1000.0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


async def wait_for_ever(watchdog: Watchdog, limit: float, patience: float, received: int = 0) -> None:
    watch = watchdog.start(limit, patience)
    if received:
        watch.progress(received)
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


async def test_resuming_waits_for_a_head_as_long_as_for_anything(watchdog):
    watch = watchdog.start(100.0, 10.0)
    watch.pause()
    watch.resume()
    assert watch.quiet_until < watch.deadline
    assert watch.phase is Phase.FIRST_BYTE


async def test_what_a_fetch_is_at_is_found_by_its_job(watchdog):
    job = Job(id="1", url="http://a.test/", host="a.test")
    watch = watchdog.start(100.0, 10.0, job)
    start = watch.deadline - 100.0
    standing = watchdog.standing(job)
    assert (standing.phase, standing.received) == ("preparing", 0)
    assert 9.0 < standing.left <= 10.0
    watch.phase = Phase.FIRST_BYTE
    watch.check(start + 1.0)
    watch.progress()
    watch.progress(700)
    watch.check(start - 5.0)
    standing = watchdog.standing(job)
    assert (standing.phase, standing.received) == ("body", 700)
    assert 5.0 <= standing.seconds < 9.0
    assert 90.0 < standing.left <= 100.0
    watch.hold(Phase.ROBOTS)
    standing = watchdog.standing(job)
    assert (standing.phase, standing.left) == ("robots.txt", None)
    watchdog.stop(watch)
    assert watchdog.standing(job) is None


@pytest.mark.parametrize("span", [0.05, 0.5, 3.0, 30.0])
def test_the_pace_of_a_body_is_judged_over_a_whole_span(span):
    looks = round(span / TICK) or 1
    # Twice the rate for a while, then nothing more.
    pace, floor = Pace(Floor(1000, span)), 1000 * span
    received, slow_at = 0.0, None
    for look in range(1, 6 * looks + 6):
        if look <= 3 * looks:
            received += 2 * floor / looks
        if pace.too_slow(int(received)):
            slow_at = look
            break
    assert slow_at is not None
    # Half of a span without anything is as much as twice the rate makes up for; a sample is a tenth of a span.
    assert 0.5 * looks <= slow_at - 3 * looks <= 0.7 * looks + 2


def test_a_body_is_not_judged_before_a_span_has_passed():
    pace = Pace(Floor(1000, 3.0))
    assert [pace.too_slow(0) for _ in range(30)] == [False] * 30
    assert pace.too_slow(0)


def test_exactly_the_least_rate_is_enough():
    pace = Pace(Floor(1000, 1.0))
    assert not any(pace.too_slow(100 * look) for look in range(100))


async def test_a_body_that_drips_is_too_slow(watchdog):
    watchdog._floor = Floor(1000, 0.2)
    with pytest.raises(FetchError) as caught:
        await wait_for_ever(watchdog, LONG, LONG, received=5)
    assert caught.value.kind is ErrorKind.TOO_SLOW
    assert caught.value.message == "0 bytes of the body in 0.2 s, less than request.min_rate (1000 bytes a second)"
    assert asyncio.current_task().cancelling() == 0


async def test_a_pace_is_that_of_one_body(watchdog):
    watchdog._floor = Floor(1000, 1.0)
    watch = watchdog.start(LONG, 10.0)
    now = watch.deadline - LONG
    for phase in (Phase.BODY, Phase.FIRST_BYTE, Phase.BODY):
        watch.phase = phase
        for _ in range(9):
            watch.check(now)
    assert watch.expired is None
    for _ in range(3):
        watch.check(now)
    assert watch.expired is ErrorKind.TOO_SLOW
    assert asyncio.current_task().uncancel() == 0
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)


async def test_while_a_body_is_paused_it_has_no_pace(watchdog):
    watchdog._floor = Floor(1000, 1.0)
    watch = watchdog.start(LONG, 10.0)
    watch.progress(1)
    watch.pause()
    for _ in range(50):
        watch.check(watch.deadline - LONG)
    watch.progress()
    for _ in range(10):
        watch.check(watch.deadline - LONG)
    assert watch.expired is None
    watch.pause()


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
