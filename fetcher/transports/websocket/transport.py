"""ws and wss: a handshake, a message if the job has one to send, and those that are waited for.

    job -> handshake over a connection of the session -> refused? -> kind http_...
                                                      -> message -> messages -> body -> close

The connections are those of http, with its guard, names, certificates and proxies (by a tunnel), and are closed after
each job. Redirects are not followed: a message is for the server that the job names.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING, Annotated, Literal, Self

import aiohttp
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, FetchError
from fetcher.model import Receive
from fetcher.settings import BodySettings, ByteSize, RequestSettings, Settings
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.http.credentials.authentication import AuthenticatingExchange, AuthEntry
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.fields import merged
from fetcher.transports.watchdog import Watched
from fetcher.transports.websocket.fetch import Means, WebSocketFetch
from fetcher.transports.websocket.handshake import handshake_headers
from fetcher.transports.websocket.receiving import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Job, Response
    from fetcher.transports.http.exchange import Exchange
    from fetcher.transports.http.session import HttpSession
    from fetcher.transports.watchdog import Watch

_TOKEN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"  # noqa: S105  RFC 9110, section 5.6.2


class WebSocketConfig(Settings):
    """How ws and wss URLs are fetched. What is about connections (``guard``, ``tls``, ``proxy``) is in ``http``."""

    messages: int | None = Field(default=None, ge=1)
    """How many messages a job waits for that does not say so itself; 1 if nothing else ends it. With ``until`` or
    ``matches`` no more than so many, and the job fails (``body_incomplete``) if none of them is the one."""
    until: str | None = None
    """A JMESPath condition: the first message that is JSON and meets it is the last, as in ``type == 'done'``."""
    matches: str | None = None
    """A pattern (RE2): the first message that it is found in is the last."""
    payload: Literal["auto", "text", "binary"] = "auto"
    """What kind of message a job's body is sent as; ``auto`` is text if it is UTF-8."""
    subprotocols: list[Annotated[str, Field(pattern=_TOKEN)]] = Field(default=[])
    """Offered to the server (``Sec-WebSocket-Protocol``), the best first; a job's own header goes before."""
    compress: bool = False
    """``true`` offers permessage-deflate (RFC 7692)."""
    max_message_size: Annotated[ByteSize, Field(ge=1)] = 16 * 1024 * 1024
    """A longer message, decompressed, is kind ``body_too_large``, whatever ``body.overflow`` says."""
    user_agent: str = Field(default="fetcher/0.1", pattern=r"^[^\r\n\x00]*$")
    """Sent with every handshake that does not set its own."""
    auth: list[AuthEntry] = Field(default=[])
    """Credentials for hosts, as in ``http.auth``; ``insecure: true`` is for those of ws."""

    @model_validator(mode="after")
    def _can_be_waited_for(self) -> Self:
        try:
            Wanted(self.receive())
        except ConfigError as error:
            raise PydanticCustomError("receive", "{words}", {"words": str(error)}) from None
        return self

    def receive(self) -> Receive:
        """Return what is waited for by jobs that say nothing of it."""
        return Receive(messages=self.messages, until=self.until, matches=self.matches)

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> WebSocketTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return WebSocketTransport(self, request, body, session)


class WebSocketTransport(Watched):
    """Fetches ws and wss URLs."""

    schemes: Sequence[str] = ("ws", "wss")

    def __init__(
        self, config: WebSocketConfig, request: RequestSettings, body: BodySettings, session: HttpSession
    ) -> None:
        self._config = config
        self._request = request
        self._body = body
        self._session = session
        self._usual = merged(list(request.headers.items()), [("User-Agent", config.user_agent)])
        connect = request.timeout.connect
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect)
        super().__init__(request)
        self._means: Means | None = None
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Get ready. Raises ConfigError if bodies can not be stored where they should be."""
        store = await self._session.bodies.open(self._body)
        if store is not None:
            self._opened.push_async_callback(self._session.bodies.close, store)
        most, bound = self._config.max_message_size, "websocket.max_message_size"
        if self._body.overflow == "fail" and self._body.max_size < most:
            most, bound = self._body.max_size, "body.max_size"
        exchange, bodies = await self._authenticated(self._session.upgrading()), BodyReader(self._body, store)
        config = self._config
        self._means = Means(
            exchange,
            bodies,
            self._body,
            config.receive(),
            compress=config.compress,
            payload=config.payload,
            most=most,
            bound=bound,
        )

    async def _authenticated(self, exchange: Exchange) -> Exchange:
        if not self._config.auth:
            return exchange
        lane, tokens = self._session.lane(None), self._session.exchange(self._usual)
        layer = AuthenticatingExchange(exchange, self._config.auth, tokens=tokens, timeout=self._timeout, lane=lane)
        self._opened.push_async_callback(layer.close)
        await layer.open()
        return layer

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        self._watchdog.close()
        self._means = None
        await self._opened.aclose()

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job. Raises FetchError if the messages that it waits for could not be had."""
        if self._means is None:
            raise RuntimeError("the transport is not open")
        hop, timeout = self._hop(job), self._request.timeout
        watch = self._watchdog.start(job.timeout or timeout.total, timeout.read, job, within)
        fetch = WebSocketFetch(self._means, job, watch)
        try:
            response = await self._watched(fetch, hop, watch)
            if not response.truncated:
                # It has what was asked for: how the web socket is closed can cost no more than the connection.
                await fetch.goodbye()
        finally:
            fetch.close()
        return response

    async def _watched(self, fetch: WebSocketFetch, hop: Hop, watch: Watch) -> Response:
        try:
            return await fetch.run(hop)
        except (asyncio.CancelledError, FetchError) as error:
            raise fetch.told(watch.judged(error)) from error.__cause__
        finally:
            self._watchdog.stop(watch)

    def _hop(self, job: Job) -> Hop:
        headers = handshake_headers(job.headers, self._usual, self._config.subprotocols)
        # A handshake is a request of http or https (RFC 6455, section 4.1).
        return Hop("GET", f"http{job.url[2:]}", headers, None, self._timeout, self._session.lane(job.verify))
