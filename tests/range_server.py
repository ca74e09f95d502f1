"""A server of one body that can send parts of it, breaks off where it is told to, and lies where it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from raw_server import RawServer, raw_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from raw_server import Peer

PIECE = 64 * 1024


def content(size: int, seed: str = "a") -> bytes:
    """Return bytes of which no two stretches are alike, so that parts put together wrongly hash to something else."""
    return hashlib.shake_256(seed.encode()).digest(size)


class RangeServer:
    """What is served, how, and what was asked for.

    ``breaks``: after how many bytes of its body each answer in turn resets the connection; then they are whole.
    ``lie``: replaces the Content-Range of each 206 in turn. ``pause``: seconds between pieces of 64 KiB.
    """

    def __init__(self, body: bytes, *, etag: str | None = '"v1"', breaks: list[int] | None = None) -> None:
        self.body = body
        self.etag = etag
        self.modified: str | None = None
        self.breaks = breaks or []
        self.lies: list[str] = []
        self.ranges = True
        self.extra: tuple[str, ...] = ()
        self.pause = 0.0
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        self.progress = asyncio.Condition()
        self.server: RawServer

    def url(self, path: str = "/file.bin") -> str:
        return self.server.url(path)

    async def script(self, peer: Peer) -> None:
        while True:
            request = (await peer.request()).decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in request[1:] if ": " in line)
            self.requests.append(fields)
            await self._answer(peer, fields)

    async def _answer(self, peer: Peer, fields: dict[str, str]) -> None:
        if self.etag is not None and fields.get("if-none-match") == self.etag.lower():
            await peer.send(f"HTTP/1.1 304 Not Modified\r\nETag: {self.etag}\r\n\r\n".encode())
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", fields.get("range", ""))
        current = {str(self.etag).lower(), str(self.modified).lower()}
        start = 0
        status, where = "200 OK", ()
        if wanted and self.ranges and fields.get("if-range", self.etag) in current | {self.etag}:
            start = int(wanted[1])
            if start >= len(self.body):
                await peer.send(
                    f"HTTP/1.1 416 No\r\nContent-Range: bytes */{len(self.body)}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                return
            told = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            status, where = "206 Partial Content", (f"Content-Range: {self.lies.pop(0) if self.lies else told}",)
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(self.body) - start}", *where, *self.extra]
        lines += [] if self.etag is None else [f"ETag: {self.etag}"]
        lines += [] if self.modified is None else [f"Last-Modified: {self.modified}"]
        await peer.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._send_body(peer, start)

    async def _send_body(self, peer: Peer, start: int) -> None:
        end = start + self.breaks.pop(0) if self.breaks else len(self.body)
        for offset in range(start, min(end, len(self.body)), PIECE):
            piece = self.body[offset : min(offset + PIECE, end)]
            await peer.send(piece)
            async with self.progress:
                self.sent += len(piece)
                self.progress.notify_all()
            if self.pause:
                await asyncio.sleep(self.pause)
        if end < len(self.body):
            # An orderly end, so that all that was sent arrives.
            raise ConnectionError

    async def has_sent(self, count: int) -> None:
        """Wait until so many bytes of bodies have been sent in all."""
        async with self.progress:
            await self.progress.wait_for(lambda: self.sent >= count)


@asynccontextmanager
async def range_server(body: bytes, **options: object) -> AsyncIterator[RangeServer]:
    """Serve a body until the block ends."""
    serving = RangeServer(body, **options)  # type: ignore[arg-type]
    async with raw_server(serving.script) as serving.server:
        yield serving
