"""A server of which one answer in twenty is hostile; every healthy body carries the hash of its URL.

Run as a process: ``python tests/hostile_origin.py ADDRESS...`` listens on one port of each address and prints it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import select
import socket
import struct
import sys
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOSTILE = ("push", "truncated", "half gzip", "reset", "bad chunk", "bomb", "drip")
ONE_IN = 20
PUSHES = "/pushes"
"""Where it says how many answers it has sent to requests that were never made."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BOMB = gzip.compress(bytes(64 * 1024 * 1024))
_QUIET = 0.01


def hostility(number: int) -> str | None:
    """Return in which way the answer for a number is hostile, if it is."""
    return HOSTILE[number // ONE_IN % len(HOSTILE)] if number % ONE_IN == ONE_IN // 2 else None


def body_of(path: str) -> bytes:
    """Return the body that belongs to a path."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    return f"{path} {digest}".encode()


def whole(body: bytes, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


class Connection:
    """Answers the requests of one connection; each hostile way is a method that returns whether to go on."""

    pushes = 0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._socket = writer.get_extra_info("socket")
        self._ways: dict[str | None, Callable[[str], Awaitable[bool]]] = {
            None: self._healthy,
            "push": self._push,
            "truncated": self._truncated,
            "half gzip": self._half_gzip,
            "reset": self._reset,
            "bad chunk": self._bad_chunk,
            "bomb": self._bomb,
            "drip": self._drip,
        }

    async def serve(self) -> None:
        going = True
        while going:
            head = await self._reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == PUSHES:
                await self._send(whole(str(Connection.pushes).encode()))
                continue
            going = await self._ways[hostility(int(path.rpartition("/")[2]))](path)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _healthy(self, path: str) -> bool:
        body = body_of(path)
        if int(path.rpartition("/")[2]) % 3 == 0:
            await self._send(whole(gzip.compress(body, 1), "Content-Encoding: gzip"))
        else:
            await self._send(whole(body))
        return True

    async def _push(self, path: str) -> bool:
        """Answer well, and once the connection is idle, send an answer to a request that was never made."""
        await self._healthy(path)
        await asyncio.sleep(_QUIET)
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        # Only if no request is here, read or unread: what is pushed is an answer to nothing.
        if not self._reader._buffer and not poll.poll(0):  # type: ignore[attr-defined]
            Connection.pushes += 1
            await self._send(whole(body_of("/pushed" + path)))
        return True

    async def _truncated(self, path: str) -> bool:
        await self._send(whole(body_of(path))[:-10])
        return False

    async def _half_gzip(self, path: str) -> bool:
        await self._send(whole(gzip.compress(body_of(path))[:-6], "Content-Encoding: gzip"))
        return True

    async def _reset(self, path: str) -> bool:
        await self._send(whole(body_of(path))[:-10])
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()
        return False

    async def _bad_chunk(self, path: str) -> bool:
        body = body_of(path)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self._send(head + b"%x\r\n%s\r\nnonsense\r\n" % (len(body), body))
        return True

    async def _bomb(self, _path: str) -> bool:
        await self._send(whole(_BOMB, "Content-Encoding: gzip"))
        return True

    async def _drip(self, path: str) -> bool:
        body = body_of(path)
        await self._send(whole(body)[: -len(body)])
        for byte in body:
            await self._send(bytes([byte]))
            await asyncio.sleep(0.2)
        return True


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await Connection(reader, writer).serve()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _listen(addresses: list[str]) -> None:
    for port in count(18_000):
        try:
            servers = [await asyncio.start_server(_serve, address, port, backlog=1000) for address in addresses]
        except OSError:
            continue
        break
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    import uvloop

    uvloop.run(_listen(sys.argv[1:]))
