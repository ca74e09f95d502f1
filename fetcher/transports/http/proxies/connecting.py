"""Connections that lead to their target by a proxy.

    target -> guard -> connection to the proxy -> CONNECT or SOCKS -> TLS with the target

A request for http goes to a proxy of HTTP as it is, and takes no more than the connection; one for ws takes a tunnel.
While it is the proxy's turn, the trace of the hop says so: what fails then is the proxy's fault, whatever it looks
like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectorDNSError, ClientProxyConnectionError, ClientRequest

from fetcher.outbound import CheckedConnector
from fetcher.transports.http.proxies.tunnels import ask_for_tunnel, connect_by_socks
from fetcher.transports.http.tracing import current_trace

if TYPE_CHECKING:
    import asyncio
    import ssl

    from aiohttp import ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace
    from yarl import URL

# socks5h leaves the names of targets to the proxy.
_RESOLVED_HERE = "socks5"
# A web socket is no request that a proxy could pass on (RFC 6455, section 4.1).
_TUNNELLED = "ws"
_SOCKS = frozenset({_RESOLVED_HERE, "socks5h"})


class ProxiedConnector(CheckedConnector):
    """Connects by the proxy of a request, if it has one. Overrides what is not public in aiohttp.

    ``proxy_tls``: for connections to proxies, which are not to be trusted less for the sake of a target. What aiohttp
    does by itself uses the target's context, takes the proxy's errors for the target's, and knows no SOCKS.
    """

    def __init__(self, *, proxy_tls: ssl.SSLContext | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._proxy_tls = proxy_tls

    async def _create_proxy_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  aiohttp's
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        if _proxy_of(req).scheme in _SOCKS:
            return await self._by_socks(req, traces, timeout)
        return await self._by_http(req, traces, timeout)

    async def _by_http(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  aiohttp's
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        proxy = _proxy_of(req)
        _note_proxy(proxy)
        to_proxy = self._update_proxy_auth_header_and_build_proxy_req(req)
        transport, protocol = await self._create_direct_connection(
            to_proxy, traces, timeout, client_error=ClientProxyConnectionError
        )
        tunnelled = req.is_ssl() or req.url.scheme == _TUNNELLED
        if tunnelled:
            try:
                await ask_for_tunnel(transport, self._loop, proxy, _authority(req.url), req.proxy_headers or {})
            except BaseException:
                transport.close()
                raise
        _note_proxy(None)
        if not req.is_ssl():
            if tunnelled:
                transport.set_protocol(protocol)
            return transport, protocol
        return await self._start_tls_connection(transport, req=req, timeout=timeout)

    async def _by_socks(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  aiohttp's
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        proxy = _proxy_of(req)
        target = await self._target_for_socks(req, traces)
        _note_proxy(proxy)
        address = (await self._addresses(req, proxy, traces))[0]
        trace = current_trace.get()
        if trace is not None:
            trace.enter_connect()
        sock = await connect_by_socks(req, address, target, req.proxy_headers or {})
        _note_proxy(None)
        context = self._get_ssl_context(req)
        try:
            return await self._wrap_existing_connection(
                self._factory,
                timeout=timeout,
                ssl=context,
                sock=sock,
                server_hostname=(req.url.raw_host or "").rstrip(".") if context is not None else None,
                req=req,
            )
        except BaseException:
            sock.close()
            raise

    async def _target_for_socks(self, req: ClientRequest, traces: list[Trace]) -> tuple[str, int]:
        """Return what the proxy is told: the name for ``socks5h``, unless it was resolved here to be checked.

        Then it must not be resolved once more, by somebody who may be told something else.
        """
        host, port = req.url.raw_host or "", req.port or 0
        checked = await self.check_target(host, port)
        if not checked and _proxy_of(req).scheme == _RESOLVED_HERE:
            # There is one try: an address of IPv6 is of no use to a proxy that has none of its own.
            checked = sorted(await self._addresses(req, req.url, traces), key=lambda address: ":" in address)
        return (checked[0] if checked else host), port

    async def _addresses(self, req: ClientRequest, url: URL, traces: list[Trace]) -> list[str]:
        try:
            return [found["host"] for found in await self._resolve_host(url.raw_host or "", url.port or 0, traces)]
        except OSError as error:
            raise ClientConnectorDNSError(req.connection_key, error) from error

    def _update_proxy_auth_header_and_build_proxy_req(self, req: ClientRequest) -> ClientRequest:
        """Return what the proxy is connected to by. That of aiohttp also writes into the proxy headers of ``req``.

        These are part of the key of its connections, which would not be found again.
        """
        tls = True if self._proxy_tls is None else self._proxy_tls
        return ClientRequest("GET", _proxy_of(req), loop=self._loop, ssl=tls)


def _proxy_of(req: ClientRequest) -> URL:
    if req.proxy is None:
        raise RuntimeError("a request without a proxy was to go by one")
    return req.proxy


def _authority(url: URL) -> str:
    return f"{url.host_subcomponent}:{url.port}"


def _note_proxy(proxy: URL | None) -> None:
    """Note on the trace of the hop that it is now this proxy's turn, or no proxy's."""
    trace = current_trace.get()
    if trace is not None:
        trace.at_proxy = None if proxy is None else str(proxy)
