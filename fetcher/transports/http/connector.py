"""The pool of connections, and which of them may be used again.

Something that arrives on an idle connection is no answer to anything. Stock aiohttp hands it to the next
request, and from then on every body belongs to the wrong URL. Here such a connection is thrown away, and
connections to the same peer are not used twice for a while: a push that races a request already written can
not be told from its answer, so the first sign counts.

What is overridden is not public in aiohttp; ``tests/integration/test_http_transport.py`` fails if it changes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler

from fetcher.transports.http.tracing import noting_socket

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey

_SUSPICION = 60.0
_MOST_SUSPECTS = 1024


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
    """A connection that is used again only if nothing arrived on it since its last response."""

    def __init__(self, suspects: Suspects, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._suspects = suspects
        self._peer: Any = None

    @property
    def remote_ip(self) -> str | None:
        """The address of the other end."""
        return self._peer[0] if self._peer else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who is at the other end, which a connection that is being lost no longer tells."""
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")

    def rest(self) -> None:
        """Read no further response: from here on, what arrives is kept as bytes that nobody asked for.

        The parser of the last response would hold the first half of a head where nobody sees it.
        """
        self._parser = None

    def is_connected(self) -> bool:
        """Whether it can be used. The pool asks before each reuse; a new connection is not asked."""
        if not super().is_connected():
            return False
        if self.should_close:
            # It would not be in the pool if that had been so when it was given back: something has arrived.
            self._suspects.add(self._peer)
            return False
        return self._peer not in self._suspects

    def set_exception(self, exc: Any, *cause: Any) -> None:
        """Fail the body that is being read too: a broken chunk would otherwise look like silence."""
        super().set_exception(exc, *cause)
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(exc, *cause)


class GuardedConnector(TCPConnector):
    """Opens and keeps ``PooledConnection``s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=noting_socket, **options)
        factory: Any = partial(PooledConnection, Suspects(), asyncio.get_running_loop())
        self._factory = factory

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, PooledConnection):
            protocol.rest()
        super()._release(key, protocol, should_close=should_close)
