"""One connection: which bytes are the answer to what was asked, and whether it may be used again.

Something that arrives on an idle connection is no answer to anything. Stock aiohttp hands it to the next
request, and from then on every body belongs to the wrong URL. Here such a connection is thrown away, and
connections to the same peer are not used twice for a while: a push that races a request already written can
not be told from its answer, so the first sign counts. What has arrived and was not read yet is looked for, too.
"""

from __future__ import annotations

import select
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp import ClientOSError, ClientPayloadError, ServerDisconnectedError
from aiohttp.client_proto import ResponseHandler

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fetcher.transports.http.wire import Head, ResponseParser

_SUSPICION = 60.0
_MOST_SUSPECTS = 1024
# A body that arrives faster than it is taken waits in the socket, not here.
_MOST_WAITING = 256 * 1024


class Suspects:
    """Peers that answered without having been asked, each for a minute. Bounded: the oldest goes first."""

    def __init__(self) -> None:
        self._until: dict[object, float] = {}

    def add(self, peer: object) -> None:
        """Suspect a peer from now on."""
        self._until.pop(peer, None)
        self._until[peer] = monotonic() + _SUSPICION
        if len(self._until) > _MOST_SUSPECTS:
            del self._until[next(iter(self._until))]

    def __contains__(self, peer: object) -> bool:
        return bool(self._until) and self._until.get(peer, 0.0) > monotonic()


class PooledConnection(ResponseHandler):
    """A connection that is used again only if nothing arrived on it since its last response.

    It reads a response with a ``ResponseParser`` once it was told to ``expect`` one, and with aiohttp's otherwise:
    that is how a proxy is asked for a tunnel, and how ``SessionExchange`` works.
    """

    def __init__(
        self, suspects: Suspects, on_lost: Callable[[ResponseHandler], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(loop)
        self._suspects = suspects
        self._on_lost = on_lost
        self._peer: Any = None
        self._arrivals: select.poll | None = None
        self._secure = False
        self._reader: ResponseParser | None = None
        self._failure: BaseException | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._full = False
        self._fresh = True

    @property
    def remote_ip(self) -> str | None:
        """The address of the other end."""
        return self._peer[0] if self._peer else None

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who is at the other end, which a connection that is being lost no longer tells."""
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")
        self._arrivals = _arrivals(transport)
        self._secure = transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        """Read on in the response that is expected; what nobody expects is kept as a sign."""
        reader = self._reader
        if reader is None:
            super().data_received(data)
            return
        if self._failure is not None:
            return
        try:
            reader.feed(data)
        except FetchError as error:
            self._failure = error
        if reader.waiting > _MOST_WAITING and not self._full and self.transport is not None:
            self._full = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note how the response ended that is expected; count no longer as idle, whoever closed it."""
        reader = self._reader
        if reader is not None and self._failure is None:
            broken = exc is not None or (reader.length_unknown and is_cut_off(self.transport))
            self._failure = _failure_at_end(reader, exc, broken=broken)
        elif self._payload is not None and not self._payload.is_eof() and is_cut_off(self.transport):
            self._payload.set_exception(ClientPayloadError("TLS was not closed"))
        self._on_lost(self)
        super().connection_lost(exc)
        self._wake()

    # Of an exchange

    def expect(self, reader: ResponseParser) -> None:
        """Read the next response with this parser. Raises FetchError if something came before it was asked for."""
        # Of one that was used before, the pool has asked just now.
        # Under TLS a server may send tickets whenever it likes (RFC 8446, section 4.6.1).
        if self._tail or (self._fresh and not self._secure and self._has_arrivals()):
            self._suspects.add(self._peer)
            raise FetchError(ErrorKind.BAD_HTTP, "the server answered before it was asked", sent=False)
        self._reader = reader
        self._failure = None
        self._fresh = False

    async def head(self) -> Head:
        """Return the head of the response, once it is there.

        Raises FetchError if it is none; ServerDisconnectedError or ClientOSError if the connection ended before it.
        """
        reader = self._reader
        if reader is None:
            raise ServerDisconnectedError
        while reader.head is None:
            if self._failure is not None:
                raise self._failure
            await self._arrived()
        return reader.head

    async def body(self, reader: ResponseParser) -> bytes:
        """Return what has arrived of the body; nothing at its end. Raises FetchError if it does not arrive whole."""
        while not (data := reader.take()):
            if reader.complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._arrived()
        if self._full:
            self._full = False
            if self.transport is not None:
                self.transport.resume_reading()
        return data

    def finished(self, reader: ResponseParser) -> bool:
        """Return whether the connection may be used again, now that nothing more is wanted of this response."""
        if reader.excess.strip(b"\r\n"):
            self._suspects.add(self._peer)
        transport = self.transport
        return (
            reader.complete
            and reader.reusable
            and not reader.waiting
            and self._failure is None
            and transport is not None
            # Answered before the request was read: who knows whether the rest of it ever will be.
            and not transport.get_write_buffer_size()
        )

    def _has_arrivals(self) -> bool:
        return self._arrivals is not None and bool(self._arrivals.poll(0))

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

    def hand_over(self, parser: Any, payload: Any, arrived: bytes) -> None:
        """Give what has arrived behind a head, and all that follows, to a parser of another protocol for good.

        It is one as aiohttp has them, and puts what it reads into a payload. The pool does not take it back.
        """
        self.rest()
        self._upgraded = True
        self.set_parser(parser, payload)
        if arrived:
            self.data_received(arrived)
        if self.transport is None:
            # It was lost before there was anybody to be told.
            parser.feed_eof()

    # Of the pool

    def rest(self) -> None:
        """Read no further response: from here on, what arrives is kept as bytes that nobody asked for.

        The parser of the last response would hold the first half of a head where nobody sees it.
        """
        self._reader = None
        self._parser = None

    def close(self) -> None:
        """Close it; at once if the request was not sent whole, as nobody may ever read the rest of it."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def suspect(self) -> None:
        """Use no connection with this peer twice for a while."""
        self._suspects.add(self._peer)

    def is_connected(self) -> bool:
        """Whether it can be used. The pool asks before each reuse; a new connection is not asked."""
        if not super().is_connected():
            return False
        if self.should_close:
            # It would not be in the pool if that had been so when it was given back: something has arrived.
            self._suspects.add(self._peer)
            return False
        if self._has_arrivals():
            # What it is, nobody has read yet: most often the end of the connection, or a ticket of TLS.
            return False
        return self._peer not in self._suspects

    def set_exception(self, exc: Any, *cause: Any) -> None:
        """Fail the body that is being read too: a broken chunk would otherwise look like silence."""
        super().set_exception(exc, *cause)
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(exc, *cause)


def _arrivals(transport: asyncio.BaseTransport) -> select.poll | None:
    """Return what tells at once whether something has arrived on a connection; None where that can not be known."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return None
    arrivals = select.poll()
    arrivals.register(sock.fileno(), select.POLLIN)
    return arrivals


def is_cut_off(transport: Any) -> bool:
    """Return whether TLS was not closed on a connection that is lost (RFC 8446, section 6.1).

    Such an end proves nothing: anybody on the way can bring it about. Event loops do not tell, but OpenSSL does: after
    the alert there is nothing left to read, and without it there is something missing.
    """
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    try:
        return tls is not None and bool(tls.read(1))
    except ssl.SSLZeroReturnError:
        return False
    except (ssl.SSLError, ValueError):
        return True


def _failure_at_end(reader: ResponseParser, error: BaseException | None, *, broken: bool) -> BaseException | None:
    """Return what the end of a connection means for the response that is expected."""
    if reader.head is None:
        if isinstance(error, OSError):
            return ClientOSError(*error.args)
        return ServerDisconnectedError("in the middle of a response head" if reader.started else "without an answer")
    try:
        reader.end(reset=broken)
    except FetchError as incomplete:
        return incomplete
    return None
