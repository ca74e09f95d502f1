"""udp: each datagram is answered by one, or by none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from raw_server import unused_port

from fetcher.errors import ErrorKind
from transport_partners import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Reply = Callable[[bytes], bytes | None]


class DatagramServer(Server, asyncio.DatagramProtocol):
    """``reply`` returns what is sent back for a datagram, None for nothing."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("udp")
        self._reply = reply

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.contacts += 1
        self.asked += 1
        if (answer := self._reply(data)) is not None:
            self._transport.sendto(answer, addr)

    def fields(self, number: int) -> dict[str, Any]:
        return {"method": "SEND", "body": str(number).encode()}


class _WithDeadEnds(DatagramServer):
    """Sends one job in ten to a port where nobody listens."""

    dead_end = 0

    def job(self, number: int = 0, **fields: Any) -> Any:
        asked = super().job(number, **fields)
        if number % 10 == 1:
            asked.url = f"udp://127.0.0.1:{self.dead_end}"
        return asked


class DatagramPartner:
    scheme = "udp"
    lacks = frozenset({"drip", "endless", "reset"})
    jobs = 2000
    failures = frozenset({ErrorKind.READ_TIMEOUT, ErrorKind.CONNECT_REFUSED})
    http: ClassVar[dict[str, Any]] = {}

    def answer(self, size: int) -> AbstractAsyncContextManager[Server]:
        return serving_datagrams(DatagramServer(lambda _: b"x" * size))

    def own(self) -> AbstractAsyncContextManager[Server]:
        return serving_datagrams(DatagramServer(lambda data: data))

    def stall(self) -> AbstractAsyncContextManager[Server]:
        return serving_datagrams(DatagramServer(lambda _: None))

    def mixed(self) -> AbstractAsyncContextManager[Server]:
        server = _WithDeadEnds(lambda data: b"x" * 100 if int(data) % 50 else None)
        server.dead_end = unused_port()
        return serving_datagrams(server)


@asynccontextmanager
async def serving_datagrams(
    server: DatagramServer, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[DatagramServer]:
    """Let it listen until the block ends."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(host, port))
    try:
        yield server
    finally:
        transport.close()
        await asyncio.sleep(0)
