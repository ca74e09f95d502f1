"""One hop: one request, one response head, one body stream.

Everything that makes a fetch out of hops (redirects, decoding, caps, credentials) stands above this seam and
is written once; which connections may be used again is decided below it, in ``connector.py``. There are two
ways to make a hop, with the same contract:

- ``ConnectionExchange`` writes the request straight onto a connection of the shared session's pool. It skips
  the layers of aiohttp's client that this project does not use and costs less than half of the CPU time.
- ``SessionExchange`` goes through ``ClientSession.request`` and everything in it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import contextmanager
from io import BytesIO
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from aiohttp import ClientOSError, ClientRequest, ClientTimeout, ServerDisconnectedError
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import IDEMPOTENT, Header
from fetcher.transports.http.connection import PooledConnection
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.uploads import Upload, sent_with
from fetcher.transports.http.wire import ResponseParser

if TYPE_CHECKING:
    from asyncio import WriteTransport
    from collections.abc import Iterator, Mapping

    from aiohttp import ClientResponse, ClientSession
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

    from fetcher.transports.http.tracing import HopTrace
    from fetcher.transports.http.wire import Bounds, Head

# A request without a body says so where one would have been expected (RFC 9110, section 8.6).
_EXPECT_BODY = frozenset({"POST", "PUT", "PATCH"})
_MOST_ROUTES = 4096
_SECURE = frozenset({"https", "wss"})
_SWITCHING = 101
_UPLOAD_TICK = 0.1
_LARGE_BODY = 1024 * 1024


class Lane(msgspec.Struct, frozen=True):
    """The way of a hop that does not go the usual one. Connections of one lane are never used for another.

    ``tls``: instead of the session's own context; ``verified`` is False if it accepts any certificate. ``proxy``:
    its URL, without a user and password, which are in ``proxy_headers``.
    """

    tls: SSLContext | None = None
    verified: bool = True
    proxy: URL | None = None
    proxy_headers: tuple[Header, ...] = ()

    @property
    def forwarding(self) -> bool:
        """Whether a proxy is sent the request itself, where it is not asked for a tunnel (RFC 9112, section 3.2.2)."""
        return self.proxy is not None and self.proxy.scheme in {"http", "https"}

    def direct(self) -> Lane | None:
        """Return the same without a proxy; None if that is the usual lane."""
        return None if self.tls is None and self.verified else Lane(self.tls, self.verified)

    def __repr__(self) -> str:
        return f"Lane(verified={self.verified}, proxy={self.proxy})"


class Hop(msgspec.Struct):
    """A request as it goes onto the wire. ``url`` is absolute and already encoded; no ``lane`` is the usual one.

    ``upload``, in place of ``body``, is put together while it is sent.
    """

    method: str
    url: str
    headers: list[Header]
    body: bytes | None
    timeout: ClientTimeout
    lane: Lane | None = None
    upload: Upload | None = None


USUAL_LANE = Lane()


class Answer(Protocol):
    """The head of a response, and its body while it arrives.

    ``headers`` has every field in its order, bytes decoded as ISO-8859-1, so that ``.encode("latin-1")``
    gives back exactly what was sent. ``fields`` finds one by its name, in whatever case.
    """

    status: int
    headers: list[Header]
    http_version: str
    remote_ip: str | None

    @property
    def fields(self) -> Mapping[str, str]:
        """Header values by their names, of several fields with one name the first."""
        ...

    @property
    def length_unknown(self) -> bool:
        """Whether the body ends with its connection, so that nothing proves it to be whole."""
        ...

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
    """What all requests to one origin share.

    ``request`` only serves to find or open a connection. ``before`` and ``version`` are what stands around the path in
    a request line, ``head`` the latter and the rest of the head that most requests have.
    """

    request: ClientRequest
    before: str
    version: bytes
    host: bytes
    head: bytes


class ConnectionExchange:
    """Requests written straight onto the connections of the session's pool.

    ``usual`` are the headers that most hops have; they are recognised by identity.
    """

    def __init__(self, session: ClientSession, usual: list[Header], bounds: Bounds) -> None:
        if session.connector is None:
            raise RuntimeError("the session is closed")
        self._session = session
        self._connector = session.connector
        self._loop = asyncio.get_running_loop()
        self._usual = usual
        self._bounds = bounds
        self._routes: OrderedDict[str | tuple[str, Lane], _Route] = OrderedDict()

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Send the request, on another connection if a reused one turns out to be closed."""
        url = hop.url
        if hop.upload is not None:
            await hop.upload.measure()
        end = _end_of_origin(url)
        lane = hop.lane
        key = url[:end] if lane is None else (url[:end], lane)
        route = self._routes.get(key) or self._route(key, url[:end], lane or USUAL_LANE)
        data = self._serialise(hop, route, url[end:])
        while True:
            try:
                connection = await self._connector.connect(route.request, [trace], hop.timeout)
            except Exception as error:
                raise fetch_error(error, url, trace) from error
            try:
                return await self._talk(connection, hop, data, trace)
            except (ServerDisconnectedError, ClientOSError) as error:
                connection.close()
                # A server may close an idle connection at the moment at which it is used again (RFC 9112,
                # section 9.3.1). Every turn uses up a pooled connection, so this ends.
                if not trace.reused or hop.method not in IDEMPOTENT:
                    raise fetch_error(error, url, trace) from error
            except FetchError as error:
                protocol = connection.protocol
                connection.close()
                # What a server says on a connection that was used before may belong to what was asked there before.
                late = error.kind is ErrorKind.NOT_HTTP and trace.reused and hop.method in IDEMPOTENT
                if not late or not isinstance(protocol, PooledConnection):
                    raise
                protocol.suspect()
            except OSError as error:
                connection.close()
                raise fetch_error(error, url, trace) from error
            except BaseException:
                connection.close()
                raise

    async def _talk(self, connection: Connection, hop: Hop, data: bytes, trace: HopTrace) -> Answer:
        protocol = connection.protocol
        transport = None if protocol is None else protocol.transport
        if not isinstance(protocol, PooledConnection) or transport is None:
            raise ServerDisconnectedError
        parser = ResponseParser(hop.method, self._bounds)
        protocol.expect(parser)
        transport.write(data)
        if hop.upload is not None:
            with uploading(transport, trace, self._loop):
                head = await sent_with(hop.upload, protocol, trace.taken)
        elif transport.get_write_buffer_size():
            with uploading(transport, trace, self._loop):
                head = await protocol.head()
        else:
            head = await protocol.head()
        return ConnectionAnswer(connection, protocol, parser, head)

    def _serialise(self, hop: Hop, route: _Route, target: str) -> bytes:
        """Write a request (RFC 9112, section 3). Intake has checked all of it; this makes sure of it."""
        before = f"{hop.method} {route.before}"
        line = before + target if target[:1] == "/" else f"{before}/{target}"
        _check_line(line)
        body = hop.body
        if hop.headers is self._usual and body is None and hop.method not in _EXPECT_BODY:
            return line.encode("ascii") + route.head
        length = b""
        if hop.upload is not None:
            length = b"Content-Length: %d\r\n" % hop.upload.size
        elif body is not None or hop.method in _EXPECT_BODY:
            length = b"Content-Length: %d\r\n" % len(body or b"")
        fields, own_host = _fields(hop.headers)
        host = b"" if own_host else route.host
        return b"".join((line.encode("ascii"), route.version, host, fields, length, b"\r\n", body or b""))

    def _route(self, key: str | tuple[str, Lane], origin: str, lane: Lane) -> _Route:
        url = URL(origin + "/", encoded=True)
        request = ClientRequest(
            "GET",
            url,
            loop=self._loop,
            session=self._session,
            ssl=True if lane.tls is None else lane.tls,
            proxy=lane.proxy,
            proxy_headers=dict(lane.proxy_headers) or None,
        )
        default = ":443" if url.scheme in _SECURE else ":80"
        name = origin.partition("://")[2].removesuffix(default).encode("ascii")
        version, host = b" HTTP/1.1\r\n", b"Host: " + name + b"\r\n"
        before = ""
        if lane.forwarding and url.scheme == "http":
            before = origin
            version += _fields(list(lane.proxy_headers))[0]
        fields, own_host = _fields(self._usual)
        head = version + (b"" if own_host else host) + fields + b"\r\n"
        route = self._routes[key] = _Route(request, before, version, host, head)
        if len(self._routes) > _MOST_ROUTES:
            self._routes.popitem(last=False)
        return route


@contextmanager
def uploading(transport: WriteTransport, trace: HopTrace, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Count it as progress while the server takes more of a long request: that is no silence."""
    left = transport.get_write_buffer_size()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal left, timer
        before, left = left, transport.get_write_buffer_size()
        if left < before:
            trace.taken()
        timer = loop.call_later(_UPLOAD_TICK, look)

    timer = loop.call_later(_UPLOAD_TICK, look)
    try:
        yield
    finally:
        timer.cancel()


class ConnectionAnswer:
    """A response that is still arriving on a connection of the pool."""

    __slots__ = ("_connection", "_parser", "_protocol", "fields", "headers", "http_version", "remote_ip", "status")

    def __init__(self, connection: Connection, protocol: PooledConnection, parser: ResponseParser, head: Head) -> None:
        self._connection = connection
        self._protocol = protocol
        self._parser = parser
        self.status = head.status
        self.headers = head.headers
        self.fields = head.fields
        self.http_version = head.version
        self.remote_ip = protocol.remote_ip

    @property
    def length_unknown(self) -> bool:
        """Whether the body ends with its connection."""
        return self._parser.length_unknown

    async def read(self) -> bytes:
        """Return what has arrived of the body."""
        return await self._protocol.body(self._parser)

    def close(self) -> None:
        """Give the connection back if it can be used again, and close it otherwise."""
        if self._protocol.finished(self._parser):
            self._connection.release()
        else:
            self._connection.close()


class SessionExchange:
    """Requests made by ``ClientSession.request``."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Send the request through every layer of aiohttp's client."""
        _check_line(f"{hop.method} {hop.url}")
        _fields(hop.headers)
        lane = hop.lane or USUAL_LANE
        # aiohttp only sends those of a proxy with CONNECT.
        headers = [*hop.headers, *lane.proxy_headers] if _is_forwarded(hop, lane) else hop.headers
        data: Any = _payload(hop.body)
        if hop.upload is not None:
            await hop.upload.measure()
            headers, data = [*headers, ("Content-Length", str(hop.upload.size))], hop.upload.blocks(trace.taken)
        try:
            response = await self._session.request(
                hop.method,
                URL(hop.url, encoded=True),
                headers=headers,
                data=data,
                allow_redirects=False,
                ssl=True if lane.tls is None else lane.tls,
                proxy=lane.proxy,
                proxy_headers=dict(lane.proxy_headers) or None,
                timeout=hop.timeout,
                trace_request_ctx=trace,
            )
        except Exception as error:
            if hop.upload is not None and hop.upload.failure is not None:
                raise hop.upload.failure from error
            raise fetch_error(error, hop.url, trace) from error
        if response.status == _SWITCHING:
            response.close()
            raise _switched()
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
        # Not ``response.connection``, which is gone already if the whole body came with the head.
        self.remote_ip = _remote_ip(getattr(response, "_protocol", None))
        self.length_unknown = not (
            "Content-Length" in response.headers or "Transfer-Encoding" in response.headers or response.content.at_eof()
        )

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


def _is_forwarded(hop: Hop, lane: Lane) -> bool:
    return lane.forwarding and hop.url.startswith("http://")


def _payload(body: bytes | None) -> bytes | BytesIO | None:
    """Return the body as aiohttp wants it, which warns of many bytes at once."""
    return BytesIO(body) if body is not None and len(body) >= _LARGE_BODY else body


def _end_of_origin(url: str) -> int:
    """Return where the scheme and authority of an absolute URL end."""
    start = url.index("://") + 3
    end = url.find("/", start)
    query = url.find("?", start)
    if end < 0 or 0 <= query < end:
        end = query
    return end if end >= 0 else len(url)


def _check_line(line: str) -> None:
    if not (line.isascii() and line.isprintable() and line.count(" ") == 1):
        message = "a space, a control character or another alphabet in the method or the URL"
        raise FetchError(ErrorKind.INVALID_URL, message, sent=False)


def _fields(headers: list[Header]) -> tuple[bytes, bool]:
    """Return header lines, and whether Host is one of them. Raises FetchError if they would be others."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers) or "\0" in text:
        raise FetchError(ErrorKind.INVALID_ROW, "a header contains CR, LF or NUL", sent=False)
    return text.encode("utf-8"), any(name.lower() == "host" for name, _ in headers)


def _decoded(raw: tuple[tuple[bytes, bytes], ...]) -> list[Header]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


def _switched() -> FetchError:
    return FetchError(ErrorKind.BAD_HTTP, "the server switched protocols without being asked")


def _remote_ip(protocol: ResponseHandler | None) -> str | None:
    return protocol.remote_ip if isinstance(protocol, PooledConnection) else None
