"""When each phase of opening a connection began and ended, for one hop."""

from __future__ import annotations

import socket
import ssl
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aiohttp import TraceConfig
from aiohttp.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import SimpleNamespace

    from fetcher.transports.watchdog import Watch

_now = time.perf_counter


class HopTrace(Trace):
    """Receives the connector's signals directly, without the signal machinery of a session.

    ``reused``: the connection came from the pool. ``connected``: there is a connection now. ``sent``: there
    was one at some time, on which request bytes may have left. Times are seconds of the performance counter.
    """

    # On the class, not the instance: most hops reuse a connection and set few of them.
    reused = False
    connected = False
    sent = False
    dns_started: float | None = None
    connect_started: float | None = None
    tls_started: float | None = None
    connect_ended: float | None = None

    def __init__(self, watch: Watch | None = None) -> None:
        """Start with nothing: the base class would only store a session that there is not."""
        self._watch = watch

    async def send_connection_reuseconn(self) -> None:
        """Note that no connection had to be opened."""
        self.reused = self.connected = self.sent = True

    async def send_connection_create_start(self) -> None:
        """Note the start of resolving and connecting, which the connector times by itself."""
        # From here on a handshake belongs to this hop.
        current_trace.set(self)
        self.reused = self.connected = False
        if self._watch is not None:
            self._watch.pause()

    async def send_connection_create_end(self) -> None:
        """Note that the connection, TLS included, is ready."""
        self.connect_ended = _now()
        self.connected = self.sent = True
        if self._watch is not None:
            self._watch.progress()

    async def send_dns_resolvehost_start(self, host: str) -> None:  # noqa: ARG002
        """Note the start of a name resolution."""
        self.dns_started = _now()

    async def send_dns_cache_hit(self, host: str) -> None:  # noqa: ARG002
        """Note the same: this is also said when the wait for somebody else's resolution begins."""
        self.dns_started = _now()

    async def send_dns_resolvehost_end(self, host: str) -> None:
        """Ignore: resolution has ended when connecting starts."""

    async def send_dns_cache_miss(self, host: str) -> None:
        """Ignore: the resolution that follows is noted."""

    async def send_connection_queued_start(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    async def send_connection_queued_end(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    @property
    def dns(self) -> float | None:
        """Seconds until there was an address; next to nothing for a cached name, None without a name."""
        return _between(self.dns_started, self.connect_started)

    @property
    def connect(self) -> float | None:
        """Seconds spent on opening the TCP connection, if one was opened."""
        return _between(self.connect_started, self.tls_started or self.connect_ended)

    @property
    def tls(self) -> float | None:
        """Seconds spent on the TLS handshake, if there was one."""
        return _between(self.tls_started, self.connect_ended)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 6)


current_trace: ContextVar[HopTrace | None] = ContextVar("current_trace", default=None)


def noting_socket(address: Any) -> socket.socket:
    """Create a socket, and note that its hop now begins to connect."""
    trace = current_trace.get()
    if trace is not None and trace.connect_started is None:
        trace.connect_started = _now()
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


class TracedContext(ssl.SSLContext):
    """An SSLContext that notes when a handshake begins, which is when TCP has been connected."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake on a memory BIO, as every asyncio transport does."""
        trace = current_trace.get()
        if trace is not None:
            trace.tls_started = _now()
        return super().wrap_bio(*args, **kwargs)


def traced_context(ca_file: str | None = None) -> TracedContext:
    """Return a context that trusts ``ca_file`` or the system's store, verifies, and takes TLS 1.2 at least.

    Raises OSError (ssl.SSLError is one) if the file can not be used.
    """
    context = TracedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def session_tracing() -> TraceConfig:
    """Return what passes the signals of a session on to the HopTrace given with each request."""
    factory: Any = _given
    config = TraceConfig(trace_config_ctx_factory=factory)
    config.on_connection_create_start.append(_forward(HopTrace.send_connection_create_start))
    config.on_connection_create_end.append(_forward(HopTrace.send_connection_create_end))
    config.on_connection_reuseconn.append(_forward(HopTrace.send_connection_reuseconn))
    config.on_dns_resolvehost_start.append(_forward(HopTrace.send_dns_resolvehost_start, ""))
    config.on_dns_cache_hit.append(_forward(HopTrace.send_dns_cache_hit, ""))
    return config


def _given(trace_request_ctx: HopTrace) -> HopTrace:
    return trace_request_ctx


def _forward(signal: Callable[..., Awaitable[None]], *args: str) -> Any:
    async def forward(_session: object, trace: HopTrace, _parameters: SimpleNamespace) -> None:
        await signal(trace, *args)

    return forward
