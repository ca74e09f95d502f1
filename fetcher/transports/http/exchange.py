"""One hop: one request, one response head, one body stream.

Everything that makes a fetch out of hops (redirects, decoding, caps, credentials) stands above this seam and is
written once. There are two ways to make a hop, with the same contract:

- ``ConnectionExchange`` writes the request straight onto a connection of the shared session's pool. It skips the
  layers of aiohttp's client that this project does not use and costs less than half of the CPU time.
- ``SessionExchange`` goes through ``ClientSession.request`` and everything in it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiohttp import ClientOSError, ClientRequest, ServerDisconnectedError
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientResponse, ClientSession, ClientTimeout, RawResponseMessage, StreamReader
    from aiohttp.connector import Connection

    from fetcher.model import Header

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_MOST_ROUTES = 4096
_MOST_INTERIM = 8
_SWITCHING = 101
_FIRST_FINAL = 200
_MAX_FIELD = 16 * 1024
_MAX_HEADERS = 256
_READ_SIZE = 64 * 1024


class Hop(msgspec.Struct):
    """A request as it goes onto the wire. ``url`` is absolute and already encoded."""

    method: str
    url: str
    headers: list[Header]
    body: bytes | None
    timeout: ClientTimeout


class Answer(Protocol):
    """The head of a response, and its body while it arrives.

    ``headers`` has every field in its order, bytes decoded as ISO-8859-1, so that ``.encode("latin-1")`` gives back
    exactly what was sent. ``fields`` finds one by its name, in whatever case.
    """

    status: int
    headers: list[Header]
    fields: Mapping[str, str]
    http_version: str
    remote_ip: str | None

    async def read(self) -> bytes:
        """Return what has arrived of the body, still encoded; nothing at its end.

        Raises FetchError if the body does not arrive whole.
        """
        ...

    def close(self) -> None:
        """Give the connection back if the whole body was read, and close it otherwise."""
        ...


class Exchange(Protocol):
    """Makes one hop. Called by many workers at once."""

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Send the request and wait for the head of its response. Raises FetchError."""
        ...


class _Route(msgspec.Struct, eq=False):
    """What all requests to one origin share. ``request`` only serves to find or open a connection."""

    request: ClientRequest
    head: bytes


class ConnectionExchange:
    """Requests written straight onto the connections of the session's pool."""

    def __init__(self, session: ClientSession) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed")
        self._session = session
        self._connector = session.connector
        self._loop = asyncio.get_running_loop()
        self._routes: OrderedDict[str, _Route] = OrderedDict()

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Send the request, on another connection if a reused one turns out to be closed."""
        end = _end_of_origin(hop.url)
        route = self._routes.get(hop.url[:end]) or self._route(hop.url[:end])
        data = _serialise(hop, route.head, hop.url[end:] or "/")
        while True:
            connection = await self._connect(route, trace, hop.timeout)
            try:
                return await self._talk(connection, hop, data)
            except (ServerDisconnectedError, ClientOSError) as error:
                connection.close()
                # A server may close an idle connection at the moment at which it is used again (RFC 9112, section
                # 9.3.1). Every turn uses up a pooled connection, so this ends.
                if not trace.reused or hop.method not in IDEMPOTENT:
                    raise fetch_error(error, hop.url, trace) from error
            except (HttpProcessingError, OSError) as error:
                connection.close()
                raise fetch_error(error, hop.url, trace) from error
            except BaseException:
                connection.close()
                raise

    async def _connect(self, route: _Route, trace: HopTrace, timeout: ClientTimeout) -> Connection:
        while True:
            trace.reused = False
            try:
                connection = await self._connector.connect(route.request, [trace], timeout)
            except Exception as error:
                raise fetch_error(error, str(route.request.url), trace) from error
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            # Something arrived on it while it was idle: whatever that was, it is no answer of ours.
            connection.close()

    async def _talk(self, connection: Connection, hop: Hop, data: bytes) -> Answer:
        protocol = connection.protocol
        transport = connection.transport
        if protocol is None or transport is None:
            raise ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=hop.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_SIZE,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_HEADERS,
        )
        transport.write(data)
        for _ in range(_MOST_INTERIM):
            message, payload = await protocol.read()
            if message.code >= _FIRST_FINAL:
                return _ConnectionAnswer(connection, message, payload, hop.url)
            if message.code == _SWITCHING:
                raise FetchError(ErrorKind.BAD_HTTP, "the server switched protocols without being asked")
        raise FetchError(ErrorKind.BAD_HTTP, f"more than {_MOST_INTERIM} interim responses")

    def _route(self, origin: str) -> _Route:
        url = URL(origin + "/", encoded=True)
        request = ClientRequest("GET", url, loop=self._loop, session=self._session)
        host = origin.partition("://")[2]
        default = ":443" if url.scheme == "https" else ":80"
        route = _Route(request, b" HTTP/1.1\r\nHost: " + host.removesuffix(default).encode("ascii") + b"\r\n")
        self._routes[origin] = route
        if len(self._routes) > _MOST_ROUTES:
            self._routes.popitem(last=False)
        return route


class _ConnectionAnswer:
    """A response that is still arriving on a connection of the pool."""

    __slots__ = ("_connection", "_payload", "_url", "fields", "headers", "http_version", "remote_ip", "status")

    def __init__(self, connection: Connection, message: RawResponseMessage, payload: StreamReader, url: str) -> None:
        self._connection = connection
        self._payload = payload
        self._url = url
        self.status = message.code
        self.headers = _decoded(message.raw_headers)
        self.fields = message.headers
        self.http_version = f"{message.version.major}.{message.version.minor}"
        self.remote_ip = _peer(connection)

    async def read(self) -> bytes:
        """Return what has arrived of the body."""
        payload = self._payload
        try:
            while not payload.at_eof():
                if chunk := await payload.readany():
                    return chunk
        except Exception as error:
            raise fetch_error(error, self._url, None, in_body=True, status=self.status) from error
        return b""

    def close(self) -> None:
        """Give the connection back; the pool closes it if anything of the response is still to come."""
        self._connection.release()


class SessionExchange:
    """Requests made by ``ClientSession.request``."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Send the request through every layer of aiohttp's client."""
        # The session does not say when it had a connection; that bytes may have left is the safe assumption.
        trace.sent = True
        try:
            response = await self._session.request(
                hop.method,
                URL(hop.url, encoded=True),
                headers=hop.headers,
                data=hop.body,
                allow_redirects=False,
                timeout=hop.timeout,
            )
        except Exception as error:
            raise fetch_error(error, hop.url, trace) from error
        return _SessionAnswer(response)


class _SessionAnswer:
    """A response of aiohttp's client."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = _decoded(response.raw_headers)
        self.fields = response.headers
        version = response.version
        self.http_version = f"{version.major}.{version.minor}" if version else "1.1"
        self.remote_ip = _peer(response.connection) if response.connection is not None else None

    async def read(self) -> bytes:
        """Return what has arrived of the body."""
        content = self._response.content
        try:
            while not content.at_eof():
                if chunk := await content.readany():
                    return chunk
        except Exception as error:
            url = str(self._response.url)
            raise fetch_error(error, url, None, in_body=True, status=self.status) from error
        return b""

    def close(self) -> None:
        """Give the connection back; aiohttp closes it if the body was not read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _end_of_origin(url: str) -> int:
    """Return where the scheme and authority of an absolute URL end."""
    start = url.index("://") + 3
    end = url.find("/", start)
    query = url.find("?", start)
    if end < 0 or 0 <= query < end:
        end = query
    return end if end >= 0 else len(url)


def _serialise(hop: Hop, head: bytes, target: str) -> bytes:
    """Write a request head (RFC 9112, section 3). Names and values were checked at intake."""
    if target[0] == "?":
        target = "/" + target
    lines = [f"{name}: {value}\r\n" for name, value in hop.headers]
    if hop.body is not None:
        lines.append(f"Content-Length: {len(hop.body)}\r\n")
    text = "".join(lines)
    return b"".join((f"{hop.method} {target}".encode("ascii"), head, text.encode("utf-8"), b"\r\n", hop.body or b""))


def _decoded(raw: tuple[tuple[bytes, bytes], ...]) -> list[Header]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


def _peer(connection: Connection) -> str | None:
    peer = connection.transport.get_extra_info("peername") if connection.transport is not None else None
    return peer[0] if peer else None
