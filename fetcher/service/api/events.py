"""``GET /v1/events``: the service as it is, once a second, as server-sent events (WHATWG HTML, section 9.2).

A snapshot is made and written as JSON once, for all listeners, and not at all if there is none. A listener has room
for one: the newest takes the place of one that it did not take yet, so that the slowest costs no more than the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.service.models import History, Model, Snapshot

MOST_LISTENERS = 100
HEARTBEAT = 15.0
"""After so many seconds without an event something is sent, so that nobody takes the connection for dead."""
STALLED = 30.0
"""After so many seconds in which a listener takes nothing it is cut off."""
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would gather them
}
_ALIVE = b":\n\n"
_RETRY = b"retry: 2000\n\n"


class Listener:
    """Who listens. ``put`` replaces what was not taken; ``take`` waits for the next, None at the end."""

    def __init__(self) -> None:
        self._frame: bytes | None = None
        self._wake = asyncio.Event()
        self._ended = False

    def put(self, frame: bytes) -> None:
        """Have the listener get this one next."""
        self._frame = frame
        self._wake.set()

    def end(self) -> None:
        """Let the listener get nothing more."""
        self._ended = True
        self._wake.set()

    async def take(self) -> bytes | None:
        """Return the newest frame, or a heartbeat if there is none for long."""
        try:
            async with asyncio.timeout(HEARTBEAT):
                await self._wake.wait()
        except TimeoutError:
            return _ALIVE
        if self._ended:
            return None
        self._wake.clear()
        frame, self._frame = self._frame, None
        return frame or _ALIVE


class Events:
    """Sends snapshots to who listens. ``publish`` is called once a second."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._ended = False
        self._number = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def publish(self, snapshot: Callable[[], Snapshot]) -> None:
        """Give everybody the snapshot, which is only made if somebody listens."""
        if not self._listeners:
            return
        self._number += 1
        frame = _frame("snapshot", self._number, snapshot())
        for listener in self._listeners:
            listener.put(frame)

    def let_go(self) -> None:
        """Let everybody go, who may come back."""
        for listener in self._listeners:
            listener.end()

    def end(self) -> None:
        """Let everybody go, and take nobody any more."""
        self._ended = True
        for listener in self._listeners:
            listener.end()

    async def handle(
        self, request: web.Request, now: Callable[[], Snapshot], past: Callable[[], History]
    ) -> web.StreamResponse:
        """Answer a request for events, until the client goes or the service ends. 503 if there are too many.

        ``past`` and ``now`` make what is sent first, so that nobody has to wait for the next second.
        """
        if self._ended or len(self._listeners) >= MOST_LISTENERS:
            raise web.HTTPServiceUnavailable(
                text="there are too many listeners; close a page that shows the service", headers={"Retry-After": "10"}
            )
        listener = Listener()
        # Before anything is awaited, so that the bound holds.
        self._listeners.add(listener)
        try:
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            listener.put(_RETRY + _frame("history", self._number, past()) + _frame("snapshot", self._number, now()))
            await _send(request, response, listener)
        finally:
            self._listeners.discard(listener)
        return response


async def _send(request: web.Request, response: web.StreamResponse, listener: Listener) -> None:
    while (frame := await listener.take()) is not None:
        try:
            async with asyncio.timeout(STALLED):
                await response.write(frame)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return
        except ConnectionError:
            return


def _frame(event: str, number: int, data: Model) -> bytes:
    """Return one event. Its JSON has no line breaks, which would end it."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.encode(), number, data.model_dump_json().encode())
