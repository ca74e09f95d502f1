"""Names to addresses: first the config's own map, like curl's ``--resolve``, then the DNS.

The DNS is asked by c-ares, on a thread and sockets of its own: a slow name server holds up its own names, and nothing
waits behind work on files or databases. Names of ``/etc/hosts`` come first there, as everywhere.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import aiodns.error
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.errors import ErrorKind, FetchError
from fetcher.settings import Duration, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_SERVER = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
_MAX_PORT = 65_535


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    port = "" if match is None else match[2] or match[4] or "53"
    if match is None or not _is_address(match[1] or match[3] or match[5]) or not 0 < int(port) <= _MAX_PORT:
        words = "should be the IP address of a name server, with a port if it is not 53: 10.0.0.53 or 127.0.0.1:5353"
        raise PydanticCustomError("name_server", words)
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class DnsSettings(Settings):
    """How names are resolved. All of it together takes no longer than ``request.timeout.connect``."""

    servers: list[Annotated[str, AfterValidator(_server)]] = Field(default=[], max_length=16)
    """Name servers to ask instead of the system's, one after another: an IP address, with a port if it is not 53."""
    timeout: Annotated[Duration, Field(gt=0)] = 3.0
    """How long the first answer of a name server may take; the next try waits for twice as long."""
    tries: int = Field(default=2, ge=1, le=10)
    """How often each name server is asked."""
    cache: Annotated[Duration, Field(le=3600)] = 10.0
    """How long an answer is used again. An address is checked by the guard each time, whether or not it is cached."""


def _need_file() -> None:
    """Raise OSError if there is no file left to open, which c-ares reports as if no name server were there."""
    socket.socket().close()


class MappingResolver(AbstractResolver):
    """Resolves names that match a pattern to a fixed address, and asks c-ares for the others."""

    def __init__(self, addresses: Mapping[str, str], dns: DnsSettings | None = None) -> None:
        self._addresses = {pattern.lower(): address for pattern, address in addresses.items()}
        dns = DnsSettings() if dns is None else dns
        self._dns = AsyncResolver(nameservers=dns.servers, timeout=dns.timeout, tries=dns.tries)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError if it has none, FetchError if it can not be a name.

        The error of the system where c-ares had no file to ask with.
        """
        address = self._mapped(host.lower().rstrip("."))
        if address is None:
            return await self._ask(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Release the DNS channel."""
        await self._dns.close()

    async def _ask(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        try:
            return await self._dns.resolve(host, port, family)
        except OSError as error:
            reason = error.__cause__
            code = reason.args[0] if isinstance(reason, aiodns.error.DNSError) else None
            if code == aiodns.error.ARES_EBADNAME:
                message = f"{host[:253]!r} is not a name that the DNS could have (RFC 1035)"
                raise FetchError(ErrorKind.INVALID_URL, message, sent=False) from error
            if code == aiodns.error.ARES_ECONNREFUSED:
                _need_file()
            raise

    def _mapped(self, host: str) -> str | None:
        exact = self._addresses.get(host)
        if exact is not None:
            return exact
        return next((to for pattern, to in self._addresses.items() if fnmatchcase(host, pattern)), None)
