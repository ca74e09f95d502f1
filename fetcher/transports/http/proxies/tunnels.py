"""How a proxy is asked for a way to a target: CONNECT (RFC 9110, section 9.3.6) and SOCKS 5 (RFC 1928).

What a proxy answers here is its own word. It becomes an error of a kind ``proxy_...``, without the status, which a
record would show as the target's.
"""

from __future__ import annotations

import re
from asyncio import Protocol
from typing import TYPE_CHECKING

from aiohttp import BasicAuth, ClientProxyConnectionError, ServerDisconnectedError
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio import Proxy as SocksClient

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Mapping

    from aiohttp import ClientRequest
    from yarl import URL

_MOST_HEAD = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: ([^\r\n]*))?\r?\n")
_AUTHENTICATION_REQUIRED = 407
_SUCCESS = range(200, 300)
_LONGEST_REASON = 100
# Who is asked for a way limits how long it may take; this is only to keep the library from limiting it by itself.
_LONGER_THAN_ANY_TIMEOUT = 86_400.0


def shown_proxy(url: URL) -> str:
    """Return a proxy as messages name it; its URL has no user and password here."""
    return str(url).removesuffix("/")


def wants_credentials(proxy: str, *, given: bool) -> FetchError:
    """Return the error for a proxy that asks for credentials, or for others."""
    which = "does not accept the credentials that it was given" if given else "asks for credentials, and there are none"
    return FetchError(ErrorKind.PROXY_AUTH, f"the proxy {proxy} {which}; see http.proxy.username", sent=False)


class _Head(Protocol):
    """Receives the head of one answer; ``arrived`` has its bytes, and whatever came with them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.arrived: asyncio.Future[bytes] = loop.create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if (b"\r\n\r\n" in self._data or len(self._data) > _MOST_HEAD) and not self.arrived.done():
            self.arrived.set_result(self._data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(exc if isinstance(exc, OSError) else ServerDisconnectedError())
            # Whoever waited may have given up.
            self.arrived.exception()


async def ask_for_tunnel(
    transport: asyncio.Transport,
    loop: asyncio.AbstractEventLoop,
    proxy: URL,
    target: str,
    headers: Mapping[str, str],
) -> None:
    """Ask a proxy, to which ``transport`` is connected, to connect to ``target`` (host:port).

    From then on the connection leads there. Raises FetchError if the proxy refuses, OSError or ServerDisconnectedError
    if it goes away.
    """
    answer = _Head(loop)
    transport.set_protocol(answer)
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    transport.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n".encode())
    head, _, more = (await answer.arrived).partition(b"\r\n\r\n")
    line = _STATUS_LINE.match(head + b"\r\n")
    if line is None:
        raise _refused(f"{shown_proxy(proxy)} answered CONNECT with something that is not HTTP")
    status = int(line[1])
    if status == _AUTHENTICATION_REQUIRED:
        raise wants_credentials(shown_proxy(proxy), given=bool(headers))
    if status not in _SUCCESS:
        reason = ascii((line[2] or b"").decode("latin-1"))[1:-1][:_LONGEST_REASON]
        raise _refused(f"{shown_proxy(proxy)} refused a way to {target}: {status} {reason}".rstrip())
    if more:
        # In TLS the client speaks first: what is there already was not said by the target.
        raise _refused(f"{shown_proxy(proxy)} gave a way to {target}, and then sent what nobody had asked for")


async def connect_by_socks(
    req: ClientRequest, address: str, target: tuple[str, int], headers: Mapping[str, str]
) -> socket.socket:
    """Return a socket that leads to ``target`` by the SOCKS proxy of a request, of which ``address`` is the IP.

    ``headers``: the credentials as a proxy of HTTP would be sent them. Raises FetchError if the proxy refuses,
    ClientProxyConnectionError if it can not be reached, ServerDisconnectedError if it goes away.
    """
    proxy = req.proxy
    if proxy is None or proxy.port is None:
        raise RuntimeError("asked for a way by a proxy that there is not")
    given = headers.get("Proxy-Authorization")
    credentials = None if given is None else BasicAuth.decode(given, encoding="utf-8")
    client = SocksClient(
        ProxyType.SOCKS5,
        address,
        proxy.port,
        username=credentials.login if credentials else None,
        password=credentials.password if credentials else None,
        rdns=True,  # what it is given here is not resolved any more: a name is for the proxy to resolve
    )
    try:
        return await client.connect(*target, timeout=_LONGER_THAN_ANY_TIMEOUT)
    except ProxyConnectionError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))
        raise ClientProxyConnectionError(req.connection_key, cause) from error
    except (ProxyError, ProxyTimeoutError) as error:
        raise _of_socks(error, shown_proxy(proxy), target, given=given is not None) from error


def _of_socks(error: Exception, proxy: str, target: tuple[str, int], *, given: bool) -> Exception:
    """Return what a failed exchange with a SOCKS proxy means: a reply has a code, all else is told apart by words."""
    if getattr(error, "error_code", None) is not None:
        return _refused(f"{proxy} refused a way to {target[0]}:{target[1]}: {str(error).lower()}")
    if "authentication" in str(error).lower():
        return wants_credentials(proxy, given=given)
    return ServerDisconnectedError(str(error))


def _refused(what: str) -> FetchError:
    return FetchError(ErrorKind.PROXY_REFUSED, f"the proxy {what}", sent=False)
