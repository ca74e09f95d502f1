"""The hosts of one scheduler that have a job and a free slot, by when they may be asked. Pure: time is passed in.

They stand in one of two heaps: *timed* while they may not be asked yet, *ready* from then on. Whatever changes lists
a host anew; entries that are out of date are skipped when they come out.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from fetcher.engine.hosts import turns

if TYPE_CHECKING:
    from collections.abc import Sized

    from fetcher.engine.hosts.host import Line

_SHORTEST_LATENCY = 0.001
# Entries that are out of date are dropped once they are this many times as many as the hosts, and so many more.
_MOST_STALE = 4
_FEWEST_STALE = 1024


class Listing:
    """Lists some of ``lines``, which are those of the scheduler, and has the first one come out.

    ``concurrency``: the most jobs in flight, all hosts together. ``latency``: how long a job takes of late, in seconds.
    """

    def __init__(self, lines: Sized) -> None:
        self._lines = lines
        self.concurrency = 1
        self.latency = 0.0
        self._ready: list[tuple[int, float, int, Line]] = []
        self._timed: list[tuple[float, int, Line]] = []
        self._order = 0

    def __len__(self) -> int:
        """Return how many entries there are, with those that are out of date."""
        return len(self._ready) + len(self._timed)

    @property
    def has_ready(self) -> bool:
        """Tell whether some host may be asked now; ``next`` has the last word."""
        return bool(self._ready)

    def put(self, line: Line, now: float) -> bool:
        """List a line by when its first job may start; return whether that is now."""
        host = line.host
        if not line.waiting or host.in_flight >= host.limits.concurrency:
            line.entry = 0
            return False
        self._order += 1
        line.entry = self._order
        at = turns.goes_at(line, now) if len(host.lines) > 1 or line.quotas else host.free_at
        if at > now:
            heapq.heappush(self._timed, (at, self._order, line))
            return False
        heapq.heappush(self._ready, (line.waiting[0][0], -self._to_go(line), self._order, line))
        if len(self._ready) > _MOST_STALE * len(self._lines) + _FEWEST_STALE:
            self._ready = [entry for entry in self._ready if entry[2] == entry[3].entry]
            heapq.heapify(self._ready)
        return True

    def next(self, now: float) -> Line | None:
        """Take out the first line of which a job may start now, None if there is none."""
        timed = self._timed
        while timed and timed[0][0] <= now:
            _, order, line = heapq.heappop(timed)
            if order == line.entry:
                self.put(line, now)
        ready = self._ready
        while ready:
            _, _, order, line = heapq.heappop(ready)
            if order != line.entry:
                continue
            # It was told to rest after it had been listed, or another scheduler has been there, or others have used up
            # their common budget.
            several = len(line.host.lines) > 1 or line.quotas
            if line.host.free_at > now or (several and not turns.may_go(line, now)):
                self.put(line, now)
                continue
            return line
        return None

    def wake_at(self) -> float | None:
        """Return when a line becomes ready by the passing of time alone, or None if none waits for that."""
        timed = self._timed
        while timed and timed[0][1] != timed[0][2].entry:
            heapq.heappop(timed)
        return timed[0][0] if timed else None

    def _to_go(self, line: Line) -> float:
        """Return how long the jobs of a host will take, in terms of the time that one job takes."""
        limits = line.host.limits
        pace = 1 / min(limits.concurrency, self.concurrency)
        if limits.interval:
            pace = max(pace, limits.interval / max(self.latency, _SHORTEST_LATENCY))
        return line.backlog * pace
