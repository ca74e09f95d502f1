"""A server at every address of this machine at once, on one port, that notes at which of them somebody came in."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from raw_server import ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Doors:
    """``entered`` counts connections by the address that was connected to; ``hosts`` has the Host of each request."""

    def __init__(self, port: int, answer: Callable[[bytes], bytes]) -> None:
        self.port = port
        self.entered: Counter[str] = Counter()
        self.hosts: list[str] = []
        self.answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        self.entered[address.removeprefix("::ffff:")] += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.hosts += [line[6:].decode() for line in head.split(b"\r\n") if line[:6].lower() == b"host: "]
                writer.write(self.answer(head))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.close()


@asynccontextmanager
async def open_doors(answer: Callable[[bytes], bytes] = lambda _: ok()) -> AsyncIterator[Doors]:
    """Answer each request, given its head, until the block ends."""
    listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    doors = Doors(listening.getsockname()[1], answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(doors.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, sock=listening)
    try:
        yield doors
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
