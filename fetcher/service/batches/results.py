"""Reads the records of a batch, from a cursor on, up to where they are acknowledged. Nothing is held but a part.

A cursor is an offset in bytes, where a record begins. What lies behind the last acknowledged one may be cut off again,
so it is not shown.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fetcher.errors import CursorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_T = TypeVar("_T")
PART = 256 * 1024
"""Bytes that are read at a time; a longer record is read as a whole."""


class _Line(msgspec.Struct):
    """What can be asked for."""

    outcome: str
    error_kind: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Wanted(msgspec.Struct, frozen=True):
    """Which records are wanted: all of them, but for what is said here."""

    outcome: str | None = None
    kind: str | None = None

    def __bool__(self) -> bool:
        return self.outcome is not None or self.kind is not None

    def has(self, line: bytes) -> bool:
        """Tell whether a record is one of them."""
        found = _decode(line)
        return self.outcome in {None, found.outcome} and self.kind in {None, found.error_kind}


async def read(
    path: Path, cursor: int, end: int, wanted: Wanted, limit: int | None = None
) -> AsyncIterator[tuple[bytes, int]]:
    """Yield (whole lines, the cursor after them) up to the offset ``end``; ``limit`` is of records.

    There may be none among the lines that were looked at: then the cursor alone goes on. Raises CursorError.
    """
    if cursor == 0 and end == 0:
        return
    try:
        fd = await _off_loop(os.open, path, os.O_RDONLY)
    except OSError as error:
        raise CursorError(f"there are no results here: {error.strerror}") from error
    try:
        await _off_loop(_check, fd, cursor, end)
        while cursor < end and limit != 0:
            lines, count, cursor = await _off_loop(_part, fd, cursor, end, wanted, limit)
            limit = None if limit is None else limit - count
            yield lines, cursor
    finally:
        os.close(fd)


async def _off_loop(function: Callable[..., _T], *args: Any) -> _T:
    """Call a function on a thread. Who cancels waits until it has returned: no file is closed while it is read."""
    call = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise


def _check(fd: int, cursor: int, end: int) -> None:
    if not 0 <= cursor <= end or (cursor and os.pread(fd, 1, cursor - 1) != b"\n"):
        raise CursorError(f"cursor {cursor} is not where a record of these results begins; start from 0")


def _part(fd: int, cursor: int, end: int, wanted: Wanted, limit: int | None) -> tuple[bytes, int, int]:
    """Return lines from the cursor on, how many they are, and the cursor after them."""
    data = _whole_lines(fd, cursor, end)
    if limit is None and not wanted:
        return data, data.count(b"\n"), cursor + len(data)
    kept: list[bytes] = []
    for line in data.splitlines(keepends=True):
        cursor += len(line)
        if wanted.has(line):
            kept.append(line)
            if len(kept) == limit:
                break
    return b"".join(kept), len(kept), cursor


def _whole_lines(fd: int, cursor: int, end: int) -> bytes:
    size = PART
    while True:
        data = os.pread(fd, min(size, end - cursor), cursor)
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            return whole
        if len(data) < size:
            raise CursorError("the results end in the middle of a record; read them again from the last cursor")
        size *= 2
