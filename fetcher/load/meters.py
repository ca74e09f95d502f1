"""What this process used while it measured: CPU time, memory, and how late its event loop ran."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from time import perf_counter

from fetcher.histogram import bucket_of

_TICK = 0.02
_STATM = Path("/proc/self/statm")


class Meter:
    """Run ``watch`` as a task while measuring; the figures are those of the time between start and stop."""

    def __init__(self) -> None:
        self.lag: dict[int, int] = {}
        self.peak_rss = 0
        self.seconds = self.cpu = 0.0
        self._started: tuple[float, float] | None = None

    async def watch(self) -> None:
        """Measure until cancelled. Timers are good to a millisecond, so a lag below that means none."""
        self._started = perf_counter(), time.process_time()
        while True:
            self.peak_rss = max(self.peak_rss, rss())
            due = perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            bucket = bucket_of(perf_counter() - due)
            self.lag[bucket] = self.lag.get(bucket, 0) + 1

    def stop(self) -> None:
        """Take the figures of this moment for good."""
        if self._started is not None:
            started, cpu = self._started
            self._started = None
            self.seconds, self.cpu = perf_counter() - started, time.process_time() - cpu
            self.peak_rss = max(self.peak_rss, rss())


def rss() -> int:
    """Return the resident memory of this process in bytes, or where nothing tells that the most it was."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _most_rss()


def _most_rss() -> int:
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415  not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
