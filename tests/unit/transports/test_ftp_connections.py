"""Idle connections of ftp, and who may log in when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.ftp.logins import Door
from fetcher.transports.ftp.pool import Pool
from fetcher.transports.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Idle:
    def __init__(self, key: str = "a") -> None:
        self.key = key
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()


async def enter(door: Door, log_in: Callable[[], Awaitable[None]]) -> None:
    watch = Watchdog().start(60, 60)
    async with door.turn(watch):
        await door.enter(log_in)


def refused(kind: ErrorKind = ErrorKind.AUTH_FAILED) -> FetchError:
    return FetchError(kind, "530 no")


async def test_the_last_one_of_a_key_is_used_first():
    pool, first, second, other = Pool(60), Idle(), Idle(), Idle("b")
    for control in (first, second, other):
        pool.put(control)
    assert [pool.take("a") for _ in range(3)] == [second, first, None]
    assert pool.take("b") is other
    assert not len(pool)
    pool.close()


async def test_only_so_many_are_kept_and_the_oldest_goes():
    pool, controls = Pool(60, most=2), [Idle(str(number)) for number in range(3)]
    for control in controls:
        pool.put(control)
    assert [control.aborted.is_set() for control in controls] == [True, False, False]
    pool.close()
    pool.close()
    assert all(control.aborted.is_set() for control in controls)


async def test_none_is_kept_for_longer_than_it_may_be():
    pool, first, second = Pool(0.02), Idle(), Idle("b")
    pool.put(first)
    await asyncio.sleep(0.01)
    pool.put(second)
    await asyncio.wait_for(first.aborted.wait(), 5)
    await asyncio.wait_for(second.aborted.wait(), 5)
    assert not len(pool)
    pool.close()


@pytest.mark.parametrize("why", ["closed", "off"])
async def test_nothing_is_kept_that_nobody_would_close(why):
    pool, control = Pool(0 if why == "off" else 60), Idle()
    if why == "closed":
        pool.close()
    pool.put(control)
    assert control.aborted.is_set()
    assert pool.take("a") is None


async def test_all_logins_wait_for_the_first_and_then_for_none():
    door, under_way, most = Door(), 0, 0
    asked = asyncio.Event()

    async def log_in() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asked.wait()
        under_way -= 1

    logins = [asyncio.create_task(enter(door, log_in)) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert most == 1
    asked.set()
    await asyncio.gather(*logins)
    asked.clear()
    more = [asyncio.create_task(enter(door, log_in)) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert most == 5
    asked.set()
    await asyncio.gather(*more)


async def test_a_refusal_is_remembered_and_a_lost_connection_is_not():
    door, tries = Door(), []

    async def failing(error: FetchError) -> None:
        tries.append(error.kind)
        raise error

    for error in (refused(ErrorKind.CONNECTION_RESET), refused(), refused()):
        with pytest.raises(FetchError) as caught:
            await enter(door, lambda error=error: failing(error))
    assert tries == [ErrorKind.CONNECTION_RESET, ErrorKind.AUTH_FAILED]
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.AUTH_FAILED, False)
    with pytest.raises(FetchError, match="not tried again"):
        door.check()


async def test_who_was_let_in_once_meets_a_full_server_later():
    door = Door()

    async def failing() -> None:
        raise refused()

    await enter(door, lambda: asyncio.sleep(0))
    with pytest.raises(FetchError) as caught:
        await enter(door, failing)
    assert caught.value.kind is ErrorKind.FTP_4XX
    door.check()
