"""The connections of the API, bounded in number and in time, so that slow clients keep nobody else from it.

- A client has ``HEAD_SECONDS`` to send the head of a request, from the connection or from the last answer on.
- A client that reads nothing of its answer for ``STALLED_SECONDS`` is cut off, whatever the answer is.
- There are ``most`` connections. For a newcomer beyond them the one is closed that has waited longest without having
  asked for anything. Where all of them have asked, there are ``RESERVE`` more, on which only probes are answered.

How long a body may take is a matter of who reads it (reception.py).
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fetcher.service.api.problems import ProblemError, respond, trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEAD_SECONDS = 75.0
"""Longer than the 60 s for which nginx keeps a connection that it may use again."""
STALLED_SECONDS = 30.0
RESERVE = 32
PROBES = frozenset({"/livez", "/readyz"})
LOOK_SECONDS = 1.0

log = structlog.get_logger()


class Connection(web.RequestHandler):
    """A connection to a client, and since when it waits for what."""

    __slots__ = ("_bounded", "asked", "since", "stalled_since")

    def __init__(self, server: BoundedServer, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._bounded = server
        self.asked = False
        """Whether a request is being answered."""
        self.since = 0.0
        """When the last request was answered, or the connection was made."""
        self.stalled_since: float | None = None
        """Since when the client takes no more of its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it at once if there is no room."""
        self.since = self._bounded.now()
        if not self._bounded.admit(self):
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._bounded.forget(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client takes no more."""
        self.stalled_since = self._bounded.now()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it does again."""
        self.stalled_since = None
        super().resume_writing()

    def begin(self) -> None:
        """A request has been read up to the end of its head."""
        self.asked = True

    def end(self) -> None:
        """Its answer has been made."""
        self.asked = False
        self.since = self._bounded.now()

    def is_stalled(self, now: float) -> bool:
        """Tell whether the client has not read for too long."""
        return self.stalled_since is not None and now - self.stalled_since > STALLED_SECONDS

    @property
    def is_in_crowd(self) -> bool:
        """Tell whether all connections but the reserve are taken."""
        return self._bounded.crowded

    def abort(self) -> None:
        """Cut the client off."""
        self._bounded.forget(self)
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  it quotes what was sent
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or what went wrong where no handler could see it, with a problem."""
        malformed = isinstance(exc, HttpProcessingError)
        if not malformed:
            log.error("api_fault", status=status, trace=trace(exc))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so there is no room for another")
        response = respond(status, "this is not a request as HTTP has it" if malformed else None)
        response.force_close()
        return response


class BoundedServer(web.Server):
    """Makes connections for the handler of another server, ``most`` of them at a time."""

    def __init__(self, inner: web.Server, most: int, **kwargs: Any) -> None:
        super().__init__(inner.request_handler, request_factory=inner.request_factory)
        self._options = kwargs
        self._most = most
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.now = asyncio.get_running_loop().time

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)

    @property
    def crowded(self) -> bool:
        """Tell whether all but the reserve are taken."""
        return len(self._open) > self._most

    def admit(self, connection: Connection) -> bool:
        """Take a connection, in the place of an idle one if there are enough; return whether there is room."""
        if len(self._open) >= self._most:
            waiting = [other for other in self._open if not other.asked and other.stalled_since is None]
            if waiting:
                min(waiting, key=lambda other: other.since).abort()
            elif len(self._open) >= self._most + RESERVE:
                return False
        self._open.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Take a connection as gone."""
        self._open.discard(connection)

    def resize(self, most: int) -> None:
        """Have room for so many from now on. Those that there are stay."""
        self._most = most

    def start(self) -> None:
        """Look after the connections from now on."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self.now()
        for connection in [connection for connection in self._open if connection.is_stalled(now)]:
            connection.abort()
        self.start()


class Runner(web.AppRunner):
    """Runs an application behind bounded connections."""

    def __init__(self, app: web.Application, most: int, shutdown_timeout: float) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=shutdown_timeout)
        self._most = most

    def resize(self, most: int) -> None:
        """Have room for so many connections from now on. Those that there are stay."""
        self._most = most
        if isinstance(self.server, BoundedServer):
            self.server.resize(most)

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        # What a body is packed in is refused where it is read, so nothing is unpacked here.
        server = BoundedServer(
            inner,
            self._most,
            access_log=None,
            auto_decompress=False,
            # Also what a head may take: aiohttp waits for either in the same way.
            keepalive_timeout=HEAD_SECONDS,
            lingering_time=5.0,
            logger=_quiet_logger(),
        )
        server.start()
        return server

    async def _cleanup_server(self) -> None:
        if isinstance(self.server, BoundedServer):
            self.server.stop()
        await super()._cleanup_server()


def _quiet_logger() -> logging.Logger:
    """Return a logger for aiohttp that says nothing: what there is to say is said in ``handle_error``."""
    logger = logging.getLogger("fetcher.service.api.connections")
    logger.disabled = True
    return logger


@web.middleware
async def keep_time(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the connection that it has a request; where there is a crowd, answer probes only."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await handler(request)
    connection.begin()
    try:
        if connection.is_in_crowd and request.path not in PROBES:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "there are too many connections; service.max_connections says how many there may be",
                headers={"Retry-After": "5"},
                close=True,
            )
        return await handler(request)
    finally:
        connection.end()
