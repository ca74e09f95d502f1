"""A folder of files that are whole or nothing, for formats that can not be appended to (``PartFormat``).

Records are durable as drafts in one hidden file. When that is large enough, and at the end of a run, it is made into
a part: files that are written under hidden names and appear by rename, after which the drafts are deleted. So
what has appeared is readable at any time, and whenever the process ends, the drafts of a part are there, or all its
files, or both: then the drafts count.

A mark is the number of the part that the next record goes to, and how many records that has. It may be from before the
part was made. Then the first records are taken out of its files into drafts again, and the part comes anew. Parts of
lower numbers are not needed any more: whoever reads them may take them away while the run goes on.

Names hold a token of the run, by which it knows what is its own:

    part-00000-9f86d081.parquet, or host=example.org/part-00000-9f86d081.parquet
    _part-00001-9f86d081.drafts            names that begin so are passed over by readers of such folders
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, NoReturn

import msgspec

from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.files import locked, sync_folder
from fetcher.sinks.part_names import DRAFTS, UNFINISHED, Found, delete, everything, found, stem
from fetcher.sinks.writing import OwnThread, append, failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fetcher.interfaces import Ending, PartFormat
    from fetcher.model import Result


class PartsMark(msgspec.Struct):
    """Which run's parts these are, the number of the part that comes next, and how many records that has.

    ``columns`` are those that all parts of the run have, whichever version goes on with it; the first versions did not
    note them.
    """

    token: str
    number: int = 0
    rows: int = 0
    columns: list[str] = []


class PartsSink:
    """Appends drafts and makes them into parts, on a thread of its own."""

    def __init__(self, path: Path, form: PartFormat, *, if_exists: str = "fail", synchronous: bool = False) -> None:
        self._path = path
        self._format = form
        self._if_exists = if_exists
        self._synchronous = synchronous
        self._thread = OwnThread("parts sink")
        self._lock: int | None = None
        self._created: list[Path] = []
        self._mark: PartsMark | None = None
        self._fd: int | None = None
        self._offset = 0

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Lock the folder, and refuse it unless it can be gone on with after ``mark``, or started over."""
        await self._thread.run(self._check, self._decoded(mark), resume)

    async def discard(self, mark: str) -> None:
        """Delete the parts of an earlier run; what others wrote has other names."""
        await self._thread.run(self._discard, self._decoded(mark))

    async def open(self, mark: str | None) -> str:
        """Take back what was written after ``mark``, drafts or parts."""
        return await self._thread.run(self._open, self._decoded(mark))

    async def write(self, results: Sequence[Result]) -> str:
        """Append drafts of results, in a new file if the last one was large enough for a part."""
        return await self._thread.run(self._write, results)

    async def conclude(self, ending: Ending) -> None:
        """Make a part of what there is: a batch has not finished before all its records can be read.

        There is no mark to it: of a run that failed, it may have records that were never acknowledged. A batch that
        has none at all has a part without rows, so that readers find the columns.
        """
        await self._thread.run(self._conclude)
        if ending.stopped is None:
            await self._thread.run(self._leave_something)

    async def close(self) -> None:
        """Make a part of what there is, and release the folder. Raises SinkError if there is no room for it."""
        try:
            if self._lock is not None:
                await self._thread.run(self._close)
        finally:
            self._thread.close()

    def _decoded(self, mark: str | None) -> PartsMark | None:
        try:
            return msgspec.json.decode(mark, type=PartsMark) if mark is not None else None
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._path}: how much of it is this batch's own was recorded in a way unknown here ({error}); "
                "move it away and start over with --fresh"
            ) from error

    # What follows runs on the sink's thread.

    def _check(self, mark: PartsMark | None, resume: bool) -> None:  # noqa: FBT001  handed on by position
        self._hold()
        if resume and mark is not None:
            self._keeps(mark)
            self._follow(mark)
        else:
            self._refuse_others(mark)

    def _discard(self, mark: PartsMark) -> None:
        self._hold()
        delete(one.path for one in self._own(mark))
        self._sync(self._path)

    def _open(self, mark: PartsMark | None) -> str:
        self._hold()
        if mark is None:
            self._refuse_others(None)
            if self._if_exists == "replace":
                delete(one.path for one in found(self._path))
            mark = PartsMark(secrets.token_hex(4))
        else:
            self._keeps(mark)
            self._follow(mark)
            mark = self._taken_back(mark)
        mark.columns = self._format.columns
        for created in self._created:
            self._sync(created.parent)
        self._created = []
        self._mark = mark
        return _encoded(mark)

    def _write(self, results: Sequence[Result]) -> str:
        if self._mark is None:
            raise SinkError(f"{self._path}: is not open")
        if self._offset >= self._format.part_size:
            self._mark = self._made(self._mark)
        drafts = self._drafts(self._mark)
        data = self._format.draft(results)
        self._offset = append(self._opened(drafts), drafts, self._offset, data, synchronous=self._synchronous)
        self._mark.rows += len(results)
        return _encoded(self._mark)

    def _conclude(self) -> None:
        if self._mark is not None and self._mark.rows:
            self._mark = self._made(self._mark)

    def _leave_something(self) -> None:
        mark = self._mark
        if mark is None or mark.number or any(not one.hidden for one in found(self._path)):
            return
        name = stem(mark.number, mark.token)
        hidden = self._path / f"_{name}{UNFINISHED}"
        try:
            hidden.write_bytes(self._format.encode([]))
            self._show({hidden: self._path / f"{name}{self._format.suffix}"})
        except OSError as error:
            delete([hidden])
            raise failure(self._path, error) from error

    def _close(self) -> None:
        try:
            self._conclude()
        finally:
            self._mark = None
            self._let_go()

    def _opened(self, drafts: Path) -> int:
        if self._fd is None:
            try:
                self._fd = os.open(drafts, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
                self._sync(self._path)
            except OSError as error:
                raise failure(drafts, error) from error
        return self._fd

    # Making a part.

    def _made(self, mark: PartsMark) -> PartsMark:
        """Make the drafts into files, show them, and only then delete the drafts; return the mark after it."""
        names: dict[Path, Path] = {}

        def create(partition: str) -> Path:
            folder = self._path / partition
            folder.mkdir(exist_ok=True)
            hidden = folder / f"_{stem(mark.number, mark.token)}{UNFINISHED}"
            names[hidden] = folder / f"{stem(mark.number, mark.token)}{self._format.suffix}"
            return hidden

        drafts = self._drafts(mark)
        try:
            self._format.write(drafts, create)
            self._show(names)
            drafts.unlink()
        except OSError as error:
            delete(names)
            raise failure(self._path, error) from error
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._offset = None, 0
        return _next(mark)

    def _show(self, names: dict[Path, Path]) -> None:
        for hidden, shown in names.items():
            if self._synchronous:
                _sync_file(hidden)
            hidden.rename(shown)
        for folder in {self._path, *(shown.parent for shown in names.values())}:
            self._sync(folder)

    # Going on after a mark.

    def _keeps(self, mark: PartsMark) -> None:
        """Raise StateError unless the records up to the mark are there, as drafts or in a part."""
        if not mark.rows:
            return
        if self._drafts(mark).exists():
            self._length(mark)
            return
        there = self._count(mark)
        if there < mark.rows:
            raise StateError(
                f"{self._path}: part {mark.number} has {there} records, but {mark.rows} were recorded as written; "
                "put it back, or start over with --fresh"
            )

    def _follow(self, mark: PartsMark) -> None:
        """Go on with the columns that the run began with. Raises StateError if that can not be."""
        own = max((one for one in self._own(mark) if not one.hidden), key=lambda one: one.number, default=None)
        columns = mark.columns or ([] if own is None else self._format.columns_of(own.path))
        words = ""
        try:
            if columns:
                self._format.follow(columns)
            elif mark.rows and not self._format.reads(self._drafts(mark)):
                words = "has records without some of the columns that this version writes"
        except ValueError as error:
            words = str(error)
        if words:
            raise StateError(
                f"{self._path}: {words}; resume with the version of fetcher that began it, or start over with --fresh"
            )

    def _taken_back(self, mark: PartsMark) -> PartsMark:
        """Remove what came after a mark, such that it can be done again if it is interrupted."""
        own = sorted(self._own(mark), key=lambda one: one.number, reverse=True)
        delete(one.path for one in own if one.number > mark.number or one.suffix == UNFINISHED)
        drafts = self._drafts(mark)
        if mark.rows and not drafts.exists():
            if self._count(mark) == mark.rows:
                return _next(mark)
            self._undo(mark)
        # From here on the drafts have all that counts, whatever the files of a part have.
        delete(self._parts(mark))
        if not mark.rows:
            drafts.unlink(missing_ok=True)
            return mark
        self._offset = self._length(mark)
        os.ftruncate(self._opened(drafts), self._offset)
        return mark

    def _undo(self, mark: PartsMark) -> None:
        """Put the first records of a part into drafts again, which are there in full or not at all."""
        drafts = self._drafts(mark)
        hidden = drafts.with_suffix(UNFINISHED)
        with hidden.open("wb") as file:
            for piece in self._format.undo(self._parts(mark), mark.rows):
                file.write(piece)
            file.flush()
            if self._synchronous:
                os.fsync(file.fileno())
        hidden.rename(drafts)
        self._sync(self._path)

    def _length(self, mark: PartsMark) -> int:
        drafts = self._drafts(mark)
        try:
            return self._format.length(drafts, mark.rows)
        except ValueError as error:
            raise StateError(
                f"{drafts}: {mark.rows} records were recorded as written, but it {error}; "
                "put the file back, or start over with --fresh"
            ) from error

    def _count(self, mark: PartsMark) -> int:
        return sum(self._format.count(part) for part in self._parts(mark))

    def _own(self, mark: PartsMark) -> Iterator[Found]:
        return (one for one in found(self._path) if one.token == mark.token)

    def _parts(self, mark: PartsMark) -> list[Path]:
        return sorted(one.path for one in self._own(mark) if one.number == mark.number and not one.hidden)

    def _drafts(self, mark: PartsMark) -> Path:
        return self._path / f"_{stem(mark.number, mark.token)}{DRAFTS}"

    # The folder.

    def _refuse_others(self, mark: PartsMark | None) -> None:
        """Refuse a folder with anything in it that may neither be replaced nor stay beside what is written."""
        if self._if_exists == "append":
            return
        ours = {
            one.path
            for one in found(self._path)
            if self._if_exists == "replace" or (mark is not None and one.token == mark.token)
        }
        foreign = next((path for path in everything(self._path) if path not in ours), None)
        if foreign is not None:
            raise ConfigError(
                f"{self._path}: has {foreign.relative_to(self._path)}, which was not written by an earlier run of this "
                "batch; move it away, choose another path, set 'if_exists: append', or start over with --fresh"
            )

    def _hold(self) -> None:
        """Create and lock the folder, if that is still to be done."""
        if self._lock is not None:
            return
        try:
            self._created = [folder for folder in (self._path, *self._path.parents) if not folder.exists()]
            self._path.mkdir(parents=True, exist_ok=True)
            if not os.access(self._path, os.W_OK):
                self._refuse("Permission denied")
            lock = os.open(self._path, os.O_RDONLY)
        except FileExistsError:
            self._refuse("it is a file, and this format needs a folder")
        except OSError as error:
            self._refuse(error.strerror or str(error))
        if not locked(lock):
            os.close(lock)
            raise StateBusyError(
                f"{self._path}: another run is writing to it; wait until it has ended, or choose another path"
            )
        self._lock = lock

    def _refuse(self, why: str) -> NoReturn:
        raise ConfigError(f"{self._path}: can not be written: {why}; choose another path") from None

    def _let_go(self) -> None:
        for fd in (self._fd, self._lock):
            if fd is not None:
                os.close(fd)
        self._fd = self._lock = None
        with contextlib.suppress(OSError):
            # Checked and never opened: another sink was refused, and nothing is to be left behind.
            for folder in self._created:
                folder.rmdir()
        self._created = []

    def _sync(self, folder: Path) -> None:
        if self._synchronous:
            sync_folder(folder)


def _next(mark: PartsMark) -> PartsMark:
    """Return the mark after a part."""
    return PartsMark(mark.token, mark.number + 1, columns=mark.columns)


def _encoded(mark: PartsMark) -> str:
    return msgspec.json.encode(mark).decode()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
