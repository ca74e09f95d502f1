"""A server of byte streams: each connection is served by a coroutine, so many at once, and each for so long."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 64 * 1024
LONGEST_LINE = 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server gives to whoever asks: a test server must not be a way to use a machine up."""

    connections: int = 256
    seconds: float = 300.0  # of one connection
    bytes: int = 64 * 1024 * 1024  # that one connection is sent


class OverLimitError(ConnectionError):
    """A connection has been sent as much as it may be sent."""


class Stream:
    """One connection. Whatever it raises means that it is over: its server expects ConnectionError and EOFError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._reader = reader
        self._writer = writer
        self._left = limits.bytes

    async def receive(self) -> bytes:
        """Return what has arrived, as much or little as that is; nothing at the end."""
        return await self._reader.read(CHUNK)

    async def line(self) -> bytes:
        """Return the next line without its end, CRLF or LF. Raises ValueError if it is too long, EOFError at the end.

        One read may bring half a line, or three. Those that wait are kept by the reader.
        """
        try:
            return (await self._reader.readuntil(b"\n")).rstrip(b"\r\n")
        except asyncio.LimitOverrunError as error:
            raise ValueError("the line is too long") from error

    async def send(self, data: bytes) -> None:
        """Send all of it; wait while the client takes less than it is sent."""
        self._left -= len(data)
        if self._left < 0:
            raise OverLimitError
        self._writer.write(data)
        await self._writer.drain()

    async def send_slowly(self, data: bytes, pause: float) -> None:
        """Send a byte at a time, each in a segment of its own."""
        for index in range(len(data)):
            await self.send(data[index : index + 1])
            await asyncio.sleep(pause)

    def reset(self) -> None:
        """Reset the connection: no end, and what was not sent yet never will be."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()


Handler = Callable[[Stream], Awaitable[None]]


class StreamServer:
    """Serves connections by a handler until it is closed."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; a port of 0 is a free one."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=LONGEST_LINE)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and drop every connection."""
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._limits.connections:
            writer.transport.abort()
            return
        # Kept: the loop itself holds tasks weakly.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="origin stream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, and close it on every path that leads out of here."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._handler(Stream(reader, writer, self._limits))
                writer.close()
                await writer.wait_closed()
        except (ConnectionError, EOFError, TimeoutError):
            pass  # the client has gone, or has had enough
        finally:
            with suppress(OSError):
                writer.transport.abort()
