"""What http connections have in common, whichever batch uses them: one pool, and all that decides what is in it.

    TLS contexts, proxies (and how they do), resolver, guard -> connector -> aiohttp.ClientSession

A transport has a session of its own, or is given one that several share: then they use each other's connections.
That is safe because a connection is anonymous. Credentials, cookies and headers go with each request, from what each
transport keeps to itself. What a connection does show or trust of its own (client certificate, authorities, ``verify``,
proxy and its credentials) comes from the session's config alone, and connections that differ in it are in lanes of
their own.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp

from fetcher.transports.bodies.stores import BodyStores
from fetcher.transports.dialing import Dialer
from fetcher.transports.http.connector import GuardedConnector
from fetcher.transports.http.exchange import ConnectionExchange, SessionExchange
from fetcher.transports.http.proxies.proxying import Proxies, ProxyingExchange
from fetcher.transports.http.resolver import MappingResolver
from fetcher.transports.http.tls import TlsContexts
from fetcher.transports.http.tracing import session_tracing
from fetcher.transports.http.upgrading import UpgradingExchange
from fetcher.transports.http.wire import Bounds

if TYPE_CHECKING:
    from ssl import SSLContext

    from fetcher.model import Header
    from fetcher.transports.http.exchange import Exchange, Lane
    from fetcher.transports.http.transport import HttpConfig


class HttpSession:
    """The connections of one or several transports: ``open`` before theirs, ``close`` after theirs.

    Of its config, what is about connections counts: ``resolve``, ``dns``, ``guard``, ``exchange``, ``keep_alive``,
    ``max_header_size``, ``max_headers``, ``tls`` and ``proxy``.
    """

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._by_session = config.exchange == "session"
        self._bounds = Bounds(config.max_header_size, config.max_headers)
        self._tls = TlsContexts(config.tls)
        self._plain_tls = TlsContexts(config.tls, ())
        self.proxies: Proxies | None = None
        self.bodies = BodyStores()
        self._connector: GuardedConnector | None = None
        self._client: aiohttp.ClientSession | None = None
        self._opened = AsyncExitStack()

    def check(self) -> None:
        """Raise ConfigError if a file of ``http.tls`` can not be used, or what the environment says of proxies."""
        self._ways()

    async def open(self) -> None:
        """Create the pool. Raises what ``check`` raises."""
        context, self.proxies = self._ways()
        resolver = MappingResolver(self._config.resolve, self._config.dns)
        self._opened.push_async_callback(resolver.close)
        # The engine bounds how much is in flight, so that no request's timeout is ever spent on waiting for a slot.
        self._connector = GuardedConnector(
            limit=0,
            ssl=context,
            proxy_tls=None if self.proxies is None else self._tls.proxy,
            resolver=resolver,
            ttl_dns_cache=self._config.dns.cache,
            guard=None if self._config.guard is None else self._config.guard.build(),
            keepalive_timeout=self._config.keep_alive,
        )
        self._client = aiohttp.ClientSession(
            connector=self._connector,
            auto_decompress=False,
            # What a session would keep, all who share it would send.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=self._bounds.size,
            max_field_size=self._bounds.size,
            max_headers=self._bounds.fields,
            trace_configs=[session_tracing()] if self._by_session else None,
        )
        self._opened.push_async_callback(self._client.close)

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        self._client = self._connector = None
        await self._opened.aclose()

    def exchange(self, usual: list[Header]) -> Exchange:
        """Return a new way to make hops over these connections, by the proxies if there are some.

        ``usual`` are the headers that most of its hops have. Raises RuntimeError if the session is not open.
        """
        if self._client is None:
            raise RuntimeError("the session is not open")
        exchange: Exchange
        if self._by_session:
            exchange = SessionExchange(self._client)
        else:
            exchange = ConnectionExchange(self._client, usual, self._bounds)
        return exchange if self.proxies is None else ProxyingExchange(exchange, self.proxies)

    def upgrading(self) -> Exchange:
        """Return a way to make hops that ask for another protocol, by the proxies if there are some."""
        exchange = UpgradingExchange(self.client, [], self._bounds)
        return exchange if self.proxies is None else ProxyingExchange(exchange, self.proxies, tunnels=True)

    def dialer(self) -> Dialer:
        """Return what opens connections that are not of the pool, by the same names, guard and certificates."""
        return Dialer(self.connector, self._plain_tls, self.proxies)

    @property
    def client(self) -> aiohttp.ClientSession:
        """The session that all of it is about. Raises RuntimeError if it is not open."""
        if self._client is None:
            raise RuntimeError("the session is not open")
        return self._client

    @property
    def connector(self) -> GuardedConnector:
        """The pool. Raises RuntimeError if the session is not open."""
        if self._connector is None:
            raise RuntimeError("the session is not open")
        return self._connector

    @property
    def keep_alive(self) -> float:
        """For how many seconds an idle connection is kept."""
        return self._config.keep_alive

    def lane(self, verify: bool | None) -> Lane | None:  # noqa: FBT001  a job has it so
        """Return the lane for a job's ``verify``; None is the usual one."""
        return self._tls.lane(verify)

    def _ways(self) -> tuple[SSLContext, Proxies | None]:
        """Make what may turn out to be unusable: the TLS context that is usual, and the proxies."""
        self._tls.lane(None)  # kept there
        return self._tls.usual, None if self._config.proxy is None else Proxies(self._config.proxy)

    @property
    def shows_certificate(self) -> bool:
        """Whether servers learn from a client certificate who is asking."""
        return self._config.tls.client_cert is not None
