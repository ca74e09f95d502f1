"""http and https: from a job to a response, over one shared ``aiohttp.ClientSession``.

    job -> hop -> exchange -> head -> redirect? -> another hop
                                  -> body: counted, decoded, capped, hashed

Concurrency is bounded by the engine; the connector has no limit of its own, so that no request's timeout is
ever spent on waiting for a slot.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

import aiohttp
from pydantic import Field, field_validator

from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.model import Header, Job, Redirect, Response, Timings
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings
from fetcher.transports.http.connector import GuardedConnector
from fetcher.transports.http.decoding import ACCEPT_ENCODING, decoder_for
from fetcher.transports.http.exchange import (
    MAX_FIELD,
    MAX_HEADERS,
    Answer,
    ConnectionExchange,
    Exchange,
    Hop,
    SessionExchange,
)
from fetcher.transports.http.fields import merged, printable
from fetcher.transports.http.redirects import REDIRECTS, follow, shown_location
from fetcher.transports.http.resolver import MappingResolver
from fetcher.transports.http.tracing import HopTrace, session_tracing, traced_context
from fetcher.transports.watchdog import Watch, Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DRAINED = 64 * 1024


class HttpConfig(Settings):
    """How http and https URLs are fetched."""

    user_agent: str = Field(default="fetcher/0.1", pattern=r"^[^\r\n\x00]*$")
    """Sent with every request that does not set its own."""
    resolve: dict[str, str] = Field(default={})
    """Host names or patterns (``*.test``) to the IP address to connect to instead of asking the DNS."""
    exchange: Literal["connection", "session"] = "connection"
    """``connection`` writes requests straight onto the session's pooled connections, which costs less than
    half of what ``session`` does; ``session`` goes through every layer of aiohttp's client."""
    keep_alive: Duration = Field(default=15.0)
    """How long an idle connection is kept for reuse."""
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""

    @field_validator("resolve")
    @classmethod
    def _addresses(cls, value: dict[str, str]) -> dict[str, str]:
        for host, address in value.items():
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"{host!r} should map to an IP address, not {address!r}") from None
        return value

    def build(self, request: RequestSettings, body: BodySettings) -> HttpTransport:
        """Return the transport, not yet open."""
        return HttpTransport(self, request, body)


class _Body(NamedTuple):
    """A body after decoding. ``content`` is None unless it is kept; ``wire_size`` counts what travelled."""

    content: bytes | None
    size: int
    wire_size: int
    sha256: str
    truncated: bool


class HttpTransport:
    """Fetches http and https URLs."""

    schemes: Sequence[str] = ("http", "https")

    def __init__(self, config: HttpConfig, request: RequestSettings, body: BodySettings) -> None:
        self._config = config
        self._request = request
        self._body = body
        self._method = request.method.upper()
        self._headers = _with_defaults(list(request.headers.items()), config.user_agent)
        connect = request.timeout.connect
        # Reading is timed by the watchdog, so that a request costs no timer.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        self._watchdog = Watchdog()
        self._resolver: MappingResolver | None = None
        self._session: aiohttp.ClientSession | None = None
        self._exchange: Exchange | None = None

    async def open(self) -> None:
        """Create the session that all requests share."""
        try:
            context = traced_context(self._config.ca_file)
        except OSError as error:
            raise ConfigError(f"http.ca_file {self._config.ca_file!r} can not be used: {error}") from error
        by_session = self._config.exchange == "session"
        self._resolver = MappingResolver(self._config.resolve)
        connector = GuardedConnector(
            limit=0,
            ssl=context,
            resolver=self._resolver,
            keepalive_timeout=self._config.keep_alive,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
            trace_configs=[session_tracing()] if by_session else None,
        )
        self._exchange = (
            SessionExchange(self._session) if by_session else ConnectionExchange(self._session, self._headers)
        )

    async def close(self) -> None:
        """Close every connection."""
        self._watchdog.close()
        self._exchange = None
        session, self._session = self._session, None
        resolver, self._resolver = self._resolver, None
        if session is not None:
            await session.close()
        if resolver is not None:
            await resolver.close()

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job over all its redirects. Raises FetchError if no whole response could be had."""
        timeout = self._request.timeout
        limit = job.timeout or timeout.total
        watch = self._watchdog.start(min(limit, within), timeout.read)
        try:
            return await self._follow(job, watch)
        except asyncio.CancelledError:
            raise watch.verdict(ErrorKind.DEADLINE if within < limit else ErrorKind.TOTAL_TIMEOUT) from None
        finally:
            self._watchdog.stop(watch)

    async def _follow(self, job: Job, watch: Watch) -> Response:
        headers = merged(job.headers, self._headers) if job.headers else self._headers
        hop = Hop(job.method or self._method, job.url, headers, job.body, self._timeout)
        redirects: list[Redirect] = []
        while True:
            started = time.perf_counter()
            trace = HopTrace(watch)
            try:
                answer = await self._send(hop, trace)
            except FetchError as error:
                # Of a request that was redirected, bytes have left, wherever the redirect led.
                error.sent = error.sent or bool(redirects)
                raise
            watch.progress()
            try:
                location = answer.fields.get("Location") if answer.status in REDIRECTS else None
                if location is None or not self._request.max_redirects:
                    first_byte = round(time.perf_counter() - started, 6)
                    timings = Timings(trace.dns, trace.connect, trace.tls, first_byte)
                    return await self._receive(hop, answer, redirects, timings, watch)
                hop = self._next(hop, answer, location, redirects)
                await _drain(answer, watch)
            finally:
                answer.close()

    def _next(self, hop: Hop, answer: Answer, location: str, redirects: list[Redirect]) -> Hop:
        """Return the hop that a redirect asks for, and note the one that is done."""
        shown = shown_location(location)
        if len(redirects) >= self._request.max_redirects:
            message = f"more than {self._request.max_redirects} redirects, the last to {shown[:200]}"
            raise FetchError(ErrorKind.TOO_MANY_REDIRECTS, message, status=answer.status)
        redirects.append(Redirect(hop.url, answer.status, shown))
        return follow(hop, answer.status, location)

    async def _send(self, hop: Hop, trace: HopTrace) -> Answer:
        if self._exchange is None:
            raise RuntimeError("the transport is not open")
        return await self._exchange.send(hop, trace)

    async def _receive(
        self, hop: Hop, answer: Answer, redirects: list[Redirect], timings: Timings, watch: Watch
    ) -> Response:
        body = await self._read(answer, watch)
        fields = answer.fields
        length = fields.get("Content-Length")
        return Response(
            status=answer.status,
            method=hop.method,
            final_url=hop.url,
            headers=answer.headers,
            body=body.content,
            body_size=body.size,
            wire_size=body.wire_size,
            truncated=body.truncated,
            content_type=printable(fields.get("Content-Type")),
            content_length=int(length) if length and length.isascii() and length.isdigit() else None,
            sha256=body.sha256,
            http_version=answer.http_version,
            remote_ip=answer.remote_ip,
            redirects=redirects,
            timings=timings,
        )

    async def _read(self, answer: Answer, watch: Watch) -> _Body:
        """Read and decode the body up to the cap. Pieces that nobody wants are hashed and let go."""
        cap, keep = self._body.max_size, self._body.store == "inline"
        decoder = decoder_for(answer.fields.get("Content-Encoding"))
        digest = hashlib.sha256()
        pieces: list[bytes] = []
        size = wire_size = 0
        truncated = False
        while not truncated and (chunk := await answer.read()):
            watch.progress()
            wire_size += len(chunk)
            piece = chunk if decoder is None else decoder.feed(chunk, cap - size)
            if len(piece) > cap - size:
                if self._body.overflow == "fail":
                    message = f"longer than body.max_size ({cap} bytes)"
                    raise FetchError(ErrorKind.BODY_TOO_LARGE, message, status=answer.status)
                piece, truncated = piece[: cap - size], True
            size += len(piece)
            digest.update(piece)
            if keep:
                pieces.append(piece)
        if decoder is not None and wire_size and not truncated:
            decoder.finish()
        content = (pieces[0] if len(pieces) == 1 else b"".join(pieces)) if keep else None
        return _Body(content, size, wire_size, digest.hexdigest(), truncated)


async def _drain(answer: Answer, watch: Watch) -> None:
    """Read a short body that nobody wants, so that its connection can be used again."""
    read = 0
    # Whether it is whole does not matter: where the redirect leads is known.
    with suppress(FetchError):
        while read <= _MOST_DRAINED and (chunk := await answer.read()):
            watch.progress()
            read += len(chunk)


def _with_defaults(headers: list[Header], user_agent: str) -> list[Header]:
    return merged(headers, [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", ACCEPT_ENCODING)])
