"""The pool of connections, and how many of them are kept.

An idle connection is an open file. Their number is bounded by what this process may open, whatever the number of
hosts, and when there are no files left, idle connections give theirs up: that is no fault of the host to be asked.

What is overridden is not public in aiohttp; ``tests/integration/test_http_transport.py`` fails if it changes.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from collections import OrderedDict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectorError

from fetcher.transports.http.connection import PooledConnection, Suspects
from fetcher.transports.http.proxies.connecting import ProxiedConnector
from fetcher.transports.http.tracing import noting_socket

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_RESERVED_FILES = 64
_FEWEST_IDLE = 8
_MOST_IDLE = 65_536
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_TRIES_WITHOUT_FILES = 12
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
# Closed by each connection that finds no file: its own, and one for whatever else needs some.
_CLOSED_PER_TRY = 2


class IdleConnections:
    """The open connections of a pool that are not in use, in the order in which they were given back."""

    def __init__(self) -> None:
        self._keys: OrderedDict[ResponseHandler, ConnectionKey] = OrderedDict()

    def add(self, protocol: ResponseHandler, key: ConnectionKey) -> None:
        """Count one as idle from now on."""
        self._keys[protocol] = key

    def remove(self, protocol: ResponseHandler) -> None:
        """Count one no more, if it was counted: it is in use, or closed."""
        self._keys.pop(protocol, None)

    def oldest(self) -> tuple[ResponseHandler, ConnectionKey]:
        """Take out the one that has been idle for longest."""
        return self._keys.popitem(last=False)

    def __len__(self) -> int:
        return len(self._keys)


class GuardedConnector(ProxiedConnector):
    """Opens ``PooledConnection``s, and keeps at most ``max_idle`` of them for reuse."""

    def __init__(self, *, max_idle: int | None = None, **options: Any) -> None:
        super().__init__(socket_factory=noting_socket, **options)
        self._idle = IdleConnections()
        self._max_idle = most_idle() if max_idle is None else max_idle
        factory: Any = partial(PooledConnection, Suspects(), self._idle.remove, asyncio.get_running_loop())
        self._factory = factory

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, PooledConnection):
            protocol.rest()
        super()._release(key, protocol, should_close=should_close)
        kept = self._conns.get(key)
        if kept and kept[-1][0] is protocol:
            self._idle.add(protocol, key)
            if len(self._idle) > self._max_idle:
                self._close_oldest()

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        connection = await super()._get(key, traces)
        if connection is not None and connection.protocol is not None:
            self._idle.remove(connection.protocol)
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  aiohttp's
    ) -> ResponseHandler:
        """Connect. Without a file to be had, wait for one for as long as connecting may take."""
        deadline = None if timeout.sock_connect is None else monotonic() + timeout.sock_connect
        pause = _FIRST_PAUSE
        for _ in range(_TRIES_WITHOUT_FILES):
            try:
                return await super()._create_connection(req, traces, timeout)
            except ClientConnectorError as error:
                if error.os_error.errno not in _NO_FILES or (deadline is not None and monotonic() + pause > deadline):
                    raise
            self.make_room()
            # A connection is closed by the event loop, not at once.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return await super()._create_connection(req, traces, timeout)

    def make_room(self) -> None:
        """Give up idle connections, if there are any, for whoever finds no file to open."""
        super().make_room()
        for _ in range(min(_CLOSED_PER_TRY, len(self._idle))):
            self._close_oldest()

    def _close_oldest(self) -> None:
        """Close what has been idle for longest, which stands first among the connections to its host.

        Before it may only stand some that were lost, which are passed over here just once.
        """
        oldest, key = self._idle.oldest()
        kept = self._conns.get(key)
        while kept and kept.popleft()[0] is not oldest:
            pass
        if kept is not None and not kept:
            del self._conns[key]
        oldest.close()


def most_idle() -> int:
    """Return how many idle connections to keep: half of the files that this process may open, less a reserve."""
    if sys.platform == "win32":
        return _MOST_IDLE
    import resource  # noqa: PLC0415  not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_IDLE
    return min(_MOST_IDLE, max(_FEWEST_IDLE, (soft - _RESERVED_FILES) // 2))
