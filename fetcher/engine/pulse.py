"""How busy this process is, once a second: slow answers may be its own doing. Pure: what was measured is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.engine.growth import BEAT, Growth, Sample

if TYPE_CHECKING:
    from fetcher.engine.scheduler import Scheduler

# A process that takes so much of a core, or whose timers are so many seconds late, delays answers by itself.
_STRAINED = 0.7
_LATE = 0.05


class Pulse:
    """Tells the scheduler whether the process is strained, and decides about ``limits.concurrency: auto``.

    ``allowed``: how many requests may be in flight now.
    """

    def __init__(self, scheduler: Scheduler, concurrency: int, growth: Growth | None) -> None:
        self._scheduler = scheduler
        self._growth = growth
        self.allowed = concurrency if growth is None else growth.concurrency
        self._answered = self._failed = 0
        self._cpu = 0.0
        self._at = 0.0

    def reconfigure(self, concurrency: int, growth: Growth | None) -> None:
        """Allow so many from now on; ``auto`` goes on from where it is."""
        if growth is not None and self._growth is not None:
            return
        self._growth = growth
        self.allowed = concurrency if growth is None else growth.concurrency

    def begin(self, now: float, cpu: float) -> None:
        """Note where the measuring begins; ``cpu`` is the process time so far, in seconds."""
        self._at, self._cpu = now, cpu

    def beat(self, now: float, cpu: float, in_flight: int) -> None:
        """Take the time since the last beat into account, which was to be ``BEAT`` seconds."""
        took = max(now - self._at, 1e-6)
        share = (cpu - self._cpu) / took
        self._at, self._cpu = now, cpu
        # What was slow in a strained second may be told in the next one.
        busy = share > _STRAINED or took > BEAT + _LATE
        self._scheduler.strained = busy
        if self._growth is not None:
            good, bad = self._scheduler.answered - self._answered, self._scheduler.failed - self._failed
            self.allowed = self._growth.update(Sample(good, bad, in_flight, share), now)
        self._answered, self._failed = self._scheduler.answered, self._scheduler.failed
