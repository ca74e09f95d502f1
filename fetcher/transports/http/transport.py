"""http and https: from a job to a response, over one shared ``aiohttp.ClientSession``.

    job -> hop -> exchange -> head -> redirect? -> another hop
                                  -> body: counted, decoded, capped, hashed

The connections are those of an ``HttpSession``; all that belongs to one batch is here: default headers, timeouts,
redirects, bodies, cache, cookies, credentials, robots.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import aiohttp
from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import FetchError
from fetcher.guard import GuardSwitch
from fetcher.model import method_with_body
from fetcher.references import is_private
from fetcher.settings import BodySettings, ByteSize, Duration, RequestSettings, Settings, switch
from fetcher.transports.bodies.decoding import ACCEPT_ENCODING
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.http.caching.cache import Cache, CacheSettings
from fetcher.transports.http.caching.recall import Recall
from fetcher.transports.http.caching.sharing import Sharing
from fetcher.transports.http.credentials.api_key import following
from fetcher.transports.http.credentials.authentication import AuthenticatingExchange, AuthEntry
from fetcher.transports.http.credentials.cookies import CookieExchange
from fetcher.transports.http.exchange import Exchange, Hop, Lane
from fetcher.transports.http.fetch import Fetch, Means
from fetcher.transports.http.fields import merged
from fetcher.transports.http.proxies.proxying import ProxySection
from fetcher.transports.http.redirects import RedirectedHop, redirect_policy
from fetcher.transports.http.resolver import DnsSettings
from fetcher.transports.http.robots.obeying import RobotsExchange
from fetcher.transports.http.session import HttpSession
from fetcher.transports.http.tls import TlsSettings
from fetcher.transports.http.uploads import Upload
from fetcher.transports.watchdog import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.model import Header, Job, Response
    from fetcher.transports.bodies.storing import BodyStore

_NOWHERE = "about:blank"
"""What no URL is of the same origin as."""


def _cache(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


class HttpConfig(Settings):
    """How http and https URLs are fetched."""

    PER_BATCH: ClassVar[frozenset[str]] = frozenset(
        {"user_agent", "auth", "cookies", "robots", "robots_timeout", "cache"}
    )
    """What each of several batches may have of its own, though they share a session. Nothing of it is about
    connections."""

    user_agent: str = Field(default="fetcher/0.1", pattern=r"^[^\r\n\x00]*$")
    """Sent with every request that does not set its own."""
    resolve: dict[str, str] = Field(default={})
    """Host names or patterns (``*.test``) to the IP address to connect to instead of asking the DNS."""
    dns: DnsSettings = DnsSettings()
    """How the names of hosts are resolved."""
    guard: GuardSwitch = None
    """``true`` lets requests reach public addresses only (kind ``blocked`` otherwise); a mapping says what else."""
    exchange: Literal["connection", "session"] = "connection"
    """``connection`` writes requests straight onto the session's pooled connections, which costs less than
    half of what ``session`` does; ``session`` goes through every layer of aiohttp's client."""
    max_header_size: ByteSize = 256 * 1024
    """All header fields of a response together; more is kind ``headers_too_large``."""
    max_headers: int = Field(default=256, ge=1)
    """Header fields of a response."""
    keep_alive: Duration = Field(default=15.0)
    """How long an idle connection is kept for reuse."""
    tls: TlsSettings = TlsSettings()
    """How the other end of a TLS connection is checked, and what it is shown."""
    proxy: ProxySection = None
    """By which proxies requests go: a URL, a list of them, or a mapping. ``env`` is those of the environment."""
    auth: list[AuthEntry] = Field(default=[])
    """Credentials for hosts, of which the first entry that names a host counts."""
    cookies: bool = False
    """``true`` keeps the cookies that are set in this batch, and sends them back. They are gone with it."""

    robots: Annotated[Literal["ignore", "obey"], switch("obey", "ignore")] = "ignore"
    """``obey`` asks the robots.txt of an origin before each request, redirects included, under the name that
    ``user_agent`` begins with, and keeps to its Crawl-delay. What it does not allow ends as ``skipped``, and so does
    everything of an origin that has one which can not be had (RFC 9309)."""
    robots_timeout: Annotated[Duration, Field(gt=0)] = 15.0
    """One try to get a robots.txt, redirects and all; there are three. No request's own time is used up by it."""

    cache: Annotated[
        CacheSettings | None, BeforeValidator(_cache, json_schema_input_type=CacheSettings | bool | None)
    ] = None
    """Asks for bodies that an earlier run fetched only if they have changed (ETag, Last-Modified); ``true`` keeps what
    that takes in ``state/cache.db``. An answer of 304 becomes an ``ok`` record with the earlier body.

    What may be for one user alone is neither kept nor used: requests with Authorization, Cookie, Proxy-Authorization,
    a Host of their own or a header of ``request.secret_headers`` (name every other one there that stands for a user),
    those to hosts of ``http.auth``, all with ``http.cookies``, and https with ``http.tls.client_cert``. Nor is what
    came over connections without ``verify``."""

    @model_validator(mode="after")
    def _socks_is_not_for_sessions(self) -> Self:
        if self.exchange == "session" and self.proxy is not None and self.proxy.has_socks:
            raise PydanticCustomError("exchange", "exchange: session can not use SOCKS proxies; leave it out")
        return self

    @field_validator("resolve")
    @classmethod
    def _addresses(cls, value: dict[str, str]) -> dict[str, str]:
        for host, address in value.items():
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"{host!r} should map to an IP address, not {address!r}") from None
        return value

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession | None = None) -> HttpTransport:
        """Return the transport, not yet open: over connections of its own, or over those of a session."""
        return HttpTransport(self, request, body, session)

    def following(self) -> Callable[[str], str] | None:
        """Return what has references of answers followed without the API keys of ``auth``, None if there are none.

        It raises BadReferenceError for one that can not be.
        """
        return following(self.auth)

    def session(self) -> HttpSession:
        """Return connections that several transports can share, not yet open."""
        return HttpSession(self)


class HttpTransport(Watched):
    """Fetches http and https URLs. A session that it is given is open before it, and outlives it."""

    schemes: Sequence[str] = ("http", "https")

    def __init__(
        self, config: HttpConfig, request: RequestSettings, body: BodySettings, session: HttpSession | None = None
    ) -> None:
        self._config = config
        self._request = request
        self._body = body
        self._method = request.method.upper()
        self._method_with_body = method_with_body(self._method)
        # What is decoded can not be gone on with in the middle.
        codings = "identity" if body.range == "resume" else ACCEPT_ENCODING
        self._headers = _with_defaults(list(request.headers.items()), config.user_agent, codings)
        connect = request.timeout.connect
        # Reading is timed by the watchdog, so that a request costs no timer.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        self._is_own = session is None
        self._session = HttpSession(config) if session is None else session
        self._lane: Lane | None = None
        super().__init__(request)
        self._means: Means | None = None
        self._robots: RobotsExchange | None = None
        self._authenticating: AuthenticatingExchange | None = None
        self._opened = AsyncExitStack()

    def check(self) -> None:
        """Raise ConfigError if a file of ``http.tls`` can not be used, or what the environment says of proxies."""
        if self._is_own:
            self._session.check()

    async def open(self) -> None:
        """Get ready. Raises ConfigError if a file of ``http.tls`` can not be used, StateError if the cache can not."""
        store, cache = await self._open_storage()
        if self._is_own:
            self._opened.push_async_callback(self._session.close)
            await self._session.open()
        self._lane = self._session.lane(None)
        self._means = Means(
            self._layered(self._session.exchange(self._headers)),
            BodyReader(self._body, store),
            redirect_policy(self._request),
            Recall(self._body, store, cache, self._sharing()) if cache or self._body.range == "resume" else None,
        )
        if self._authenticating is not None:
            await self._authenticating.open()

    def _sharing(self) -> Sharing:
        """Return what knows which answers the cache may keep and give."""
        hosts = [host for entry in self._config.auth for host in entry.hosts]
        private = redirect_policy(self._request).private
        return Sharing(private, hosts, cookies=self._config.cookies, certificate=self._session.shows_certificate)

    async def _open_storage(self) -> tuple[BodyStore | None, Cache | None]:
        """Open what keeps bodies, and what knows those of earlier runs, if they are switched on."""
        cache = None
        store = await self._session.bodies.open(self._body)
        if store is not None:
            self._opened.push_async_callback(self._session.bodies.close, store)
        if self._config.cache is not None:
            cache = Cache(Path(self._config.cache.path))
            self._opened.push_async_callback(cache.close)
            await cache.open()
        return store, cache

    def _layered(self, exchange: Exchange) -> Exchange:
        """Put around the exchange what is switched on. It works per hop, so that redirects are covered."""
        tokens = exchange
        if self._config.robots == "obey":
            # Who asks for a robots.txt is nobody in particular, but goes the same way.
            agent = next(value for name, value in self._headers if name.lower() == "user-agent")
            policy = redirect_policy(self._request)
            exchange = self._robots = RobotsExchange(exchange, agent, policy, self._config.robots_timeout)
            self._opened.push_async_callback(self._robots.close)
        if self._config.cookies:
            exchange = CookieExchange(exchange)
        if self._config.auth:
            exchange = AuthenticatingExchange(
                exchange, self._config.auth, tokens=tokens, timeout=self._timeout, lane=self._lane
            )
            self._authenticating = exchange
            self._opened.push_async_callback(exchange.close)
        return exchange

    async def close(self) -> None:
        """Close every connection that is its own, and what was opened before them after them."""
        self._watchdog.close()
        self._means = None
        await self._opened.aclose()

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job over all its redirects. Raises FetchError if no whole response could be had."""
        timeout = self._request.timeout
        limit = job.timeout or timeout.total
        if self._means is None:
            raise RuntimeError("the transport is not open")
        hop = self._first_hop(job)
        watch = self._watchdog.start(limit, timeout.read, job, within)
        fetch = Fetch(self._means, job, watch)
        try:
            return await fetch.run(hop)
        except (asyncio.CancelledError, FetchError) as error:
            raise fetch.told(watch.judged(error)) from error.__cause__
        finally:
            self._watchdog.stop(watch)
            if self._robots is not None and fetch.response is not None:
                fetch.response.crawl_delay = self._robots.crawl_delay(hop)

    def _first_hop(self, job: Job) -> Hop:
        own = job.headers
        if job.checksum is not None:
            # It is most likely that of the file, whose codings might be taken off otherwise.
            own = merged(own, [("Accept-Encoding", "identity")])
        upload = None
        if job.parts is not None:
            upload = Upload(job.parts, self._request.upload_dir)
            own = merged([("Content-Type", upload.content_type)], own)
        headers = merged(own, self._headers) if own else self._headers
        lane = self._lane if job.verify is None else self._session.lane(job.verify)
        has_body = job.body is not None or upload is not None
        method = job.method or (self._method_with_body if has_body else self._method)
        hop = Hop(method, job.url, headers, job.body, self._timeout, lane, upload)
        return self._foreign(hop) if job.foreign else hop

    def _foreign(self, hop: Hop) -> Hop:
        """Return the hop of a job whose URL an answer of another origin has named: like one that it redirects to."""
        private = redirect_policy(self._request).private
        headers = [header for header in hop.headers if not is_private(header, private)]
        return RedirectedHop(hop.method, hop.url, headers, hop.body, hop.timeout, hop.lane, hop.upload, first=_NOWHERE)


def _with_defaults(headers: list[Header], user_agent: str, codings: str) -> list[Header]:
    return merged(headers, [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", codings)])
