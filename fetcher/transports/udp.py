"""udp: send a datagram, wait for one answer, send it again if none comes.

    job -> address -> socket of its own -> datagram, again after 1, 2, 4 s -> datagram -> body

The socket is connected, so that the system lets through what comes from that address and port, and nothing else. It is
that of one job alone: what comes too late for it finds nobody, and can not be taken for the answer to another.
"""

from __future__ import annotations

import asyncio
import errno
import time
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Response, Timings
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.sockets.watched import METHOD, SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from aiohttp.abc import ResolveResult

    from fetcher.model import Header, Job
    from fetcher.transports.bodies.reading import BodyReader
    from fetcher.transports.dialing import Dialer
    from fetcher.transports.http.session import HttpSession
    from fetcher.transports.sockets.watched import SocketFetch
    from fetcher.transports.watchdog import Watch

# More than a datagram can hold (RFC 768), so that none is ever cut off unseen.
_LONGEST = 65_536


class UdpConfig(Settings):
    """How udp URLs are fetched. Names and guard are those of ``http``."""

    timeout: Annotated[Duration, Field(gt=0)] = 1.0
    """How long to wait for an answer to the first datagram; twice as long for one to the second, and so on."""
    tries: int = Field(default=3, ge=1, le=10)
    """How often a datagram is sent before the attempt has failed (kind ``read_timeout``)."""

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> UdpTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return UdpTransport(self, request, body, session)


class UdpTransport(SocketTransport):
    """Fetches udp URLs."""

    schemes: Sequence[str] = ("udp",)

    def __init__(self, config: UdpConfig, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
        super().__init__(request, body, session)
        self._config = config

    def begin(self, job: Job, watch: Watch) -> SocketFetch:
        """Return the fetch of a job, not yet run."""
        return _Fetch(job, watch, self._config, self.timeout.connect)


class _Fetch:
    """The fetch of one job. ``response`` is there once there is a socket."""

    def __init__(self, job: Job, watch: Watch, config: UdpConfig, within: float) -> None:
        self._job = job
        self._watch = watch
        self._config = config
        self._within = within
        self._socket: socket.socket | None = None
        self._address: ResolveResult | None = None
        self.response: Response | None = None

    async def run(self, dialer: Dialer, bodies: BodyReader) -> Response:
        """Send, and wait for the answer. Raises FetchError."""
        job, url, trace = self._job, URL(self._job.url), HopTrace(self._watch)
        started = time.perf_counter()
        found = await dialer.resolve(job.url, url.raw_host or "", url.port or 0, trace, within=self._within)
        response = self.response = Response(
            status=None, method=METHOD, final_url=job.url, headers=[], timings=Timings(trace.dns)
        )
        try:
            data = await self._ask(dialer, found, response)
        except ConnectionRefusedError:
            message = f"nobody listens at {url.host}:{url.port} (ICMP port unreachable)"
            raise FetchError(ErrorKind.CONNECT_REFUSED, message) from None
        except OSError as error:
            raise fetch_error(error, job.url, trace) from error
        response.timings.first_byte = round(time.perf_counter() - started, 6)
        await bodies.read(_Datagram(data), response, self._watch, job)
        return response

    async def _ask(self, dialer: Dialer, found: list[ResolveResult], response: Response) -> bytes:
        """Send the datagram as often as may be, to each address in turn. Raises FetchError or OSError."""
        patience, tries, silences = self._config.timeout, self._config.tries, 0
        while silences < tries:
            address = found[silences % len(found)]
            response.remote_ip = address["host"]
            try:
                sock = await self._socket_to(dialer, address)
                data = await self._answer(sock, patience * 2**silences)
            except OSError:
                found = [other for other in found if other is not address]
                if not found:
                    raise
                continue
            if data is not None:
                return data
            silences += 1
        datagrams = "1 datagram" if tries == 1 else f"{tries} datagrams"
        raise FetchError(ErrorKind.READ_TIMEOUT, f"no answer to {datagrams} within {patience * (2**tries - 1):g} s")

    async def _socket_to(self, dialer: Dialer, address: ResolveResult) -> socket.socket:
        """Return the socket, another one if it leads elsewhere. A late answer to an earlier try is an answer."""
        if self._socket is None or self._address is not address:
            self.close()
            self._socket, self._address = await dialer.datagrams(address), address
        return self._socket

    async def _answer(self, sock: socket.socket, patience: float) -> bytes | None:
        """Send the datagram, and return what comes within so many seconds, None if nothing does."""
        _send(sock, self._job.body or b"")
        self._watch.resume()
        try:
            async with asyncio.timeout(patience):
                return await asyncio.get_running_loop().sock_recv(sock, _LONGEST)
        except TimeoutError:
            return None

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        if not isinstance(error, FetchError):
            return error
        # A datagram may arrive twice in any case, so whoever takes some has to cope with that.
        error.sent = False
        error.response = self.response
        return error

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Datagram:
    """An answer that is there already."""

    status: int | None = None
    headers: Sequence[Header] = ()
    fields: Mapping[str, str] = {}
    length_unknown = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        """Return the whole of it, then nothing."""
        data, self._data = self._data, b""
        return data


def _send(sock: socket.socket, payload: bytes) -> None:
    try:
        sock.send(payload)
    except BlockingIOError:
        return  # there is no room for it here, which is one of the places where a datagram may get lost
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        message = f"its body of {len(payload)} bytes does not fit into a datagram, which holds 65,507 at most"
        raise FetchError(ErrorKind.INVALID_ROW, message) from None
