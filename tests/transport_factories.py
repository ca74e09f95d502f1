"""Every way to fetch, in one place: what the contract suite and the integration tests are run over.

To have another transport pass the contract suite, add a line to ``WAYS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from transport_partners.datagrams import DatagramPartner
from transport_partners.ftp import FtpPartner
from transport_partners.streams import HttpPartner, StreamPartner
from transport_partners.websocket import WebSocketPartner

from fetcher.errors import FetchError
from fetcher.interfaces import Transport
from fetcher.model import Job
from fetcher.registry import config_class
from fetcher.settings import BodySettings, RequestSettings
from fetcher.transports.http.transport import HttpConfig, HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from transport_partners import Partner

HTTP_EXCHANGES = ("connection", "session")


@asynccontextmanager
async def http_transport(
    exchange: str,
    *,
    request: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    **http: Any,
) -> AsyncIterator[HttpTransport]:
    """Open an http transport; the keywords are the sections of a config."""
    config = HttpConfig.model_validate({"exchange": exchange, **http})
    transport = config.build(RequestSettings.model_validate(request or {}), BodySettings.model_validate(body or {}))
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def _http(exchange: str) -> Factory:
    def make(**sections: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(exchange, **sections)

    return make


Factory = Callable[..., AbstractAsyncContextManager[Transport]]

HTTP_TRANSPORTS: dict[str, Factory] = {f"http-{exchange}": _http(exchange) for exchange in HTTP_EXCHANGES}
"""Name -> a context manager that takes the sections ``request`` and ``body`` of a config, and keys of ``http``."""


@asynccontextmanager
async def socket_transport(
    section: str,
    *,
    request: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    http: dict[str, Any] | None = None,
    **fields: Any,
) -> AsyncIterator[Any]:
    """Open a transport that is not http, over a session of its own; ``fields`` are its own section of a config."""
    session = HttpConfig.model_validate(http or {}).session()
    config: Any = config_class("transports", section).model_validate(fields)
    transport = config.build(
        RequestSettings.model_validate(request or {}), BodySettings.model_validate(body or {}), session
    )
    await session.open()
    try:
        await transport.open()
        yield transport
    finally:
        await transport.close()
        await session.close()


class Way(NamedTuple):
    """A transport, by the name of its section, and somebody to talk to. ``exchange`` is for http alone.

    ``settings`` are those of its section.
    """

    section: str
    partner: Partner
    exchange: str = ""
    settings: Mapping[str, Any] = {}

    def opened(self, http: dict[str, Any] | None = None, **sections: Any) -> AbstractAsyncContextManager[Transport]:
        """Open it, with these sections of a config: ``http``, ``request``, ``body``."""
        http = {**self.partner.http, **(http or {})}
        if self.section == "http":
            return http_transport(self.exchange, **sections, **http)
        return socket_transport(self.section, http=http, **sections, **self.settings)


WAYS: dict[str, Way] = {
    "http-connection": Way("http", HttpPartner(), "connection"),
    "http-session": Way("http", HttpPartner(), "session"),
    "tcp": Way("tcp", StreamPartner("tcp")),
    "tls": Way("tcp", StreamPartner("tls")),
    "udp": Way("udp", DatagramPartner(), settings={"timeout": "300ms", "tries": 2}),
    "ws": Way("websocket", WebSocketPartner("ws")),
    "wss": Way("websocket", WebSocketPartner("wss")),
    "ftp": Way("ftp", FtpPartner("ftp")),
    "ftps": Way("ftp", FtpPartner("ftps")),
}
"""What the contract suite is run over."""


def job(url: str, **fields: Any) -> Job:
    """Return a job for a URL."""
    return Job(id="test", url=url, host="127.0.0.1", **fields)


async def failure(transport: Transport, wanted: Job) -> FetchError:
    """Fetch a job that has to fail, and return what it failed by."""
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value
