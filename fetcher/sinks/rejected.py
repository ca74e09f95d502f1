"""Files of records that a server will never take, each with the reason, beside the sink that tried."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from fetcher.errors import SinkError
from fetcher.sinks.remote import Packed, shown
from fetcher.sinks.writing import append

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 64 * 1024


class _Line(msgspec.Struct):
    run: str | None = None


class Rejected:
    """A file of rejected records, a line each: by whom, in which run, why, and the record.

    ``{batch}`` in its path is the batch. A batch that is written again after a crash may have its rejected records
    there twice. Several sinks may write to one file, those of other processes too.
    """

    def __init__(self, path: str, place: str) -> None:
        self._path = path
        self._place = place

    async def add(self, item: Packed, reason: str, run: str) -> None:
        """Keep a record durably. Raises SinkError if that fails."""
        path = Path(self._path.replace("{batch}", item.result.batch))
        head = msgspec.json.encode({"refused_by": self._place, "run": run, "reason": reason})
        await asyncio.to_thread(_append, path, head[:-1] + b',"record":' + item.line + b"}\n")
        structlog.get_logger().warning(
            "record rejected", sink=self._place, job=shown(item.result.job_id), reason=reason, kept_in=str(path)
        )

    async def forget(self, run: str) -> None:
        """Delete what a run has added, and no line of others. Raises SinkError if that fails."""
        if "{batch}" not in self._path:
            await asyncio.to_thread(_remove, Path(self._path), run)


def _append(path: Path, data: bytes) -> None:
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _held(path, os.O_CREAT) as fd:
            append(fd, path, _cut(fd), data, synchronous=True)


def _remove(path: Path, run: str) -> None:
    """Write the file anew without the lines of a run, under another name until it is whole."""
    with _reported(path), suppress(FileNotFoundError), _held(path) as fd:
        _cut(fd)
        other = path.with_name(f".{path.name}.new")
        with open(fd, "rb", closefd=False) as old, other.open("wb") as new:
            new.writelines(line for line in old if not _is_of(line, run))
            new.flush()
            os.fsync(new.fileno())
            left = new.tell()
        if left:
            other.replace(path)
        else:
            other.unlink()
            path.unlink()


def _is_of(line: bytes, run: str) -> bool:
    try:
        return msgspec.json.decode(line, type=_Line).run == run
    except msgspec.DecodeError:
        return False


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkError(f"{path}: can not be written: {error.strerror}; it is where rejected records go") from error


@contextmanager
def _held(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file that nobody else has open in this way, waiting for whoever does: that is a moment."""
    while True:
        fd = os.open(path, os.O_RDWR | flags | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            _lock(fd)
            if _is_at(path, fd):
                yield fd
                return
        finally:
            os.close(fd)


def _lock(fd: int) -> None:
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415  not on Windows

        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)


def _is_at(path: Path, fd: int) -> bool:
    """Tell whether a file still has its name: it may have been replaced while it was waited for."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _cut(fd: int) -> int:
    """Cut off a line that a crash has left without its end, and return the size of what is there."""
    size = os.fstat(fd).st_size
    end = size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
        if found >= 0:
            break
    if end < size:
        os.ftruncate(fd, end)
    return end
