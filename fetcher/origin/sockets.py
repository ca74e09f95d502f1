"""What the origin serves beside http: one server for each thing that a client of sockets has to cope with."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import NamedTuple, Protocol

from fetcher.origin.datagrams import DatagramServer
from fetcher.origin.echoes import echo, rude, slow
from fetcher.origin.lines import COMMANDS, converse
from fetcher.origin.streams import Limits, StreamServer
from fetcher.origin.websockets import TALKS, WebSocketServer


class Place(NamedTuple):
    """Where something is served, and what."""

    name: str
    url: str
    what: str


class _Server(Protocol):
    @property
    def port(self) -> int: ...

    async def start(self, host: str, port: int) -> None: ...

    async def close(self) -> None: ...


class Sockets:
    """All of these servers. ``places`` tells where they are, once they are started."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._servers: list[tuple[str, str, _Server, str]] = [
            ("echo", "tcp", StreamServer(echo, limits), "what comes is sent back (RFC 862)"),
            ("lines", "tcp", StreamServer(converse, limits), f"lines that begin with {', '.join(COMMANDS)}"),
            ("slow", "tcp", StreamServer(slow, limits), "what comes is sent back, a byte at a time"),
            ("rude", "tcp", StreamServer(rude, limits), "a line that says drop, silent, endless, or else is cut short"),
            ("datagrams", "udp", DatagramServer(), "what comes is sent back (RFC 862)"),
            ("messages", "ws", WebSocketServer(limits), f"web sockets at {', '.join(f'/{name}' for name in TALKS)}"),
        ]
        self._opened = AsyncExitStack()
        self.places: list[Place] = []

    @property
    def names(self) -> list[str]:
        """The names of the places, in the order of their ports."""
        return [name for name, *_ in self._servers]

    async def start(self, host: str, first_port: int = 0) -> None:
        """Listen on a port each, from the first on; 0 takes free ones. Raises OSError if one is not to be had."""
        shown = f"[{host}]" if ":" in host else host
        try:
            for index, (name, scheme, server, what) in enumerate(self._servers):
                await server.start(host, first_port + index if first_port else 0)
                self._opened.push_async_callback(server.close)
                self.places.append(Place(name, f"{scheme}://{shown}:{server.port}", what))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, and drop every connection."""
        await self._opened.aclose()
