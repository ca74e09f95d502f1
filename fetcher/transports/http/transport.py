"""http and https: from a job to a response, over one shared ``aiohttp.ClientSession``.

    job -> hop -> exchange -> head -> redirect? -> another hop
                                  -> body: counted, decoded, capped, hashed

Concurrency is bounded by the engine; the connector has no limit of its own, so that no request's timeout is
ever spent on waiting for a slot.
"""

from __future__ import annotations

import asyncio
import ipaddress
from math import inf
from typing import TYPE_CHECKING, Literal

import aiohttp
from pydantic import Field, field_validator

from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings
from fetcher.transports.http.bodies import BodyReader
from fetcher.transports.http.connector import GuardedConnector
from fetcher.transports.http.decoding import ACCEPT_ENCODING
from fetcher.transports.http.exchange import (
    MAX_FIELD,
    MAX_HEADERS,
    ConnectionExchange,
    Exchange,
    Hop,
    SessionExchange,
)
from fetcher.transports.http.fetch import Fetch, Means
from fetcher.transports.http.fields import merged
from fetcher.transports.http.resolver import MappingResolver
from fetcher.transports.http.tracing import session_tracing, traced_context
from fetcher.transports.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header, Job, Response


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


class HttpTransport:
    """Fetches http and https URLs."""

    schemes: Sequence[str] = ("http", "https")

    def __init__(self, config: HttpConfig, request: RequestSettings, body: BodySettings) -> None:
        self._config = config
        self._request = request
        self._bodies = BodyReader(body)
        self._method = request.method.upper()
        self._headers = _with_defaults(list(request.headers.items()), config.user_agent)
        connect = request.timeout.connect
        # Reading is timed by the watchdog, so that a request costs no timer.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        self._watchdog = Watchdog()
        self._resolver: MappingResolver | None = None
        self._session: aiohttp.ClientSession | None = None
        self._means: Means | None = None

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
        exchange = SessionExchange(self._session) if by_session else ConnectionExchange(self._session, self._headers)
        self._means = Means(self._layered(exchange), self._bodies, self._request.max_redirects)

    def _layered(self, exchange: Exchange) -> Exchange:
        """Put around the exchange what is switched on. It works per hop, so that redirects are covered."""
        return exchange

    async def close(self) -> None:
        """Close every connection."""
        self._watchdog.close()
        self._means = None
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
        if self._means is None:
            raise RuntimeError("the transport is not open")
        watch = self._watchdog.start(min(limit, within), timeout.read)
        fetch = Fetch(self._means, job, watch)
        try:
            return await fetch.run(self._first_hop(job))
        except asyncio.CancelledError:
            verdict = watch.verdict(ErrorKind.DEADLINE if within < limit else ErrorKind.TOTAL_TIMEOUT)
            raise fetch.told(verdict) from None
        except FetchError as error:
            fetch.told(error)
            raise
        finally:
            self._watchdog.stop(watch)

    def _first_hop(self, job: Job) -> Hop:
        headers = merged(job.headers, self._headers) if job.headers else self._headers
        return Hop(job.method or self._method, job.url, headers, job.body, self._timeout)


def _with_defaults(headers: list[Header], user_agent: str) -> list[Header]:
    return merged(headers, [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", ACCEPT_ENCODING)])
