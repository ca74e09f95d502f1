"""When each phase of opening a connection began and ended, for one hop."""

from __future__ import annotations

import ssl
import time
from contextvars import ContextVar
from typing import Any

from aiohttp.tracing import Trace

_now = time.perf_counter


class HopTrace(Trace):
    """Receives the connector's signals directly, without the signal machinery of a session.

    ``reused`` tells whether the connection came from the pool; ``sent`` whether there was a connection to send on.
    Times are in seconds on the performance counter.
    """

    # On the class, not the instance: most hops reuse a connection and set one of them.
    reused = False
    sent = False
    dns_started: float | None = None
    dns_ended: float | None = None
    connect_started: float | None = None
    tls_started: float | None = None
    connect_ended: float | None = None

    def __init__(self) -> None:
        """Start with nothing: the base class would only store a session that there is not."""

    async def send_connection_reuseconn(self) -> None:
        """Note that no connection had to be opened."""
        self.reused = self.sent = True

    async def send_connection_create_start(self) -> None:
        """Note the start of resolving and connecting; from here on a handshake belongs to this hop."""
        current_trace.set(self)
        self.connect_started = _now()

    async def send_connection_create_end(self) -> None:
        """Note that the connection, TLS included, is ready."""
        self.connect_ended = _now()
        self.sent = True

    async def send_dns_resolvehost_start(self, host: str) -> None:
        """Note the start of a name resolution."""
        self.dns_started = _now()

    async def send_dns_resolvehost_end(self, host: str) -> None:
        """Note its end."""
        self.dns_ended = _now()

    async def send_dns_cache_hit(self, host: str) -> None:
        """Ignore: a name from the cache took no time."""

    async def send_dns_cache_miss(self, host: str) -> None:
        """Ignore: the resolution that follows is noted."""

    async def send_connection_queued_start(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    async def send_connection_queued_end(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    @property
    def dns(self) -> float | None:
        """Seconds spent on name resolution, if there was one."""
        return _between(self.dns_started, self.dns_ended)

    @property
    def connect(self) -> float | None:
        """Seconds spent on opening the TCP connection, if one was opened."""
        return _between(self.dns_ended or self.connect_started, self.tls_started or self.connect_ended)

    @property
    def tls(self) -> float | None:
        """Seconds spent on the TLS handshake, if there was one."""
        return _between(self.tls_started, self.connect_ended)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 6)


current_trace: ContextVar[Any] = ContextVar("current_trace", default=None)


class TracedContext(ssl.SSLContext):
    """An SSLContext that notes when a handshake begins, which is when TCP has been connected."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake on a memory BIO, as every asyncio transport does."""
        trace = current_trace.get()
        if trace is not None:
            trace.tls_started = _now()
        return super().wrap_bio(*args, **kwargs)


def traced_context() -> TracedContext:
    """Return a context with the system's trust store, verification on, and TLS 1.2 as the least."""
    context = TracedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context
