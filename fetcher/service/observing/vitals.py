"""How this process is doing: its CPU time, its memory, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

_TICK = 0.1
_STATM = Path("/proc/self/statm")


class Vitals:
    """``start``, then ``update`` once a second; the figures are those of the time between the last two updates.

    ``lag`` is how late, in seconds, a timer was at its worst; ``cpu`` the share of one core; ``memory`` in bytes.
    """

    def __init__(self) -> None:
        self.lag = self.cpu = 0.0
        self.memory = memory()
        self._worst = 0.0
        self._loop = asyncio.get_running_loop()
        self._before = self._loop.time(), time.process_time()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the loop."""
        self._arm()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def update(self) -> None:
        """Take the figures of this moment."""
        self.lag, self._worst = self._worst, 0.0
        self.memory = memory()
        now, cpu = self._loop.time(), time.process_time()
        if now > self._before[0]:
            self.cpu = (cpu - self._before[1]) / (now - self._before[0])
        self._before = now, cpu

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._loop.time() + _TICK, self._beat, self._loop.time() + _TICK)

    def _beat(self, due: float) -> None:
        self._worst = max(self._worst, self._loop.time() - due)
        self._arm()


def memory() -> int:
    """Return the resident memory of this process in bytes, 0 where nothing tells."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
