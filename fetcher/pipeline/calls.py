"""Calls that block, one after the other on a thread, which nobody has to wait for: they may never return.

The threads are daemons, so that a call which hangs keeps neither the run nor the process. One that takes too long costs
its own item: the thread is left to itself, and another goes on with the next one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_In = TypeVar("_In")
_Out = TypeVar("_Out")


async def called(
    function: Callable[[_In], _Out], items: Sequence[_In], limit: float | None, late: Callable[[_In], _Out]
) -> list[_Out]:
    """Return what a function that does not raise makes of each item, or ``late`` where it takes ``limit`` seconds."""
    made: list[_Out] = []
    while len(made) < len(items):
        calls = _Calls(function, items[len(made) :])
        try:
            await calls.ended(limit)
        finally:
            calls.abandon()
        made += calls.made
        if len(made) < len(items):
            made.append(late(items[len(made)]))
    return made


class _Calls(Generic[_In, _Out]):
    """One thread and what it has made so far."""

    def __init__(self, function: Callable[[_In], _Out], items: Sequence[_In]) -> None:
        self.made: list[_Out] = []
        self._abandoned = False
        self._lock = threading.Lock()  # for what says how far it is
        self._function = function
        self._items = items
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        threading.Thread(target=self._run, name="stages", daemon=True).start()

    async def ended(self, limit: float | None) -> None:
        """Return once all calls have returned, or one has taken as long as it may."""
        while True:
            left = None if limit is None else max(0.0, self._began + limit - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ended.wait()
            if self._ended.is_set() or self._is_late(limit):
                return

    def abandon(self) -> None:
        """Have the thread add nothing and begin nothing from now on."""
        with self._lock:
            self._abandoned = True

    def _is_late(self, limit: float | None) -> bool:
        with self._lock:
            self._abandoned = limit is not None and time.monotonic() - self._began >= limit
            return self._abandoned

    def _run(self) -> None:
        for item in self._items:
            made = self._function(item)
            with self._lock:
                if self._abandoned:
                    return
                self.made.append(made)
                self._began = time.monotonic()
        with suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._ended.set)
