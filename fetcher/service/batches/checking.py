"""Threads on which submissions are checked: few, so that what takes long there holds up nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from fetcher.errors import StateBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

Found = TypeVar("Found")

_Task = tuple[Future[Any], "Callable[[], Any]"]


class Checks:
    """Runs what blocks. Its threads are there while there is work, and do not keep the process from ending."""

    def __init__(self, threads: int = 2, waiting: int = 32) -> None:
        self._waiting: deque[_Task] = deque()
        self._most_waiting = waiting
        self._missing = threads
        self._lock = threading.Lock()

    async def run(self, check: Callable[[], Found]) -> Found:
        """Return what ``check`` does, or raise what it raises. Raises StateBusyError if too many are waiting."""
        future: Future[Found] = Future()
        with self._lock:
            if not self._missing and len(self._waiting) >= self._most_waiting:
                raise StateBusyError("too many submissions are being checked; submit this again in a moment")
            self._waiting.append((future, check))
            is_more_needed = self._missing > 0
            self._missing -= is_more_needed
        if is_more_needed:
            threading.Thread(target=self._work, name="check", daemon=True).start()
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            future, check = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = check()
            except BaseException as error:  # noqa: BLE001  it is for whoever waits
                future.set_exception(error)
            else:
                future.set_result(found)

    def _next(self) -> _Task | None:
        """Take what has waited for longest. If there is nothing, the thread that asks is to end."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._missing += 1
            return None
