"""Hops that ask for another protocol on their connection (RFC 9110, section 7.8).

Answered with 101, the connection is handed over with all that has come on it, and is never used for http again. Any
other status is an answer like every other, and the connection is closed just the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import ServerDisconnectedError

from fetcher.transports.http.connection import PooledConnection
from fetcher.transports.http.exchange import ConnectionAnswer, ConnectionExchange
from fetcher.transports.http.wire import ResponseParser

if TYPE_CHECKING:
    import asyncio

    from aiohttp.connector import Connection

    from fetcher.transports.http.exchange import Answer, Hop, Lane
    from fetcher.transports.http.tracing import HopTrace
    from fetcher.transports.http.wire import Head

SWITCHING = 101
# A connection of a pool is known by what its proxy was sent: with this, a tunnel is never taken for a connection to a
# proxy that passes requests on, nor the other way round.
_TUNNEL = ("Proxy-Connection", "keep-alive")


class UpgradingExchange(ConnectionExchange):
    """Makes hops for http and https URLs whose headers ask for an upgrade. Proxies are asked for a tunnel."""

    async def send(self, hop: Hop, trace: HopTrace) -> UpgradeAnswer:
        """Send the request; the answer knows whether it was granted. Raises FetchError."""
        answer: Answer = await super().send(hop, trace)
        if not isinstance(answer, UpgradeAnswer):
            raise TypeError("an upgrade was answered by somebody else")
        return answer

    async def _talk(self, connection: Connection, hop: Hop, data: bytes, trace: HopTrace) -> Answer:  # noqa: ARG002
        protocol = connection.protocol
        transport = None if protocol is None else protocol.transport
        if not isinstance(protocol, PooledConnection) or transport is None:
            raise ServerDisconnectedError
        parser = _UpgradeParser(hop.method, self._bounds)
        protocol.expect(parser)
        transport.write(data)
        return UpgradeAnswer(connection, protocol, parser, await protocol.head())

    def _route(self, key: str | tuple[str, Lane], origin: str, lane: Lane) -> Any:
        plain = origin.startswith("http:")
        if plain and lane.forwarding:
            lane = msgspec.structs.replace(lane, proxy_headers=(*lane.proxy_headers, _TUNNEL))
        return super()._route(key, f"ws{origin[4:]}", lane)


class UpgradeAnswer(ConnectionAnswer):
    """The head of an answer to an upgrade. The connection is closed with it, whatever it was."""

    __slots__ = ("_upgrading",)

    def __init__(self, connection: Connection, protocol: PooledConnection, parser: _UpgradeParser, head: Head) -> None:
        super().__init__(connection, protocol, parser, head)
        self._upgrading = parser

    @property
    def protocol(self) -> PooledConnection:
        """The connection, on which whoever speaks the other protocol writes."""
        return self._protocol

    @property
    def transport(self) -> asyncio.Transport:
        """What it writes to. Raises ServerDisconnectedError if the connection is gone already."""
        transport = self._protocol.transport
        if transport is None:
            raise ServerDisconnectedError
        return transport

    def hand_over(self, parser: Any, payload: Any) -> None:
        """Give all that comes behind the head to a parser; see ``PooledConnection.hand_over``."""
        self._protocol.hand_over(parser, payload, self._upgrading.rest)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _UpgradeParser(ResponseParser):
    """Reads one response, or a head with 101; ``rest`` is what came behind that."""

    __slots__ = ("rest",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.rest = b""

    def _is_last(self, head: Head) -> bool:
        return head.status == SWITCHING

    def _begin_body(self, head: Head) -> None:
        if head.status == SWITCHING:
            self.complete = True
        else:
            super()._begin_body(head)

    def _overflow(self, data: bytes) -> None:
        if self.head is not None and self.head.status == SWITCHING:
            self.rest += data
        else:
            super()._overflow(data)
