"""Connections that only lead where a guard lets them, for all that makes requests: transports and sinks.

    name -> resolver -> addresses -> guard -> socket to one of them -> guard, the last word

The guard is asked at every connect, about the addresses that are connected to, so that it does not matter how they were
come by: a literal, an entry of ``resolve``, the DNS cache, a redirect, or a name that means another address than it
meant a moment ago. A connection that is kept for reuse leads where it led when it was opened.

Through a proxy, the name of the target is resolved and checked here before the proxy hears of it, and the proxy's own
address is checked like any other. What remains: a proxy that is given a name resolves it again, and may be told
something else. Where that matters, hand it an address (SOCKS), or let the proxy have a guard of its own.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectorDNSError, ClientConnectorError, ClientResponseError, ClientSession, TCPConnector

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohappyeyeballs import AddrInfoType
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.abc import ResolveResult
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from fetcher.guard import Guard

    SocketFactory = Callable[[Any], socket.socket]


class _UncheckedAddressError(PermissionError):
    """A socket was asked for to an address that the guard refuses."""


def new_socket(address: Any) -> socket.socket:
    """Create a socket for an address as ``getaddrinfo`` returns it."""
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


class CheckedConnector(TCPConnector):
    """Opens connections to what its guard allows, and to anything if it has none.

    What is refused raises FetchError of kind ``blocked`` before a packet is sent. Overrides what is not public in
    aiohttp; ``tests/faults/test_guard.py`` fails if it changes.
    """

    def __init__(
        self, guard: Guard | None = None, *, socket_factory: SocketFactory = new_socket, **options: Any
    ) -> None:
        self._guard = guard
        self._new_socket = socket_factory
        self._keepers: list[Callable[[], None]] = []
        factory = socket_factory if guard is None else self._checked_socket
        super().__init__(socket_factory=factory, **options)

    async def check_target(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[str]:
        """Return the allowed addresses of a host that is about to be reached through somebody else.

        Raises FetchError of kind ``blocked`` if there is none, OSError if the host has no address at all. Without a
        guard nothing is resolved, and the list is empty.
        """
        if self._guard is None:
            return []
        self._check_port(host, port)
        return [found["host"] for found in await self._resolve_host(host, port, traces)]

    async def addresses(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """Return the allowed addresses of a host that is about to be connected to by other means.

        Raises FetchError of kind ``blocked`` if there is none, OSError if the host has no address at all.
        """
        self._check_port(host, port)
        return await self._resolve_host(host, port, traces)

    def infos(self, found: Sequence[ResolveResult]) -> list[AddrInfoType]:
        """Return addresses as those who connect want them."""
        return self._convert_hosts_to_addr_infos(list(found))

    def new_socket(self, address: Any) -> socket.socket:
        """Create a socket to what ``addresses`` returned. Raises PermissionError if the guard refuses it."""
        factory: Any = self._socket_factory
        return factory(address)  # type: ignore[no-any-return]

    def keeps(self, give_up: Callable[[], None]) -> Callable[[], None]:
        """Have ``give_up`` called when files are wanted, by whoever keeps some; return what ends that."""
        self._keepers.append(give_up)
        return lambda: self._keepers.remove(give_up)

    def make_room(self) -> None:
        """Have given up what is not in use, for whoever finds no file to open."""
        for give_up in self._keepers:
            give_up()

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """Return the addresses of a host, from wherever, that may be connected to."""
        found = await super()._resolve_host(host, port, traces)
        if self._guard is None:
            return found
        refusals = [self._guard.refusal(one["host"]) for one in found]
        allowed = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not allowed:
            raise _blocked(host, next(filter(None, refusals), "it has no address"))
        return allowed

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109  aiohttp's
    ) -> ResponseHandler:
        if self._guard is not None:
            await self._check_request(req, traces)
        try:
            return await super()._create_connection(req, traces, timeout)
        except ClientConnectorError as error:
            if isinstance(error.os_error, _UncheckedAddressError):
                raise _blocked(req.host, str(error.os_error)) from error
            raise

    async def _check_request(self, req: ClientRequest, traces: list[Trace]) -> None:
        host = req.url.raw_host or ""
        port = req.port or 0
        if req.proxy is None:
            self._check_port(host, port)
            return
        try:
            await self.check_target(host, port, traces)
        except OSError as error:
            raise ClientConnectorDNSError(req.connection_key, error) from error

    def _check_port(self, host: str, port: int) -> None:
        refusal = None if self._guard is None else self._guard.port_refusal(port)
        if refusal is not None:
            raise _blocked(host, refusal)

    def _checked_socket(self, address: Any) -> socket.socket:
        """Create a socket, unless the address that it will be connected to came past the check of names."""
        refusal = None if self._guard is None else self._guard.refusal(address[4][0])
        if refusal is not None:
            raise _UncheckedAddressError(refusal)
        return self._new_socket(address)


def guarded_session(guard: Guard, **options: Any) -> ClientSession:
    """Return a session, to be closed by the caller, whose every connection the guard has allowed.

    For sinks and whatever else talks http to an address that somebody gave. Redirects are followed as usual, each
    checked. A blocked request raises FetchError of kind ``blocked``. ``options`` are those of ``ClientSession`` but for
    the connector; proxies of the environment are not used.
    """
    return ClientSession(connector=CheckedConnector(guard), trust_env=False, **options)


def reason_of(error: BaseException) -> str:
    """Return what a client's error says, without the URL that it may quote, whose query may hold a key."""
    text = error.message if isinstance(error, ClientResponseError) else str(error)
    return " ".join(text.replace("^", "").split()) or type(error).__name__


def _blocked(host: str, refusal: str) -> FetchError:
    message = refusal if refusal.startswith(f"{host} ") else f"{host[:253]}: {refusal}"
    return FetchError(ErrorKind.BLOCKED, message, sent=False)
