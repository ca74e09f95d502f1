"""Every way to fetch, in one place: what the contract suite and the integration tests are run over."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fetcher.errors import FetchError
from fetcher.model import Job
from fetcher.settings import BodySettings, RequestSettings
from fetcher.transports.http.transport import HttpConfig, HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from fetcher.interfaces import Transport

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


def _http(exchange: str) -> Callable[..., AbstractAsyncContextManager[Transport]]:
    def make(**sections: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(exchange, **sections)

    return make


TRANSPORTS: dict[str, Callable[..., AbstractAsyncContextManager[Transport]]] = {
    f"http-{exchange}": _http(exchange) for exchange in HTTP_EXCHANGES
}
"""Name -> a context manager that takes the config sections ``request`` and ``body``, and opens."""


def job(url: str, **fields: Any) -> Job:
    """Return a job for a URL."""
    return Job(id="test", url=url, host="127.0.0.1", **fields)


async def failure(transport: Transport, wanted: Job) -> FetchError:
    """Fetch a job that has to fail, and return what it failed by."""
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value
