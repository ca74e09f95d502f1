"""A name server on the loopback that answers what a test tells it to, name by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Addresses = Sequence[str]
Script = Callable[[int], Awaitable[Addresses]]
"""Takes how often the name was asked for addresses of one family before, and returns addresses of both."""


class DnsServer(asyncio.DatagramProtocol):
    """Answers from ``names``, case aside; NXDOMAIN for any other. A rcode in place of addresses is a failure.

    ``asked`` counts the queries by name and type, a question that is repeated included.
    """

    def __init__(self) -> None:
        self.names: dict[str, Addresses | Script | int | None] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(DNSRecord.parse(data), addr))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _answer(self, query: DNSRecord, addr: tuple[str, int]) -> None:
        name = str(query.q.qname).rstrip(".").lower()
        kind = QTYPE[query.q.qtype]
        before = self.asked[name, kind]
        self.asked[name, kind] += 1
        given = self.names.get(name, RCODE.NXDOMAIN)
        if given is None:
            return  # silence
        reply = query.reply()
        if isinstance(given, int):
            reply.header.rcode = given
        else:
            for address in await given(before) if callable(given) else given:
                if (kind == "AAAA") == (":" in address):
                    data = AAAA(address) if kind == "AAAA" else A(address)
                    reply.add_answer(RR(query.q.qname, query.q.qtype, ttl=0, rdata=data))
        self._transport.sendto(reply.pack(), addr)

    async def close(self) -> None:
        """Stop. Raises what went wrong while answering: a fault of the test, not of who asked."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._transport.close()
        if self._failures:
            raise self._failures[0]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)


@asynccontextmanager
async def dns_server(**names: Addresses | Script | int | None) -> AsyncIterator[DnsServer]:
    """Serve ``NAME.test`` for each keyword until the block ends: addresses, a script, a rcode, or None for silence."""
    _, server = await asyncio.get_running_loop().create_datagram_endpoint(DnsServer, local_addr=("127.0.0.1", 0))
    server.names = {f"{name}.test": answer for name, answer in names.items()}
    try:
        yield server
    finally:
        await server.close()
