"""Connections to servers that do not speak http: by the same names, guard and certificates as those that do.

    host -> resolver -> guard -> fastest address -> socket -> TLS

Whatever way there is to be wrong before the first byte is told in the same kinds and words as for http.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohappyeyeballs
import msgspec
from aiohttp import ClientConnectorDNSError
from aiohttp.abc import ResolveResult
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.faults import fetch_error

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from fetcher.outbound import CheckedConnector
    from fetcher.transports.http.proxies.proxying import Proxies
    from fetcher.transports.http.tls import TlsContexts
    from fetcher.transports.http.tracing import HopTrace

_ATTEMPT_DELAY = 0.25  # between two addresses, RFC 8305
_BUFFER = 64 * 1024
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_TRIES_WITHOUT_FILES = 12
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_NOT_ITS_OWN = 86_400.0  # seconds for a handshake, which those for connecting are counted for


class Stream(msgspec.Struct):
    """An open connection. ``verified`` is False if any certificate was taken, ``remote_ip`` whom it leads to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    remote_ip: str | None
    verified: bool = True

    @property
    def unread(self) -> bool:
        """Whether bytes have arrived that nobody has read; ``tests/faults/test_ftp.py`` fails if asyncio changes it."""
        return bool(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001  not public

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on with TLS on it. Raises what ``StreamWriter.start_tls`` raises.

        What was ``unread`` before stays so, and looks as if it had come by TLS: whoever asks for TLS looks first.
        """
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

    def keeps(self, give_up: Callable[[], None]) -> Callable[[], None]:
        """Have ``give_up`` called when files are wanted, by whoever keeps some; return what ends that."""
        return self._connector.keeps(give_up)

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

    async def dial(
        self,
        conversation: asyncio.Protocol,
        url: str,
        host: str,
        port: int,
        trace: HopTrace,
        *,
        within: float,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        """Do the same for a protocol of the caller's own; return the address that it leads to."""
        await trace.send_connection_create_start()
        try:
            async with asyncio.timeout(within):
                sock = await self._connected(await self.addresses(url, host, port, trace))
                _, remote_ip = await _handed_over(sock, conversation, tls, host)
        except (OSError, EOFError) as error:
            raise fetch_error(error, url, trace) from error
        await trace.send_connection_create_end()
        return remote_ip

    async def resolve(self, url: str, host: str, port: int, trace: HopTrace, *, within: float) -> list[ResolveResult]:
        """Return where datagrams may be sent, for which nothing has to be opened. Raises FetchError."""
        await trace.send_connection_create_start()
        try:
            async with asyncio.timeout(within):
                found = await self.addresses(url, host, port, trace)
        except TimeoutError as error:
            raise fetch_error(error, url, trace) from error
        trace.enter_connect()
        return found

    async def datagrams(self, address: ResolveResult) -> socket.socket:
        """Return a socket for datagrams to and from an address, to be closed by the caller. Raises OSError."""
        return await self._with_files(partial(self._datagrams, address))

    async def _datagrams(self, address: ResolveResult) -> socket.socket:
        ((family, _, _, _, where),) = self._connector.infos([address])
        sock = self._connector.new_socket((family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", where))
        try:
            sock.setblocking(False)  # noqa: FBT003  its only argument
            sock.connect(where)
        except BaseException:
            sock.close()
            raise
        return sock

    async def connect_beside(self, stream: Stream, url: str, port: int, trace: HopTrace, *, within: float) -> Stream:
        """Open another connection to where ``stream`` leads, within so many seconds. Raises FetchError.

        Whoever answered there is asked again, by no name that might mean another place by now. The port is the
        server's own choice, so it is not held to those that a URL may name; the address is, once more.
        """
        await trace.send_connection_create_start()
        address = stream.remote_ip or ""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        found = ResolveResult(hostname=address, host=address, port=port, family=family, proto=0, flags=0)
        try:
            async with asyncio.timeout(within):
                beside = await self._reach([found], None, "")
        except (OSError, EOFError) as error:
            raise fetch_error(error, str(URL(url, encoded=True).with_port(port)), trace) from error
        await trace.send_connection_create_end()
        return beside

    async def _open(self, url: str, host: str, port: int, trace: HopTrace, tls: ssl.SSLContext | None) -> Stream:
        return await self._reach(await self.addresses(url, host, port, trace), tls, host)

    async def _reach(self, found: list[ResolveResult], tls: ssl.SSLContext | None, host: str) -> Stream:
        sock = await self._connected(found)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_BUFFER, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, remote_ip = await _handed_over(sock, protocol, tls, host)
        return Stream(reader, asyncio.StreamWriter(transport, protocol, reader, loop), remote_ip)

    async def _connected(self, found: list[ResolveResult]) -> socket.socket:
        """Connect to the one of some addresses that answers first."""
        connect = partial(
            aiohappyeyeballs.start_connection,
            self._connector.infos(found),
            happy_eyeballs_delay=_ATTEMPT_DELAY,
            interleave=1,
            socket_factory=self._connector.new_socket,
        )
        return await self._with_files(connect)

    async def _with_files(self, connect: Callable[[], Awaitable[socket.socket]]) -> socket.socket:
        """Connect. Without a file to be had, wait for one, as the pool does."""
        pause = _FIRST_PAUSE
        for _ in range(_TRIES_WITHOUT_FILES):
            try:
                return await connect()
            except OSError as error:
                if error.errno not in _NO_FILES:
                    raise
            self._connector.make_room()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return await connect()

    def _check_direct(self, url: str, host: str) -> None:
        """Refuse to go round the proxies of the config without having been told to."""
        if self._proxies is not None and self._proxies.rotation("https", host) is not None:
            scheme = url.partition(":")[0]
            message = f"{scheme}: URLs do not go by http.proxy; name {host} in http.proxy.no_proxy to fetch it directly"
            raise FetchError(ErrorKind.BLOCKED, message, sent=False)


async def _handed_over(
    sock: socket.socket, protocol: asyncio.Protocol, tls: ssl.SSLContext | None, host: str
) -> tuple[asyncio.WriteTransport, str]:
    """Hand a connected socket to the event loop, with TLS if there is a context; return whom it leads to as well."""
    options: dict[str, Any] = {}
    if tls is not None:
        options = {"ssl": tls, "server_hostname": host.rstrip("."), "ssl_handshake_timeout": _NOT_ITS_OWN}
    try:
        remote_ip = sock.getpeername()[0]
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock, **options)
    except BaseException:
        sock.close()
        raise
    return transport, remote_ip
