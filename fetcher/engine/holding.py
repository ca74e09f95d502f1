"""The leases that the engine holds: renewed while they are held, and given back in batches."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fetcher.interfaces import Lease, Nack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.interfaces import Leased, Queue

_NACK_PAUSE = 0.05
_RENEWALS_PER_TERM = 3


class Holding:
    """Who was leased and has not ended. ``on_returned`` is told when jobs have gone back to the queue.

    ``renewed`` is when leases were last renewed, on the real clock.
    """

    def __init__(self, queue: Queue, on_returned: Callable[[], None]) -> None:
        self._queue = queue
        self._on_returned = on_returned
        self._held: dict[int | str, Lease] = {}
        self._nacks: list[Nack] = []
        self._want_nack = asyncio.Event()
        self.renewed = time.monotonic()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, leased: Leased, now: float) -> Leased:
        """Hold what was leased ``now``."""
        for lease in leased.leases:
            lease.leased_at = now
            self._held[lease.handle] = lease
        return leased

    def settle(self, leases: Sequence[Lease]) -> None:
        """Let go of jobs that have ended."""
        for lease in leases:
            self._held.pop(lease.handle, None)

    def give_back(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Have jobs go back to the queue soon, to be ready again after ``delay`` seconds."""
        if leases:
            self._nacks.extend(Nack(lease, delay) for lease in leases)
            self._want_nack.set()

    async def return_loop(self) -> None:
        """Give back what there is to give back, again and again."""
        while True:
            await self._want_nack.wait()
            await asyncio.sleep(_NACK_PAUSE)
            await self._flush()

    async def return_all(self) -> None:
        """Give everything back, so that nobody has to wait for the leases to lapse."""
        await self._flush()
        if self._held:
            await self._queue.nack([Nack(lease, 0.0) for lease in self._held.values()])
            self._held.clear()

    async def renew_loop(self) -> None:
        """Renew leases several times within their term."""
        while True:
            await asyncio.sleep(self._queue.term / _RENEWALS_PER_TERM)
            await self.renew()

    async def renew_if_late(self) -> None:
        """Renew leases if that should have been done long ago: the process was stopped for a while."""
        # Its leases may lapse in the next call of lease, but not before. It may have been stopped again while it
        # renewed them. uvloop's own time stands still within a turn of the loop.
        while time.monotonic() - self.renewed > self._queue.term / 2:
            await self.renew()

    async def renew(self) -> None:
        """Hold every lease for another full term."""
        self.renewed = time.monotonic()
        await self._queue.extend(list(self._held.values()))

    async def _flush(self) -> None:
        self._want_nack.clear()
        nacks, self._nacks = self._nacks, []
        if nacks:
            await self._queue.nack(nacks)
            self.settle([nack.lease for nack in nacks])
            self._on_returned()
