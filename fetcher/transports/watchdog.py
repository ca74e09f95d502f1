"""Timeouts of many fetches with one timer: a fetch costs two entries in a set and no timer of its own.

Fetches are looked at every ``_TICK`` seconds, so a timeout fires up to that much late. That is little beside
timeouts of seconds, and two timers for each request are much beside a request.
"""

from __future__ import annotations

import asyncio

from fetcher.errors import ErrorKind, FetchError

_TICK = 0.1


class Watch:
    """One fetch under watch. Times are in seconds on the event loop's clock."""

    __slots__ = ("_loop", "_task", "deadline", "expired", "limit", "patience", "quiet_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, patience: float) -> None:
        self._loop = loop
        self._task = asyncio.current_task(loop)
        now = loop.time()
        self.limit = limit
        self.patience = patience
        self.deadline = now + limit
        self.quiet_until = now + patience
        self.expired: ErrorKind | None = None

    def progress(self) -> None:
        """Note that something arrived."""
        self.quiet_until = self._loop.time() + self.patience

    def pause(self) -> None:
        """Stop waiting for something to arrive: somebody else times what comes now."""
        self.quiet_until = self.deadline

    def check(self, now: float) -> None:
        """Cancel the fetch if its time is up. It is suspended within it, for only there is it watched."""
        if self.expired is None and now >= min(self.deadline, self.quiet_until) and self._task is not None:
            self.expired = ErrorKind.TOTAL_TIMEOUT if now >= self.deadline else ErrorKind.READ_TIMEOUT
            self._task.cancel()

    def verdict(self, overdue: ErrorKind = ErrorKind.TOTAL_TIMEOUT) -> BaseException:
        """Return what a CancelledError in the fetch was about: a timeout, or somebody else's cancellation.

        ``overdue`` is the kind of having taken longer than the limit.
        """
        if self.expired is None or self._task is None or self._task.uncancel() > 0:
            return asyncio.CancelledError()
        if self.expired is ErrorKind.TOTAL_TIMEOUT:
            what = "the retry deadline" if overdue is ErrorKind.DEADLINE else f"{self.limit:g} s in all"
            return FetchError(overdue, f"took longer than {what}")
        return FetchError(self.expired, f"nothing arrived for {self.patience:g} s")


class Watchdog:
    """Looks after every watch that was started and not stopped."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, limit: float, patience: float) -> Watch:
        """Watch the current task: it may take ``limit`` seconds in all, and ``patience`` without progress."""
        # Asked once: before Python 3.12 every call of it is a system call as well.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        watch = Watch(loop, limit, patience)
        self._watches.add(watch)
        if self._timer is None:
            self._timer = loop.call_later(_TICK, self._look, loop)
        return watch

    def stop(self, watch: Watch) -> None:
        """Watch it no more."""
        self._watches.discard(watch)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in self._watches:
            watch.check(now)
        self._timer = loop.call_later(_TICK, self._look, loop) if self._watches else None
