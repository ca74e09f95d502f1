"""Which batches there are and what they are at, in ``state_dir/service.db``. One service owns it at a time.

    batches(seq, id, state, ..)     a row for each batch; ``seq`` is the order in which they were submitted

What is read is little and found by an index, so it is read on the loop. What is written is on the disk (fsync) before
its writer goes on, so it is written on a thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import StateBusyError, StateError, UnknownBatchError
from fetcher.files import locked
from fetcher.service.models import Origin, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_APPLICATION_ID = 0x66747376  # "ftsv"
_VERSION = 1
_NAME = "service.db"
_LOCK = "service.lock"

_SCHEMA = f"""
BEGIN;
CREATE TABLE batches(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, label TEXT NOT NULL,
    upload TEXT, state TEXT NOT NULL, reason TEXT, origin TEXT NOT NULL, retry_of TEXT,
    priority INTEGER NOT NULL, weight REAL NOT NULL, begun INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    exceeded INTEGER NOT NULL DEFAULT 0, results INTEGER NOT NULL DEFAULT 0, progress TEXT);
CREATE INDEX batches_by_state ON batches(state, seq);
CREATE INDEX batches_waiting ON batches(begun DESC, priority DESC, seq) WHERE state = 'queued';
CREATE INDEX batches_ended ON batches(finished_at) WHERE finished_at IS NOT NULL;
PRAGMA user_version = {_VERSION};
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""


class Row(msgspec.Struct, kw_only=True):
    """A batch. Times are epoch seconds.

    ``label`` is what messages call its config, ``upload`` the name of the file that came with it, ``begun`` whether it
    was being fetched when the service ended, ``results`` up to which byte its records are acknowledged, ``progress``
    what was known when it stopped (JSON).
    """

    id: str
    name: str
    label: str
    upload: str | None = None
    state: str = State.QUEUED.value
    reason: str | None = None
    origin: Origin = "api"
    retry_of: str | None = None
    priority: int = 0
    weight: float = 1.0
    begun: bool = False
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    exceeded: bool = False
    results: int = 0
    progress: str | None = None
    seq: int = 0


# SQLite would choose the index by state, and sort.
_WAITING = "INDEXED BY batches_waiting WHERE state = 'queued' ORDER BY begun DESC, priority DESC, seq"
_FIELDS = Row.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_INSERTED = [name for name in _FIELDS if name != "seq"]
_INSERT = f"INSERT INTO batches({', '.join(_INSERTED)}) VALUES ({', '.join('?' * len(_INSERTED))})"  # noqa: S608


class Catalogue:
    """The batches of one service. Raises StateError if the file can not be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _NAME
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._lock: int | None = None

    async def open(self) -> None:
        """Take the folder and open the file. Raises StateBusyError if another service has it, StateError."""
        await self._run(self._open)

    async def close(self) -> None:
        """Release everything. May be called twice."""
        if self._lock is not None:
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    # Reading, on the loop

    def get(self, batch_id: str) -> Row:
        """Return a batch. Raises UnknownBatchError."""
        row = self.find(batch_id)
        if row is None:
            raise UnknownBatchError(f"there is no batch {batch_id[:200]!r}")
        return row

    def find(self, batch_id: str) -> Row | None:
        """Return a batch, None if there is none with that id."""
        return next(iter(self._rows("WHERE id = ?", (batch_id,))), None)

    def page(self, state: str | None, limit: int, before: int | None) -> list[Row]:
        """Return the latest batches, of those that were submitted before the one with the number ``before``."""
        where, values = ["seq < ?"], [2**63 - 1 if before is None else before]
        if state is not None:
            return self._rows(f"WHERE state = ? AND {where[0]} ORDER BY seq DESC LIMIT ?", (state, *values, limit))
        return self._rows(f"WHERE {where[0]} ORDER BY seq DESC LIMIT ?", (*values, limit))

    def waiting(self, limit: int) -> list[Row]:
        """Return those that are to be fetched next: what was begun before the rest, then by priority, then by age."""
        return self._rows(f"{_WAITING} LIMIT ?", (limit,))

    def open_ones(self, limit: int) -> list[Row]:
        """Return batches that have not ended, in the order in which they were submitted."""
        found: list[Row] = []
        for state in (State.RUNNING, State.PAUSED, State.QUEUED):
            found += self._rows("WHERE state = ? ORDER BY seq LIMIT ?", (state.value, limit - len(found)))
        return sorted(found, key=lambda row: row.seq)

    def expired(self, before: float, limit: int) -> list[Row]:
        """Return batches that had ended by then."""
        return self._rows("WHERE finished_at < ? ORDER BY finished_at LIMIT ?", (before, limit))

    def counts(self) -> dict[str, int]:
        """Return how many batches there are in each state."""
        found = self._read("SELECT state, count(*) FROM batches GROUP BY state", ())
        return {state.value: 0 for state in State} | dict(found)

    def _rows(self, rest: str, values: Sequence[Any]) -> list[Row]:
        return [_row(found) for found in self._read(f"SELECT {_COLUMNS} FROM batches {rest}", values)]  # noqa: S608

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._reader is None:
            raise StateError(f"{self._path}: is not open")
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _state_error(error, self._path) from error

    # Writing, on a thread

    async def insert(self, row: Row) -> None:
        """Add a batch; it is durable on return."""
        await self._run(self._write, _INSERT, [[getattr(row, name) for name in _INSERTED]])

    async def update(self, batch_id: str, **changes: Any) -> None:
        """Change what is known of a batch; it is durable on return."""
        names = ", ".join(f"{name} = ?" for name in changes)
        await self._run(
            self._write,
            f"UPDATE batches SET {names} WHERE id = ?",  # noqa: S608  names of our own columns
            [[*changes.values(), batch_id]],
        )

    async def take_up(self) -> None:
        """Put back to the queue what was being fetched when an earlier service ended."""
        await self._run(self._write, "UPDATE batches SET state = 'queued', begun = 1 WHERE state = 'running'", [()])

    async def remove(self, batch_id: str) -> None:
        """Forget a batch."""
        await self._run(self._write, "DELETE FROM batches WHERE id = ?", [(batch_id,)])

    async def ids(self) -> set[str]:
        """Return the ids of all batches."""
        found: set[str] = await self._run(self._ids)
        return found

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        call = asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        # Whoever is cancelled has to find decided what it was about.
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise

    def _open(self) -> None:
        self._take_folder()
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._writer, self._reader = self._connection(), self._connection()
            self._prepare(self._writer)
        except sqlite3.Error as error:
            self._close()
            raise _state_error(error, self._path) from error
        except OSError as error:
            self._close()
            raise StateError(f"{self._path}: can not be opened: {error.strerror}") from error
        except BaseException:
            self._close()
            raise

    def _take_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            message = f"{self._folder}: can not be used for the state of the service: {error.strerror}"
            raise StateError(f"{message}; choose another service.state_dir") from error
        if not locked(lock):
            os.close(lock)
            raise StateBusyError(
                f"{self._folder}: another service is using it; end that one, or give this one a service.state_dir of "
                "its own"
            )
        self._lock = lock

    def _connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)

    def _prepare(self, db: sqlite3.Connection) -> None:
        application, version = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        empty = bool(db.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])
        if not empty and application != _APPLICATION_ID:
            raise StateError(f"{self._path}: is a database, but not that of a service of fetcher; move it away")
        if version > _VERSION:
            raise StateError(
                f"{self._path}: was written by a newer version of fetcher; use that, or choose another "
                "service.state_dir"
            )
        db.execute("PRAGMA journal_mode = WAL")
        # What was answered as taken is there after a power cut, too.
        db.execute("PRAGMA synchronous = FULL")
        if empty:
            db.executescript(_SCHEMA)

    def _close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        if self._lock is not None:
            os.close(self._lock)
        self._reader = self._writer = self._lock = None

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if self._writer is None:
            raise StateError(f"{self._path}: is not open")
        try:
            self._writer.executemany(statement, rows)
        except sqlite3.Error as error:
            raise _state_error(error, self._path) from error

    def _ids(self) -> set[str]:
        if self._writer is None:
            raise StateError(f"{self._path}: is not open")
        return {found for (found,) in self._writer.execute("SELECT id FROM batches")}


def _row(found: Sequence[Any]) -> Row:
    row = Row(**dict(zip(_FIELDS, found, strict=True)))
    row.begun, row.exceeded = bool(row.begun), bool(row.exceeded)
    return row


def _state_error(error: sqlite3.Error, path: Path) -> StateError:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return StateError(f"{path}: can not be read ({text}); move it away, and the batches in its folder with it")
    if "full" in text:
        return StateBusyError(f"{path}: the disk is full; free some space")
    if "locked" in text:
        return StateBusyError(f"{path}: another process is using it; wait until it has ended")
    return StateError(f"{path}: {text}")
