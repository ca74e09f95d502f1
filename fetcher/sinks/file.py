"""A file that grows batch by batch and can be cut back to where the queue says that it was."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field, ValidationInfo, field_validator

from fetcher.errors import ConfigError, SinkError, StateError
from fetcher.registry import Part, format_by_name, parts
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result


class FileSinkConfig(Settings):
    """Records appended to one file."""

    type: Literal["file"] = "file"
    path: str = Field(min_length=1)
    """The file, relative to the working folder; missing folders are created."""
    format: Annotated[Settings, Part("formats")] = Field(default=None, validate_default=True)
    """How records are written; by default, what the suffix of ``path`` says."""
    if_exists: Literal["fail", "replace", "append"] = "fail"
    """What becomes of a file that is there when a batch begins and was not written by an earlier run of it."""
    durability: Literal["flush", "fsync"] = "flush"
    """``flush`` survives the end of the process; ``fsync`` the end of the machine, at the cost of speed."""

    @field_validator("format", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        # Without a path the config is refused anyway, and nothing is to be said about its format.
        return format_by_name(info.data["path"]) if "path" in info.data else next(iter(parts("formats")))

    def build(self) -> FileSink:
        """Return the sink, not yet open."""
        form: Any = self.format
        return FileSink(
            Path(self.path), form.build(), if_exists=self.if_exists, synchronous=self.durability == "fsync"
        )


class FileMark(msgspec.Struct):
    """The file, how long it was after the last acknowledged batch, and where this batch's records begin in it."""

    path: str
    offset: int
    start: int = 0


class FileSink:
    """Appends with plain writes, one batch at a time, on a thread of its own."""

    def __init__(
        self, path: Path, form: Format, *, if_exists: str = "fail", synchronous: bool = False
    ) -> None:
        self._path = path
        self._format = form
        self._if_exists = if_exists
        self._synchronous = synchronous
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="file sink")
        self._fd: int | None = None
        self._offset = self._start = 0

    async def open(self, mark: str | None) -> str:
        """Open the file and cut off what was written after ``mark``."""
        await self._run(self._open, msgspec.json.decode(mark, type=FileMark) if mark else None)
        return self.mark()

    async def write(self, results: Sequence[Result]) -> str:
        """Append results and return the mark after them."""
        data = self._format.encode(results)
        if not self._offset:
            # With the first records rather than at open: until there is a mark, the file is empty or not ours.
            data = self._format.begin() + data
        await self._run(self._append, data)
        return self.mark()

    async def discard(self, mark: str) -> None:
        """Delete what an earlier run of this batch wrote, which ``mark`` is of, to start over."""
        await self._run(self._discard, msgspec.json.decode(mark, type=FileMark))

    async def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            await self._run(self._close)
        self._executor.shutdown(wait=False)

    async def _run(self, function: Any, *args: Any) -> None:
        call = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            # A write under way must be over before the file is closed.
            await asyncio.wait([call])
            raise

    def mark(self) -> str:
        """Return the mark after what was written so far; at first, where this batch's records will begin."""
        return msgspec.json.encode(FileMark(str(self._path), self._offset, self._start)).decode()

    # What follows runs on the sink's thread.

    def _open(self, mark: FileMark | None) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            existed = self._path.exists()
            if existed and not self._path.is_file() and not self._path.is_dir():
                raise ConfigError(
                    f"{self._path}: is not a plain file that could be cut back; choose another path"
                )
            self._fd = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise ConfigError(
                f"{self._path}: can not be written: {error.strerror}; choose another path"
            ) from error
        size = os.fstat(self._fd).st_size
        if mark is not None and mark.path == str(self._path):
            self._resume(self._fd, mark, size)
        else:
            self._begin(self._fd, size, existed=existed)

    def _resume(self, fd: int, mark: FileMark, size: int) -> None:
        if size < mark.offset:
            raise StateError(
                f"{self._path}: has {size} bytes, but {mark.offset} were recorded as written; "
                "put the file back, or start over with --fresh"
            )
        self._offset, self._start = mark.offset, mark.start
        os.ftruncate(fd, mark.offset)

    def _begin(self, fd: int, size: int, *, existed: bool) -> None:
        if size and self._if_exists == "fail":
            self._close()
            raise ConfigError(
                f"{self._path}: exists and was not written by an earlier run of this batch; move it away, choose "
                "another path, set 'if_exists: append' or 'if_exists: replace', or start over with --fresh"
            )
        self._offset = size if self._if_exists == "append" else 0
        self._start = self._offset
        os.ftruncate(fd, self._offset)
        if self._synchronous and not existed:
            _sync_folder(self._path.parent)

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            raise SinkError(f"{self._path}: is not open")
        view = memoryview(data)
        offset = self._offset
        try:
            # At an offset of ours, wherever a batch that failed half way has left the file.
            while view:
                written = os.pwrite(self._fd, view, offset)
                offset += written
                view = view[written:]
            if self._synchronous:
                os.fsync(self._fd)
        except OSError as error:
            # What there is of the batch would be a torn line. A file can be cut on a full disk, too.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset)
            hint = "; free some space and run again to resume" if error.errno == errno.ENOSPC else ""
            raise SinkError(f"{self._path}: {error.strerror}{hint}") from error
        self._offset = offset

    def _discard(self, mark: FileMark) -> None:
        path = Path(mark.path)
        if not path.exists():
            return
        try:
            if mark.start:
                os.truncate(path, min(mark.start, path.stat().st_size))
            else:
                path.unlink()
        except OSError as error:
            raise ConfigError(f"{path}: can not be removed to start over: {error.strerror}") from error

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable (fsync(2): the file's own fsync does not cover it)."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
