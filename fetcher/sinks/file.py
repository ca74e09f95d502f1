"""A file that grows batch by batch and can be cut back to where the queue says that it was.

It is locked while it is open, and nothing is cut away before the bytes in front of the mark have been recognised.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field, ValidationInfo, field_validator

from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.files import locked, sync_folder
from fetcher.registry import Part, format_of, parts
from fetcher.settings import Settings
from fetcher.sink_settings import SinkSettings
from fetcher.sinks.writing import OwnThread, append

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Ending, Format
    from fetcher.model import Result
    from fetcher.sinks.parts import PartsSink

_TAIL = 4096
_HEAD = 256 * 1024  # far more than any header row has


class FileSinkConfig(SinkSettings):
    """Records appended to one file, or in parts of a folder if the format is one of whole files (parquet)."""

    type: Literal["file"] = "file"
    path: str = Field(min_length=1)
    """The file or folder of parts, relative to the working folder; missing folders are created."""
    format: Annotated[Settings, Part("formats")] = Field(default=None, validate_default=True)
    """How records are written; by default, what the suffixes of ``path`` say, such as ``.csv.zst``."""
    if_exists: Literal["fail", "replace", "append"] = "fail"
    """What becomes of a file that is there when a batch begins and was not written by an earlier run of it.

    ``append`` leaves an earlier run's records where they are, too, once something else has been appended to them. To a
    csv file it appends rows with the columns that are there, or nothing if those are not known or not ``columns``.
    """
    durability: Literal["flush", "fsync"] = "flush"
    """``flush`` survives the end of the process; ``fsync`` the end of the machine, at the cost of speed."""

    @field_validator("format", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        if "path" in info.data:
            return format_of(info.data["path"], value)
        # Without a path the config is refused anyway, and nothing is to be said about its format.
        return next(iter(parts("formats"))) if value is None else value

    def build(self) -> FileSink | PartsSink:
        """Return the sink, not yet open."""
        form: Any = self.format
        path, synchronous = Path(self.path), self.durability == "fsync"
        if getattr(form, "streams", True):
            return FileSink(path, form.build(), if_exists=self.if_exists, synchronous=synchronous)
        from fetcher.sinks.parts import PartsSink  # noqa: PLC0415  seldom needed

        return PartsSink(path, form.build(), if_exists=self.if_exists, synchronous=synchronous)


class FileMark(msgspec.Struct):
    """How long the file was after the last acknowledged batch, and where this batch's records begin in it.

    ``crc`` is the CRC-32 of the last bytes before ``offset``, those of others included: by it the file is
    recognised, wherever it has been moved to. An empty file has only its path to be recognised by.
    """

    path: str
    offset: int
    start: int
    crc: int


class FileSink:
    """Appends with plain writes, one batch at a time, on a thread of its own."""

    def __init__(self, path: Path, form: Format, *, if_exists: str = "fail", synchronous: bool = False) -> None:
        self._path = path
        self._format = form
        self._if_exists = if_exists
        self._synchronous = synchronous
        self._thread = OwnThread("file sink")
        self._fd: int | None = None
        self._created = False
        self._offset = self._start = 0
        self._tail = b""

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Lock the file, and refuse it unless it can be gone on with after ``mark``, or started over."""
        await self._thread.run(self._check, self._decoded(mark), resume)

    async def discard(self, mark: str) -> None:
        """Cut off what an earlier run wrote, unless others have appended to it: then it stays, and so do theirs."""
        await self._thread.run(self._discard, self._decoded(mark))

    async def open(self, mark: str | None) -> str:
        """Open the file and cut off what was written after ``mark``."""
        await self._thread.run(self._open, self._decoded(mark))
        return self.mark()

    async def write(self, results: Sequence[Result]) -> str:
        """Append results and return the mark after them."""
        await self._thread.run(self._append, results)
        return self.mark()

    async def conclude(self, ending: Ending) -> str | None:
        """Write the head of a file that has got no record, so that readers take it for an empty one of its kind."""
        if ending.stopped is not None or self._fd is None or self._offset:
            return None
        await self._thread.run(self._begin)
        return self.mark()

    async def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            await self._thread.run(self._close)
        self._thread.close()

    def mark(self) -> str:
        """Return the mark after what was written so far; at first, where this batch's records will begin."""
        mark = FileMark(str(self._path), self._offset, self._start, zlib.crc32(self._tail))
        return msgspec.json.encode(mark).decode()

    def _decoded(self, mark: str | None) -> FileMark | None:
        try:
            return msgspec.json.decode(mark, type=FileMark) if mark is not None else None
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._path}: how much of it is this batch's own was recorded in a way unknown here ({error}); "
                "move it away and start over with --fresh"
            ) from error

    # What follows runs on the sink's thread.

    def _check(self, mark: FileMark | None, resume: bool) -> None:  # noqa: FBT001  handed on by position
        if resume and mark is not None:
            fd = self._hold(mark)
            self._recognise(fd, mark)
            self._follow(fd, mark.offset, resumed=True)
        else:
            fd = self._hold()
            self._follow(fd, self._beginning(fd, mark), resumed=False)

    def _discard(self, mark: FileMark) -> None:
        fd = self._hold()
        os.ftruncate(fd, self._beginning(fd, mark))
        if self._synchronous:
            os.fsync(fd)

    def _open(self, mark: FileMark | None) -> None:
        fd = self._hold(mark)
        if mark is not None:
            self._recognise(fd, mark)
            self._offset, self._start = mark.offset, mark.start
        else:
            self._offset = self._start = self._beginning(fd, None)
        self._follow(fd, self._offset, resumed=mark is not None)
        os.ftruncate(fd, self._offset)
        self._tail = _before(fd, self._offset)
        if self._synchronous and self._created:
            sync_folder(self._path.parent)
        self._created = False

    def _hold(self, mark: FileMark | None = None) -> int:
        """Open and lock the file, if that is still to be done. One that has records up to ``mark`` is not created."""
        if self._fd is None:
            try:
                if self._path.exists() and not self._path.is_file() and not self._path.is_dir():
                    raise ConfigError(f"{self._path}: is not a plain file that could be cut back; choose another path")
                fd, created = self._opened(mark)
            except OSError as error:
                raise ConfigError(f"{self._path}: can not be written: {error.strerror}; choose another path") from error
            if not locked(fd):
                os.close(fd)
                raise StateBusyError(
                    f"{self._path}: another run is writing to it; wait until it has ended, or choose another path"
                )
            self._fd, self._created = fd, created
        return self._fd

    def _opened(self, mark: FileMark | None) -> tuple[int, bool]:
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self._path, flags), False
        except FileNotFoundError:
            if mark is not None and mark.offset:
                raise StateError(
                    f"{self._path}: is not there, but {mark.offset} bytes were recorded as written; "
                    "put the file back, or start over with --fresh"
                ) from None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, flags | os.O_CREAT, 0o644), True

    def _recognise(self, fd: int, mark: FileMark) -> None:
        """Raise StateError unless the file is, up to the mark, what it was when the mark was taken."""
        size = os.fstat(fd).st_size
        if size < mark.offset:
            raise StateError(
                f"{self._path}: has {size} bytes, but {mark.offset} were recorded as written; "
                "put the file back, or start over with --fresh"
            )
        known = not size or mark.offset or mark.path == str(self._path)
        if not known or zlib.crc32(_before(fd, mark.offset)) != mark.crc:
            raise self._changed()

    def _beginning(self, fd: int, mark: FileMark | None) -> int:
        """Return where a new run's records may begin; ``mark`` is that of the run which it replaces.

        What is there before that stays, what is there after it is cut off.
        """
        size = os.fstat(fd).st_size
        if self._if_exists == "replace":
            return 0
        start = size
        if mark is not None and size > mark.start:
            self._recognise(fd, mark)
            if size == mark.offset:
                start = mark.start
            elif self._if_exists == "fail":
                raise self._changed()
        if start and self._if_exists == "fail":
            raise ConfigError(
                f"{self._path}: exists and was not written by an earlier run of this batch; move it away, choose "
                "another path, set 'if_exists: append' or 'if_exists: replace', or start over with --fresh"
            )
        return start

    def _follow(self, fd: int, offset: int, *, resumed: bool) -> None:
        """Have the format go on as the file has begun. Raises StateError or ConfigError if it can not."""
        # A format without a head goes on behind anything.
        follow = getattr(self._format, "follow", None)
        if follow is None or not offset:
            return
        try:
            follow(os.pread(fd, min(offset, _HEAD), 0))
        except ValueError as error:
            if resumed:
                raise StateError(
                    f"{self._path}: {error}; resume with the version of fetcher that began it, "
                    "or start over with --fresh"
                ) from None
            raise ConfigError(
                f"{self._path}: {error}; nothing is appended to it: choose another path, "
                "name the columns that it has with 'columns:', or set 'if_exists: replace'"
            ) from None

    def _changed(self) -> StateError:
        return StateError(
            f"{self._path}: was changed since this batch wrote it; "
            "put it back as it was, or move it away and start over with --fresh"
        )

    def _append(self, results: Sequence[Result]) -> None:
        if self._fd is None:
            raise SinkError(f"{self._path}: is not open")
        data = self._format.encode(results)
        if not self._offset:
            # With the first records rather than at open: until there is a mark, the file is empty or not ours.
            data = self._format.begin() + data
        self._write(self._fd, data)

    def _begin(self) -> None:
        # A compressed format makes nothing of nothing, as what is compressed may be appended to; not so a whole file.
        empty = getattr(self._format, "empty", self._format.begin)
        if self._fd is not None:
            self._write(self._fd, empty())

    def _write(self, fd: int, data: bytes) -> None:
        self._offset = append(fd, self._path, self._offset, data, synchronous=self._synchronous)
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]

    def _close(self) -> None:
        if self._fd is not None:
            if self._created and not os.fstat(self._fd).st_size:
                # Checked and never opened: another sink was refused, and nothing is to be left behind.
                self._path.resolve().unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


def _before(fd: int, offset: int) -> bytes:
    """Return the last bytes before an offset."""
    length = min(offset, _TAIL)
    return os.pread(fd, length, offset - length)
