"""The content that answers send: deterministic, in blocks, and compressed as it goes out."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

# Each 16 bytes name their offset, so a client that loses or reorders a piece is seen.
BLOCK = b"".join(b"%015d\n" % offset for offset in range(0, 65_536, 16))
SMALL = len(BLOCK)


def content(size: int) -> bytes:
    """Return the deterministic body of `size` bytes."""
    return (BLOCK * (size // SMALL + 1))[:size]


def pieces(size: int) -> Iterator[bytes]:
    """Yield `content(size)` in blocks."""
    for _ in range(size // SMALL):
        yield BLOCK
    if size % SMALL:
        yield BLOCK[: size % SMALL]


def compressed(size: int, wbits: int) -> Iterator[bytes]:
    """Yield `content(size)` compressed; a gigabyte of it is held nowhere."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, wbits)
    yield from (out for piece in pieces(size) if (out := squeeze.compress(piece)))
    yield squeeze.flush()


async def stream(source: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield from `source` and let other connections run between pieces."""
    for piece in source:
        yield piece
        await asyncio.sleep(0)
