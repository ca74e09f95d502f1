"""One connection on which something is sent while what comes is received.

Neither waits for the other: a server may answer before it has read everything, and one that takes nothing more before
its answer is read would otherwise wait for us for ever, as we for it. Nothing is sent faster than it is taken, and
nothing is received much faster than it is read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fetcher.transports.http.connection import is_cut_off

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 64 * 1024
_MOST_WAITING = 256 * 1024


class Conversation(asyncio.Protocol):
    """``sent`` tells whether anything was handed to the socket; ``cut_off`` whether TLS ended without being closed.

    ``refused``: the connection was lost before all that was to be sent had been taken.
    ``taken`` is called whenever the other end has taken some more.
    """

    def __init__(self, taken: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._taken = taken
        self._transport: Any = None
        self._left = memoryview(b"")
        self._half_close = False
        self._blocked = False
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._full = False
        self._ended = False
        self._lost = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None
        self.sent = False
        self.cut_off = False
        self.refused = False

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have what is sent wait here rather than in the transport."""
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_PIECE)

    def data_received(self, data: bytes) -> None:
        """Keep what has arrived until it is read."""
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING and not self._full:
            self._full = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note that nothing more comes. How TLS has ended is known only when the connection is lost."""
        if self._transport.get_extra_info("ssl_object") is not None:
            return False
        self._ended = True
        # From now on all has to be taken for nothing to be left over, not just most of it.
        self._transport.set_write_buffer_limits(high=0)
        self._wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note how it has ended, which what has arrived before is not touched by."""
        # Behind the end of what comes, nothing can go wrong but what is sent.
        self.refused = self.sending or (self._ended and exc is not None)
        if not self._ended:
            self._error = exc
            self.cut_off = exc is None and is_cut_off(self._transport)
        self._ended = self._lost = True
        self._left = memoryview(b"")
        self._wake()

    def pause_writing(self) -> None:
        """Hand over no more: the other end is behind."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Go on sending."""
        self._blocked = False
        self._taken()
        self._send()
        if self._ended and not self.sending:
            self._wake()

    # Of a transport

    def begin(self, payload: bytes, *, half_close: bool) -> None:
        """Send this, and with ``half_close`` that there is no more of it. Does not wait for it."""
        if self._lost:
            return  # as soon as it was there; whoever reads is told
        self._left = memoryview(payload)
        self._half_close = half_close
        self._send()

    async def receive(self) -> bytes:
        """Return what has arrived, once something has; nothing at the end. Raises OSError if it was no orderly one.

        A server may end what it says and go on to listen, or have closed: the end is known to be one or the other when
        all has been taken, or the connection is lost (``refused``).
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended and (self._lost or not self.sending):
                return b""
            await self._arrived()
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        if self._full and not self._lost:
            self._full = False
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def sending(self) -> bool:
        """Whether some of it was not taken yet: after the end of what comes, by the socket, before that by us."""
        return bool(self._left) or (self._ended and self._blocked)

    def abort(self) -> None:
        """Close it at once, if it is open. What was not sent is not, and what comes is not read."""
        self._left = memoryview(b"")
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def _send(self) -> None:
        while self._left and not self._blocked:
            piece, self._left = self._left[:_PIECE], self._left[_PIECE:]
            self.sent = True
            self._transport.write(piece)
        if self._half_close and not self._left and not self._transport.is_closing():
            self._half_close = False
            # Of a connection that was reset just now, whoever reads is told.
            with suppress(OSError):
                self._transport.write_eof()

    async def _arrived(self) -> None:
        self._arrival = self._loop.create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _wake(self) -> None:
        arrival = self._arrival
        if arrival is not None and not arrival.done():
            arrival.set_result(None)
