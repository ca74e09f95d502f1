"""When each phase of opening a connection began and ended, for one hop."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aiohttp import TraceConfig
from aiohttp.tracing import Trace

from fetcher.transports.watchdog import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import SimpleNamespace

    from fetcher.transports.watchdog import Watch

_now = time.perf_counter
_FIRST_BYTE = Phase.FIRST_BYTE  # looked up once: it is set for every hop


class HopTrace(Trace):
    """Receives the connector's signals directly, without the signal machinery of a session.

    ``reused``: the connection came from the pool. ``connected``: there is a connection now. ``sent``: there
    was one at some time, on which request bytes may have left. Times are seconds of the performance counter.
    ``held``: for how many seconds the request was not allowed to begin yet.
    """

    # On the class, not the instance: most hops reuse a connection and set few of them.
    reused = False
    connected = False
    sent = False
    held = 0.0
    # Requests that were sent once more, to answer what the first was answered with.
    resent = 0
    dns_started: float | None = None
    connect_started: float | None = None
    tls_started: float | None = None
    connect_ended: float | None = None
    # The URL of the proxy that is being connected to, or asked for a way: what fails meanwhile is its fault.
    at_proxy: str | None = None

    def __init__(self, watch: Watch | None = None) -> None:
        """Start with nothing: the base class would only store a session that there is not."""
        self._watch = watch

    @contextmanager
    def hold(self, phase: Phase) -> Iterator[None]:
        """Wait within the block for something that is not charged to this request."""
        started = _now()
        if self._watch is not None:
            self._watch.hold(phase)
        try:
            yield
        finally:
            self.held += _now() - started
            if self._watch is not None:
                self._watch.release()

    def taken(self) -> None:
        """Note that the server took more of a long request."""
        if self._watch is not None:
            self._watch.progress()

    async def send_connection_reuseconn(self) -> None:
        """Note that no connection had to be opened."""
        self.reused = self.connected = self.sent = True
        if self._watch is not None:
            self._watch.phase = _FIRST_BYTE

    async def send_connection_create_start(self) -> None:
        """Note the start of resolving and connecting, which the connector times by itself."""
        # From here on a handshake belongs to this hop.
        current_trace.set(self)
        self.reused = self.connected = False
        if self._watch is not None:
            self._watch.pause()
            self._watch.phase = Phase.CONNECT

    async def send_connection_create_end(self) -> None:
        """Note that the connection, TLS included, is ready."""
        self.connect_ended = _now()
        self.connected = self.sent = True
        if self._watch is not None:
            self._watch.resume()

    async def send_dns_resolvehost_start(self, host: str) -> None:  # noqa: ARG002
        """Note the start of a name resolution."""
        self._enter_dns()

    async def send_dns_cache_hit(self, host: str) -> None:  # noqa: ARG002
        """Note the same: this is also said when the wait for somebody else's resolution begins."""
        self._enter_dns()

    async def send_dns_resolvehost_end(self, host: str) -> None:
        """Ignore: resolution has ended when connecting starts."""

    async def send_dns_cache_miss(self, host: str) -> None:
        """Ignore: the resolution that follows is noted."""

    async def send_connection_queued_start(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    async def send_connection_queued_end(self) -> None:
        """Ignore: the connector has no limit to wait for."""

    def _enter_dns(self) -> None:
        self.dns_started = _now()
        if self._watch is not None:
            self._watch.phase = Phase.DNS

    def enter_connect(self) -> None:
        """Note that the first of the addresses is now connected to."""
        if self.connect_started is None:
            self.connect_started = _now()
            if self._watch is not None:
                self._watch.phase = Phase.CONNECT

    def enter_tls(self) -> None:
        """Note that a handshake begins, which is when TCP has been connected."""
        self.tls_started = _now()
        if self._watch is not None:
            self._watch.phase = Phase.TLS

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
    if trace is not None:
        trace.enter_connect()
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


class TracedContext(ssl.SSLContext):
    """An SSLContext that notes when a handshake begins, which is when TCP has been connected."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake on a memory BIO, as every asyncio transport does."""
        trace = current_trace.get()
        if trace is not None:
            trace.enter_tls()
        return super().wrap_bio(*args, **kwargs)


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
