"""The bound on requests in flight, which several engines share: by priority, and by weight among equals.

This is the semaphore that bounds concurrency. `asyncio.Semaphore` hands its slots out first come, first served, so a
batch whose workers queue up by the hundred would keep a small one waiting behind all of them. Here every engine has a
share with a queue of its own, and a slot that gets free goes to the share that is furthest below what it is due. As
long as there are free slots, a share takes one without asking anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slots:
    """So many slots, taken through shares. Not for several threads.

    ``limit``: how many there are. ``in_flight``: how many are taken, which may be more after `resize`. ``waiting``: how
    many workers wait for one.
    """

    # If a worker waits, no slot is free: whatever frees one hands it over at once.

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.waiting = 0
        self._shares: list[Share] = []

    def share(self, weight: float = 1.0, priority: int = 0) -> Share:
        """Return a new share; it is to be closed when it is no longer needed."""
        share = Share(self, weight, priority)
        self._shares.append(share)
        return share

    def shares(self) -> Iterator[Share]:
        """Yield the shares that are not closed, for display."""
        return iter(self._shares)

    def resize(self, limit: int) -> None:
        """Have another number of slots: more at once, fewer as they are given back."""
        self.limit = limit
        while self.in_flight < self.limit and (share := self._next()) is not None:
            self.in_flight += 1
            share.grant()

    def give_back(self) -> None:
        """Take a slot back, and hand it on to the share that is next."""
        if self.waiting and self.in_flight <= self.limit and (share := self._next()) is not None:
            share.grant()
        else:
            self.in_flight -= 1

    def leave(self, share: Share) -> None:
        """Forget a share."""
        if share in self._shares:
            self._shares.remove(share)

    def _next(self) -> Share | None:
        """Return who is next: the highest priority, then the fewest slots for its weight, then who was given least."""
        waiting = [share for share in self._shares if share.is_waiting]
        return min(waiting, key=lambda share: share.due) if waiting else None


class Share:
    """One engine's part of the slots. Any of its workers may wait for one.

    ``in_flight``: slots that it has. It is given slots before every share of a lower ``priority``; among shares of one
    priority that all wait, each has slots in proportion to its ``weight``.
    """

    def __init__(self, slots: Slots, weight: float, priority: int) -> None:
        self._slots = slots
        self.weight = weight
        self.priority = priority
        self.in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        # Stride scheduling (Waldspurger and Weihl, 1995) decides among those who are equally far below their part: if
        # there are fewer slots than shares, most have none.
        self.passed = 0.0

    @property
    def slots(self) -> Slots:
        """What it is a share of."""
        return self._slots

    @property
    def waiting(self) -> int:
        """How many workers wait for a slot."""
        return len(self._waiters)

    @property
    def is_waiting(self) -> bool:
        """Tell whether a worker waits that was not cancelled just now."""
        waiters = self._waiters
        while waiters and waiters[0].done():
            waiters.popleft()
            self._slots.waiting -= 1
        return bool(waiters)

    def is_rival(self, other: Share) -> bool:
        """Tell whether another share competes with this one at the moment."""
        return self is not other and self.priority == other.priority and (self.in_flight > 0 or self.waiting > 0)

    @property
    def due(self) -> tuple[int, float, float]:
        """By what shares that wait are served, the least first."""
        return -self.priority, self.in_flight / self.weight, self.passed

    async def acquire(self) -> None:
        """Take a slot, or wait for one. Who is cancelled while waiting has none."""
        slots = self._slots
        if slots.in_flight < slots.limit:
            slots.in_flight += 1
            self.in_flight += 1
            return
        await self._wait()

    def release(self) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self._slots.give_back()

    def grant(self) -> None:
        """Have the first who waits have a slot, which is counted as taken already. For `Slots` alone."""
        self.in_flight += 1
        self.passed += 1 / self.weight
        self._slots.waiting -= 1
        self._waiters.popleft().set_result(None)

    def dismiss(self) -> None:
        """Have nobody wait for a slot any more: who does is cancelled."""
        for waiter in self._waiters:
            waiter.cancel()

    def close(self) -> None:
        """Leave the slots to the others. Nobody may wait or have a slot; may be called twice."""
        self._slots.leave(self)

    async def _wait(self) -> None:
        slots = self._slots
        if not self._waiters:
            # Who has not waited for a while has saved nothing up.
            there = [share.passed for share in slots.shares() if share.is_rival(self)]
            self.passed = max(self.passed, min(there, default=0.0))
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        slots.waiting += 1
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.release()  # it was given a slot at the same time
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
                slots.waiting -= 1
            raise
