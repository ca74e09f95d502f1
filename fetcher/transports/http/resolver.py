"""Names to addresses: first the config's own map, like curl's ``--resolve``, then the DNS."""

from __future__ import annotations

import socket
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

if TYPE_CHECKING:
    from collections.abc import Mapping


class MappingResolver(AbstractResolver):
    """Resolves names that match a pattern to a fixed address, and asks c-ares for the others."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = {pattern.lower(): address for pattern, address in addresses.items()}
        # c-ares does not use threads: a slow name server waits for nothing, and holds up only its own names.
        self._dns = AsyncResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError if it has none."""
        address = self._mapped(host.lower().rstrip("."))
        if address is None:
            return await self._dns.resolve(host, port, family)
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

    def _mapped(self, host: str) -> str | None:
        exact = self._addresses.get(host)
        if exact is not None:
            return exact
        return next((to for pattern, to in self._addresses.items() if fnmatchcase(host, pattern)), None)
