"""When the next request is due.

In a closed loop each worker asks again when its last request has ended, so a slow target is asked less: its
latencies say nothing about users who come whether or not it is slow. In an open loop requests are due at
fixed times, ``1 / rate`` apart, whatever the target does, and latency is counted from then on: the time that
a request waits for a free worker is part of it. Leaving it out is what Gil Tene calls coordinated omission
("How NOT to Measure Latency", 2015); wrk2 is his tool that does not.
"""

from __future__ import annotations

import asyncio
import math
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fetcher.load.plan import Spec

# The loop's timers are no finer, and to ask for less would keep the loop spinning. What falls due meanwhile
# is sent up to this late, and its latency says so.
_FINEST = 0.001


class Pace(Protocol):
    """Hands out turns to workers. Times are those of ``time.perf_counter``."""

    @property
    def due(self) -> int:
        """How many requests were to be sent in the window so far; 0 where nothing says so."""
        ...

    async def turn(self) -> float | None:
        """Wait until the next request is due and return since when it is; None when there are no more."""
        ...

    async def run(self) -> None:
        """Do what has to be done in the background, until cancelled or through."""
        ...

    def close(self) -> None:
        """Hand out no more turns."""
        ...


class ClosedPace:
    """A request is due when a worker is free."""

    def __init__(self, spec: Spec, begin: float, end: float) -> None:
        """Requests are counted from ``begin`` on, and none is begun after ``end``."""
        self._begin, self._end = begin, end
        self._left = math.inf if spec.requests is None else spec.requests

    async def turn(self) -> float | None:
        """Return the time."""
        now = perf_counter()
        if now >= self._end or not self._left:
            return None
        if now >= self._begin:
            self._left -= 1
        return now

    @property
    def due(self) -> int:
        """Nothing is due before a worker is free."""
        return 0

    async def run(self) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """Hand out no more turns."""
        self._left = 0


class OpenPace:
    """Requests are due ``1 / rate`` apart. How many wait for a worker is a number, not a list."""

    def __init__(self, spec: Spec, begin: float) -> None:
        """Requests are counted from ``begin`` on; those before it are the warm-up."""
        self._rate = spec.rate or 1.0
        self._begin = begin
        self._uncounted = round(spec.warm_up * self._rate)
        counted = max(1, round((spec.duration or 0.0) * self._rate)) if spec.requests is None else spec.requests
        self._limit = self._uncounted + counted
        self._issued = self._taken = 0
        self._idle: list[asyncio.Future[None]] = []
        self._over = False

    @property
    def due(self) -> int:
        """How many requests were to be sent in the window so far."""
        return max(0, self._issued - self._uncounted)

    async def turn(self) -> float | None:
        """Wait until a request is due, and return when it was to be sent."""
        while not self._over:
            if self._taken < self._uncounted and perf_counter() >= self._begin:
                # What the warm-up could not send is dropped: the window begins without a queue.
                self._taken = self._uncounted
            if self._taken < self._issued:
                due = self._due_at(self._taken)
                self._taken += 1
                if self._taken >= self._limit:
                    self.close()
                return due
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return None

    async def run(self) -> None:
        """Make requests due, and wake a worker for each. One timer serves all that fall due with it."""
        while self._issued < self._limit:
            now = perf_counter()
            passed = math.floor((now - self._begin) * self._rate) + 1 + self._uncounted
            issued = max(self._issued, min(self._limit, passed))
            new, self._issued = issued - self._issued, issued
            self._wake(new)
            await asyncio.sleep(max(_FINEST, self._due_at(issued) - perf_counter()))

    def _due_at(self, number: int) -> float:
        return self._begin + (number - self._uncounted) / self._rate

    def close(self) -> None:
        """Hand out no more turns."""
        self._over = True
        self._wake(len(self._idle))

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._idle))):
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
