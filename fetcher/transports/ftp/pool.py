"""Control connections that are idle: logged in, quiet, and kept for the next job of the same account."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fetcher.transports.ftp.control import Control

_MOST_IDLE = 256
# Closed for each connection that finds no file: a transfer takes two.
_CLOSED_PER_TRY = 2


class Pool:
    """Keeps at most some of them, and none for longer than ``keep_alive`` seconds. Those that differ in key are apart.

    They are closed without QUIT, for which somebody would have to wait: a server takes that for a logout (RFC 959,
    section 4.1.1).
    """

    def __init__(self, keep_alive: float, most: int = _MOST_IDLE) -> None:
        self._keep_alive = keep_alive
        self._most = most
        self._idle: OrderedDict[Control, float] = OrderedDict()
        self._of_key: dict[object, list[Control]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, key: object) -> Control | None:
        """Return the one that was used last, None if there is none."""
        kept = self._of_key.get(key)
        if not kept:
            return None
        control = kept[-1]
        self._remove(control)
        return control

    def put(self, control: Control) -> None:
        """Keep one for the next job."""
        if self._closed or not self._keep_alive:
            control.abort()
            return
        loop = asyncio.get_running_loop()
        self._idle[control] = loop.time() + self._keep_alive
        self._of_key.setdefault(control.key, []).append(control)
        if len(self._idle) > self._most:
            self._drop_oldest()
        if self._timer is None:
            self._timer = loop.call_later(self._keep_alive, self._sweep, loop)

    def make_room(self) -> None:
        """Give some up, if there are any, for whoever finds no file to open."""
        for _ in range(min(_CLOSED_PER_TRY, len(self._idle))):
            self._drop_oldest()

    def close(self) -> None:
        """Close all of them, and whatever is put back from now on. May be called twice."""
        self._closed = True
        while self._idle:
            self._drop_oldest()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close those whose time is up, and come back when that of the next one is."""
        while self._idle and next(iter(self._idle.values())) <= loop.time():
            self._drop_oldest()
        self._timer = None
        if self._idle:
            self._timer = loop.call_at(next(iter(self._idle.values())), self._sweep, loop)

    def _drop_oldest(self) -> None:
        control = next(iter(self._idle))
        self._remove(control)
        control.abort()

    def _remove(self, control: Control) -> None:
        del self._idle[control]
        kept = self._of_key[control.key]
        kept.remove(control)
        if not kept:
            del self._of_key[control.key]
