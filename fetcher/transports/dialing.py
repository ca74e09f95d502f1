"""Connections to servers that do not speak http: by the same names, guard and certificates as those that do.

    host -> resolver -> guard -> fastest address -> socket -> TLS

Whatever way there is to be wrong before the first byte is told in the same kinds and words as for http.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohappyeyeballs
import msgspec
from aiohttp import ClientConnectorDNSError
from aiohttp.client_reqrep import ConnectionKey

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.faults import fetch_error

if TYPE_CHECKING:
    import ssl

    from aiohttp.abc import ResolveResult

    from fetcher.outbound import CheckedConnector
    from fetcher.transports.http.proxies.proxying import Proxies
    from fetcher.transports.http.tls import TlsContexts
    from fetcher.transports.http.tracing import HopTrace

_ATTEMPT_DELAY = 0.25  # between two addresses, RFC 8305
_BUFFER = 64 * 1024


class Stream(msgspec.Struct):
    """An open connection. ``verified`` is False if any certificate was taken, ``remote_ip`` whom it leads to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    remote_ip: str | None
    verified: bool = True

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on with TLS on it. Raises what ``StreamWriter.start_tls`` raises."""
        await self.writer.start_tls(context, server_hostname=host)

    def abort(self) -> None:
        """Close it at once, and whatever is still to be written is lost."""
        self.writer.transport.abort()


class Dialer:
    """Opens connections for transports that have no pool of their own. It lives as long as the connector."""

    def __init__(self, connector: CheckedConnector, tls: TlsContexts, proxies: Proxies | None) -> None:
        self._connector = connector
        self._tls = tls
        self._proxies = proxies

    def tls(self, verify: bool | None) -> tuple[ssl.SSLContext, bool]:  # noqa: FBT001  a job has it so
        """Return the context for a job's ``verify``, and whether it checks certificates."""
        lane = self._tls.lane(verify)
        return (self._tls.usual, True) if lane is None or lane.tls is None else (lane.tls, lane.verified)

    async def addresses(self, url: str, host: str, port: int, trace: HopTrace) -> list[ResolveResult]:
        """Return the addresses that a host may be reached at. Raises FetchError if there is none."""
        self._check_direct(url, host)
        try:
            return await self._connector.addresses(host, port, [trace])
        except OSError as error:
            key = ConnectionKey(
                host, port, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
            )
            wrapped = ClientConnectorDNSError(key, error)
            wrapped.__cause__ = error
            raise fetch_error(wrapped, url, trace) from error

    async def connect(
        self, url: str, host: str, port: int, trace: HopTrace, *, within: float, tls: ssl.SSLContext | None = None
    ) -> Stream:
        """Open a connection within so many seconds, with TLS if there is a context. Raises FetchError."""
        await trace.send_connection_create_start()
        try:
            async with asyncio.timeout(within):
                stream = await self._open(url, host, port, trace, tls)
        except (OSError, EOFError) as error:
            raise fetch_error(error, url, trace) from error
        await trace.send_connection_create_end()
        return stream

    async def connect_beside(self, stream: Stream, url: str, port: int, trace: HopTrace, *, within: float) -> Stream:
        """Open another connection to where ``stream`` leads, within so many seconds. Raises FetchError.

        Whoever answered there is asked again, by no name that might mean another place by now. The port is the
        server's own choice, so it is not held to those that a URL may name; the address is, once more.
        """
        await trace.send_connection_create_start()
        family = socket.AF_INET6 if ":" in (stream.remote_ip or "") else socket.AF_INET
        found = ResolveResult(
            hostname=stream.remote_ip or "", host=stream.remote_ip or "", port=port, family=family, proto=0, flags=0
        )
        try:
            async with asyncio.timeout(within):
                beside = await self._reach([found], None, "")
        except (OSError, EOFError) as error:
            raise fetch_error(error, url, trace) from error
        await trace.send_connection_create_end()
        return beside

    async def _open(self, url: str, host: str, port: int, trace: HopTrace, tls: ssl.SSLContext | None) -> Stream:
        return await self._reach(await self.addresses(url, host, port, trace), tls, host)

    async def _reach(self, found: list[ResolveResult], tls: ssl.SSLContext | None, host: str) -> Stream:
        infos = self._connector.infos(found)
        sock = await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=_ATTEMPT_DELAY, interleave=1, socket_factory=self._connector.new_socket
        )
        try:
            remote_ip = sock.getpeername()[0]
            name = host.rstrip(".") if tls is not None else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=_BUFFER)
        except BaseException:
            sock.close()
            raise
        return Stream(reader, writer, remote_ip)

    def _check_direct(self, url: str, host: str) -> None:
        """Refuse to go round the proxies of the config without having been told to."""
        if self._proxies is not None and self._proxies.rotation("https", host) is not None:
            scheme = url.partition(":")[0]
            message = f"{scheme}: URLs do not go by http.proxy; name {host} in http.proxy.no_proxy to fetch it directly"
            raise FetchError(ErrorKind.BLOCKED, message, sent=False)
