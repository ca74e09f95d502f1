"""Submissions are checked by few threads, which hold up neither the loop nor the end of the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from fetcher.errors import StateBusyError
from fetcher.service.batches.checking import Checks


async def test_what_a_check_returns_or_raises_is_handed_on():
    checks = Checks()
    assert await checks.run(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await checks.run(lambda: 1 / 0)
    assert [await checks.run(lambda: 6) for _ in range(3)] == [6, 6, 6]


async def test_what_takes_long_is_waited_for_by_few_and_by_nobody_else():
    held, started = threading.Event(), threading.Semaphore(0)

    def wait():
        started.release()
        return held.wait(60)

    checks = Checks(threads=2, waiting=3)
    waiting = [asyncio.create_task(checks.run(wait)) for _ in range(5)]
    for _ in range(2):
        await asyncio.to_thread(started.acquire)
    with pytest.raises(StateBusyError, match="too many submissions are being checked"):
        await checks.run(wait)
    assert not started.acquire(blocking=False)
    # The threads of everything else are free.
    assert await asyncio.to_thread(lambda: 7) == 7
    waiting[4].cancel()
    await asyncio.sleep(0)
    held.set()
    assert await asyncio.gather(*waiting[:4]) == [True] * 4
    assert await checks.run(lambda: 8) == 8


def test_no_check_keeps_the_process_from_ending():
    script = """
import asyncio, threading
from fetcher.service.batches.checking import Checks
async def main():
    started = threading.Event()
    def check():
        started.set()
        threading.Event().wait()
    task = asyncio.create_task(Checks().run(check))
    await asyncio.to_thread(started.wait)
    task.cancel()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
