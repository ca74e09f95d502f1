"""The listening server, and what its connections share."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path  # noqa: TC003 - OriginConfig's type hints are resolved at run time
from typing import TYPE_CHECKING, Any, ClassVar

from fetcher.origin.access_log import AccessLog
from fetcher.origin.bodies import SMALL
from fetcher.origin.connection import Connection
from fetcher.origin.parsing import Head
from fetcher.origin.routes import ROUTES, Routes
from fetcher.origin.tables import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fetcher.origin.parsing import Request
    from fetcher.origin.replies import Reply
    from fetcher.origin.sockets import Place

FLUSH_SECONDS = 0.1
DRAIN_SECONDS = 1.0

_KEPT_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class OriginConfig:
    """Where the origin listens, and what it keeps."""

    host: str = "127.0.0.1"
    port: int = 0  # 0 takes a free one
    access_log: str | Path | None = None  # "-" is stdout
    certfile: str | Path | None = None
    keyfile: str | Path | None = None
    limited_rate: float = 10.0  # per second, where /limited names no rate
    delay_jitter: float = 0.0  # /delay waits SECONDS * (1 +- delay_jitter)
    seed: int = 0
    sockets: bool = False  # tcp, udp and web sockets, too, on the ports after that of http


class Origin:
    """The listening server with what its connections share."""

    ROUTES_HELP: ClassVar[str] = "\n".join(f"{route.usage:<33} {route.handler.__doc__}" for route in ROUTES.values())

    def __init__(self, config: OriginConfig) -> None:
        self.config = config
        self.heads: dict[bytes, Head] = {}
        self.ready: dict[bytes, tuple[bytes, int]] = {}
        self.log: AccessLog | None = None
        self.flusher: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._closing = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.routes = Routes(config, self._closing)

    async def start(self) -> None:
        """Listen; the port is known when this returns."""
        config, tls = self.config, None
        if config.certfile is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(config.certfile, config.keyfile)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), config.host, config.port, ssl=tls, backlog=4096
        )
        if config.access_log is not None:
            self.log = AccessLog(config.access_log)
            self.flusher = loop.create_task(self._flush(self.log), name="origin access log")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The root of its URLs, without a slash at the end."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'http' if self.config.certfile is None else 'https'}://{host}:{self.port}"

    async def close(self) -> None:
        """Stop listening, give answers in progress DRAIN_SECONDS, drop the rest, write the log."""
        self._server.close()
        self._closing.set()
        for connection in list(self._connections):
            connection.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), DRAIN_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        await self._empty.wait()
        log, self.log = self.log, None
        if log is not None and self.flusher is not None:
            self.flusher.cancel()
            await asyncio.gather(self.flusher, return_exceptions=True)  # what failed there fails here again
            log.close()

    def head(self, block: bytes) -> Head:
        """Parse a header block, and remember it: clients repeat theirs."""
        head = Head(block)
        if len(block) <= _KEPT_BLOCK:
            remember(self.heads, block, head)
        return head

    def keep(self, request: Request, reply: Reply, wire: bytes) -> None:
        """Remember the response of a fixed route for the hot path."""
        route = ROUTES.get(request.path[1:].partition("/")[0])
        plain = request.head.plain and request.method == b"GET" and request.version == b"HTTP/1.1"
        if plain and route is not None and route.fixed and len(wire) <= SMALL + _KEPT_BLOCK:
            remember(self.ready, request.target.partition(b"?")[0], (wire, reply.status))

    def joined(self, connection: Connection) -> None:
        """Count a connection in; one that was accepted while closing is dropped."""
        self._connections.add(connection)
        self._empty.clear()
        if self._closing.is_set():
            connection.abort()

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @staticmethod
    async def _flush(log: AccessLog) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            log.flush()


async def serve(
    config: OriginConfig, ready: Callable[[str], None], also: Callable[[Sequence[Place]], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, or until the access log cannot be written.

    `ready` is told the URL, and then `also` what else is served, if that is switched on.
    """
    origin, stop = Origin(config), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await origin.start()
    if origin.flusher is not None:
        origin.flusher.add_done_callback(lambda _: stop.set())
    async with AsyncExitStack() as opened:
        opened.push_async_callback(origin.close)
        places = await _sockets(config, origin.port, opened) if config.sockets else []
        ready(origin.url)
        if also is not None and places:
            also(places)
        await stop.wait()


async def _sockets(config: OriginConfig, port: int, opened: AsyncExitStack) -> Sequence[Place]:
    """Serve what is not http. Its servers are loaded here, as the fast one has no use for what they need."""
    module = import_module("fetcher.origin.sockets")
    sockets = module.Sockets()
    opened.push_async_callback(sockets.close)
    await sockets.start(config.host, port + 1 if config.port else 0)
    places: Sequence[Place] = sockets.places
    return places


def run(
    config: OriginConfig, ready: Callable[[str], None], also: Callable[[Sequence[Place]], None] | None = None
) -> None:
    """Serve on uvloop where that is installed."""
    runner: Callable[[Coroutine[Any, Any, None]], None]
    runner = import_module("uvloop").run if find_spec("uvloop") else asyncio.run
    runner(serve(config, ready, also))
