"""http and https: from a job to a response, over one shared ``aiohttp.ClientSession``.

    job -> hop -> exchange -> head -> redirect? -> another hop
                                  -> body: counted, decoded, capped, hashed

Concurrency is bounded by the engine; the connector has no limit of its own, so that no request's timeout is ever
spent on waiting for a slot.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import time
from typing import TYPE_CHECKING, Literal

import aiohttp
from pydantic import Field, field_validator

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Header, Job, Redirect, Response, Timings
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings
from fetcher.transports.http.decoding import ACCEPT_ENCODING, decoder_for
from fetcher.transports.http.exchange import Answer, ConnectionExchange, Exchange, Hop, SessionExchange
from fetcher.transports.http.redirects import REDIRECTS, follow
from fetcher.transports.http.resolver import MappingResolver
from fetcher.transports.http.tracing import HopTrace, traced_context
from fetcher.transports.watchdog import Watch, Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DRAINED = 64 * 1024
_ESCAPED = re.compile("[\ud800-\udfff]")


class HttpConfig(Settings):
    """How http and https URLs are fetched."""

    user_agent: str = Field(default="fetcher/0.1", pattern=r"^[^\r\n\x00]*$")
    """Sent with every request that does not set its own."""
    resolve: dict[str, str] = {}
    """Host names or patterns (``*.test``) to the IP address to connect to instead of asking the DNS."""
    exchange: Literal["connection", "session"] = "connection"
    """``connection`` writes requests straight onto the session's pooled connections, which costs less than half
    of what ``session`` does; ``session`` goes through every layer of aiohttp's client."""
    keep_alive: Duration = Field(default=15.0)
    """How long an idle connection is kept for reuse."""

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
        self._session: aiohttp.ClientSession | None = None
        self._exchange: Exchange | None = None

    async def open(self) -> None:
        """Create the session that all requests share."""
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=traced_context(),
            resolver=MappingResolver(self._config.resolve),
            keepalive_timeout=self._config.keep_alive,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_field_size=16 * 1024,
            max_headers=256,
        )
        wanted = ConnectionExchange if self._config.exchange == "connection" else SessionExchange
        self._exchange = wanted(self._session)

    async def close(self) -> None:
        """Close every connection."""
        self._watchdog.close()
        if self._session is not None:
            await self._session.close()

    async def fetch(self, job: Job) -> Response:
        """Fetch one job over all its redirects. Raises FetchError if no whole response could be had."""
        timeout = self._request.timeout
        # Until a connection is there the connector's own, shorter, timeout is at work.
        watch = self._watchdog.start(job.timeout or timeout.total, timeout.connect + timeout.read)
        try:
            return await self._follow(job, watch)
        except asyncio.CancelledError:
            raise watch.verdict() from None
        finally:
            self._watchdog.stop(watch)

    async def _follow(self, job: Job, watch: Watch) -> Response:
        headers = _merged(job.headers, self._headers) if job.headers else self._headers
        hop = Hop(job.method or self._method, job.url, headers, job.body, self._timeout)
        redirects: list[Redirect] = []
        started = time.perf_counter()
        while True:
            trace = HopTrace()
            answer = await self._send(hop, trace)
            watch.patience = self._request.timeout.read
            watch.progress()
            try:
                location = answer.fields.get("Location") if answer.status in REDIRECTS else None
                if location is None or not self._request.max_redirects:
                    timings = Timings(trace.dns, trace.connect, trace.tls, round(time.perf_counter() - started, 6))
                    return await self._receive(hop, answer, redirects, timings, watch)
                if len(redirects) >= self._request.max_redirects:
                    raise FetchError(
                        ErrorKind.TOO_MANY_REDIRECTS,
                        f"more than {self._request.max_redirects} redirects, the last to {location[:200]}",
                        status=answer.status,
                    )
                redirects.append(Redirect(hop.url, answer.status, printable(location) or ""))
                hop = follow(hop, answer.status, location)
                await _drain(answer)
            finally:
                answer.close()

    async def _send(self, hop: Hop, trace: HopTrace) -> Answer:
        if self._exchange is None:
            raise RuntimeError("the transport is not open")
        return await self._exchange.send(hop, trace)

    async def _receive(self, hop: Hop, answer: Answer, redirects: list[Redirect], timings: Timings, watch: Watch) -> Response:
        body, wire_size, truncated = await self._read(answer, watch)
        fields = answer.fields
        length = fields.get("Content-Length")
        return Response(
            status=answer.status,
            method=hop.method,
            final_url=hop.url,
            headers=answer.headers,
            body=body if self._body.store == "inline" else None,
            body_size=len(body),
            wire_size=wire_size,
            truncated=truncated,
            content_type=printable(fields.get("Content-Type")),
            content_length=int(length) if length and length.isdecimal() else None,
            sha256=hashlib.sha256(body).hexdigest(),
            http_version=answer.http_version,
            remote_ip=answer.remote_ip,
            redirects=redirects,
            timings=timings,
        )

    async def _read(self, answer: Answer, watch: Watch) -> tuple[bytes, int, bool]:
        """Return the decoded body, how many bytes travelled, and whether it was cut off at the cap."""
        cap = self._body.max_size
        decoder = decoder_for(answer.fields.get("Content-Encoding"))
        pieces: list[bytes] = []
        size = wire_size = 0
        while chunk := await answer.read():
            watch.progress()
            wire_size += len(chunk)
            piece = chunk if decoder is None else decoder.feed(chunk, cap - size)
            size += len(piece)
            pieces.append(piece)
            if size > cap:
                if self._body.overflow == "truncate":
                    return b"".join(pieces)[:cap], wire_size, True
                message = f"longer than body.max_size ({cap} bytes)"
                raise FetchError(ErrorKind.BODY_TOO_LARGE, message, status=answer.status)
        if decoder is not None and wire_size:
            decoder.finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), wire_size, False


async def _drain(answer: Answer) -> None:
    """Read a short body that nobody wants, so that its connection can be used again."""
    read = 0
    while read <= _MOST_DRAINED and (chunk := await answer.read()):
        read += len(chunk)


def printable(value: str | None) -> str | None:
    """Return a header value that can be encoded: bytes that are not UTF-8 become ISO-8859-1."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("latin-1") if _ESCAPED.search(value) else value


def _with_defaults(headers: list[Header], user_agent: str) -> list[Header]:
    defaults = [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", ACCEPT_ENCODING)]
    return _merged(headers, defaults)


def _merged(headers: list[Header], defaults: list[Header]) -> list[Header]:
    given = {name.lower() for name, _ in headers}
    return [*headers, *((name, value) for name, value in defaults if name.lower() not in given)]
