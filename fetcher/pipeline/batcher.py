"""Collects single results into batches that are worth a write. Bounded in items and in bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Batcher(Generic[_T]):
    """One consumer waits in ``next`` while many producers ``add``.

    A batch is handed out when it has ``size`` items or ``size_bytes`` bytes, or ``linger`` seconds after its first
    item. Producers are asked to wait in ``room`` while more than that times ``_DEEP`` has not been handed out.
    """

    _DEEP = 4

    def __init__(self, *, size: int, size_bytes: int, linger: float, weigh: Callable[[_T], int]) -> None:
        self._size = size
        self._size_bytes = size_bytes
        self._linger = linger
        self._weigh = weigh
        self._items: list[_T] = []
        self._bytes = 0
        self._closed = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Tell whether a producer should wait in ``room`` before it goes on."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until the consumer has caught up."""
        await self._room.wait()

    def add(self, item: _T) -> None:
        """Put one item into the current batch. Never waits: see ``full``."""
        if not self._items and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._wake.set)
        self._items.append(item)
        self._bytes += self._weigh(item)
        if len(self._items) >= self._size or self._bytes >= self._size_bytes:
            self._wake.set()
            if len(self._items) >= self._size * self._DEEP or self._bytes >= self._size_bytes * self._DEEP:
                self._room.clear()

    def hurry(self) -> None:
        """Hand out what there is without waiting for more: no more is under way."""
        if self._items:
            self._wake.set()

    def close(self) -> None:
        """Let ``next`` hand out what is left at once, and then None."""
        self._closed = True
        self._wake.set()

    async def next(self) -> list[_T] | None:
        """Return the next batch, or None once the batcher is closed and empty."""
        while not (self._closed and not self._items):
            await self._wake.wait()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            items, self._items, self._bytes = self._items, [], 0
            self._room.set()
            if not self._closed:
                self._wake.clear()
            if items:
                return items
        return None
