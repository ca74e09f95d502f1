"""Servers of streams that need no protocol: an echo, a slow one, and one without manners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.origin.streams import CHUNK

if TYPE_CHECKING:
    from fetcher.origin.streams import Stream

PAUSE = 0.02


async def echo(stream: Stream) -> None:
    """Send back what comes, until the client ends its side (RFC 862)."""
    while data := await stream.receive():
        await stream.send(data)


async def slow(stream: Stream) -> None:
    """Send back what comes, a byte at a time, so that no read of a client gets more than that."""
    while data := await stream.receive():
        await stream.send_slowly(data, PAUSE)


async def rude(stream: Stream) -> None:
    """Do what its first line says: `drop`, `silent`, `endless`; anything else is half sent back, and then reset."""
    try:
        line = await stream.line()
    except ValueError:
        line = b""
    if line == b"drop":
        return
    if line == b"silent":
        while await stream.receive():
            pass
        return
    while line == b"endless":
        await stream.send(b"x" * CHUNK)
    await stream.send(line[: len(line) // 2])
    stream.reset()
