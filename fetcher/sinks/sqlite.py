"""A table in an SQLite file, which may be queried while a batch runs.

    results(batch, job_id, ..., run)    a row for each record, by (batch, job_id); see ``fetcher.sinks.columns``
    results_failures                    a view of what failed, or was skipped for another reason than robots.txt
    fetcher_tables(name, version)       which tables are ours, and of which version
    fetcher_runs(run, name, began)      which runs have written to them; rows and mark of a run have its name

A record that comes again takes the place of the earlier one, so nothing has to be cut back after a crash. A table of an
earlier version is given the columns that have come since, which are null in the rows that it has. Texts have
NULs as they are, lone surrogates as question marks; times are ISO 8601 in UTC.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from pydantic import Field

from fetcher.errors import UNWANTED, ConfigError, FetcherError, SinkError, StateBusyError, StateError
from fetcher.fields import in_utc
from fetcher.sink_settings import SinkSettings
from fetcher.sinks.columns import (
    COLUMNS,
    KEY,
    RUN,
    Identifier,
    Kind,
    integer,
    json_text,
    latest,
    quoted,
    transposed,
    upsert_tail,
    writable,
)
from fetcher.sinks.remote import new_run
from fetcher.sinks.writing import OwnThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fetcher.model import Result

_VERSION = 1
_SMALLEST_PAGE = 512
_BUSY = 2.0  # seconds that a statement waits for whoever else is writing; then the delivery tries again, with pauses
# Rows of a statement. With one for each row the thread would ask for the GIL as often; and so few different
# statements stay prepared. SQLite takes 32,766 parameters at once.
_ROWS = (256, 32, 4, 1)
_SUITS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TYPES: dict[Kind, str] = {
    "text": "TEXT",
    "integer": "INTEGER",
    "real": "REAL",
    "boolean": "INTEGER",
    "blob": "BLOB",
    "time": "TEXT",
    "json": "TEXT",
}
_REGISTER = """
CREATE TABLE IF NOT EXISTS fetcher_tables(name TEXT PRIMARY KEY, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS fetcher_runs(run TEXT PRIMARY KEY, name TEXT NOT NULL, began TEXT NOT NULL);
"""
_MARKING = frozenset({*(column.name for column in COLUMNS if column.required), RUN})
_TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"


class SqliteSinkConfig(SinkSettings):
    """Records as rows of a table in an SQLite file."""

    type: Literal["sqlite"] = "sqlite"
    path: str = Field(min_length=1)
    """The file, relative to the working folder; it may hold tables of others, too."""
    table: Identifier = "results"
    """The table, which is created. Beside it there is a view of the failures, such as ``results_failures``."""
    durability: Literal["flush", "fsync"] = "flush"
    """``flush`` survives the end of the process; ``fsync`` the end of the machine, at the cost of speed."""

    def build(self) -> SqliteSink:
        """Return the sink, not yet open."""
        return SqliteSink(Path(self.path), self.table, synchronous=self.durability == "fsync")


class SqliteMark(msgspec.Struct):
    """Which run's rows they are, in which table."""

    run: str
    table: str


class SqliteSink:
    """Writes each batch in one transaction, on a thread of its own."""

    def __init__(self, path: Path, table: str = "results", *, synchronous: bool = False, busy: float = _BUSY) -> None:
        self._path = path
        self._table = table
        self._synchronous = synchronous
        self._busy = busy
        self._run = ""
        self._db: sqlite3.Connection | None = None
        self._thread = OwnThread("sqlite sink")
        self._inserts = {rows: _insert(table, rows) for rows in _ROWS}

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Refuse a file that is no database, damaged, locked or not writable, and a table that is not ours."""
        await self._thread.run(self._check, self._decoded(mark) if resume else None)

    async def discard(self, mark: str) -> None:
        """Delete the rows of an earlier run that no other has replaced since."""
        await self._thread.run(self._discard, self._decoded(mark))

    async def open(self, mark: str | None) -> str:
        """Create the table or what it lacks, and begin a run or go on with that of ``mark``."""
        await self._thread.run(self._open, self._decoded(mark))
        return msgspec.json.encode(SqliteMark(self._run, self._table)).decode()

    async def write(self, results: Sequence[Result]) -> str:
        """Insert or replace rows; the mark stays what it was."""
        await self._thread.run(self._write, results)
        return msgspec.json.encode(SqliteMark(self._run, self._table)).decode()

    async def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            await self._thread.run(self._close)
        self._thread.close()

    def _decoded(self, mark: str | None) -> SqliteMark | None:
        try:
            return msgspec.json.decode(mark, type=SqliteMark) if mark is not None else None
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._path}: how much of it is this batch's own was recorded in a way unknown here ({error}); "
                "start over with --fresh"
            ) from error

    # What follows runs on the sink's thread.

    def _check(self, mark: SqliteMark | None) -> None:
        if not self._path.exists():
            self._check_folder(mark)
            return
        with self._refusing(), closing(self._connected()) as db, _transaction(db):
            self._recognise(db, mark)

    def _check_folder(self, mark: SqliteMark | None) -> None:
        """Refuse a file that can not be created, or that should have been there."""
        if mark is not None:
            raise self._gone()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            self._path.unlink()
        except OSError as error:
            raise ConfigError(f"{self._path}: can not be created: {error.strerror}; choose another path") from error

    def _discard(self, mark: SqliteMark) -> None:
        if not self._path.exists():
            return
        with self._refusing(), closing(self._connected()) as db, _transaction(db):
            if self._recognise(db, None):
                db.execute(f"DELETE FROM {quoted(self._table)} WHERE {RUN} = ?", (mark.run,))  # noqa: S608  quoted
                db.execute("DELETE FROM fetcher_runs WHERE run = ?", (mark.run,))

    def _open(self, mark: SqliteMark | None) -> None:
        if mark is not None and not self._path.exists():
            raise self._gone()
        with self._refusing():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = self._connected(create=True)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA synchronous = {'FULL' if self._synchronous else 'NORMAL'}")
                with _transaction(db):
                    self._run = self._begun(db) if mark is None else self._resumed(db, mark)
                    self._widen(db)
            except BaseException:
                db.close()
                raise
        self._db = db

    def _begun(self, db: sqlite3.Connection) -> str:
        if not self._recognise(db, None):
            for statement in _schema(self._table):
                db.execute(statement)
            db.execute("INSERT INTO fetcher_tables VALUES (?, ?)", (self._table, _VERSION))
        run = new_run()
        db.execute("INSERT INTO fetcher_runs VALUES (?, ?, ?)", (run, self._table, _time(datetime.now(UTC))))
        return run

    def _resumed(self, db: sqlite3.Connection, mark: SqliteMark) -> str:
        self._recognise(db, mark)
        return mark.run

    def _widen(self, db: sqlite3.Connection) -> None:
        """Add the columns that records have and the table has not."""
        for name in self._lacking(db):
            kind = next(column.kind for column in COLUMNS if column.name == name)
            db.execute(f"ALTER TABLE {quoted(self._table)} ADD COLUMN {quoted(name)} {_TYPES[kind]}")

    def _lacking(self, db: sqlite3.Connection) -> list[str]:
        """Return the columns to be added. Raises ConfigError if there are some that the table had from the start."""
        rows = db.execute("SELECT name FROM pragma_table_info(?)", (self._table,))
        there = {name.lower() for (name,) in rows}  # SQLite does not tell upper from lower case
        lacking = [name for name in (*(column.name for column in COLUMNS), RUN) if name not in there]
        if gone := [name for name in lacking if name in _MARKING]:
            raise ConfigError(
                f"{self._path}: the table {self._table} has no column {gone[0]} any more, which all tables of fetcher "
                "have; name another with 'table:'"
            )
        return lacking

    def _recognise(self, db: sqlite3.Connection, mark: SqliteMark | None) -> bool:
        """Tell whether the table is there; raise ConfigError if it is not ours, StateError if it is not the mark's."""
        tables = {name for (name,) in db.execute(_TABLES)}
        version = None
        if "fetcher_tables" in tables:
            row = db.execute("SELECT version FROM fetcher_tables WHERE name = ?", (self._table,)).fetchone()
            version = row and row[0]
        there = self._table in tables
        if version is not None and version > _VERSION:
            raise StateError(
                f"{self._path}: the table {self._table} was written by a newer version of fetcher; "
                "use that, or name another table"
            )
        if there and version is None:
            raise ConfigError(
                f"{self._path}: has a table {self._table} that was not made by fetcher; name another with 'table:'"
            )
        if mark is not None:
            runs = there and db.execute("SELECT 1 FROM fetcher_runs WHERE run = ?", (mark.run,)).fetchone()
            if mark.table != self._table or not runs:
                raise self._gone()
        if there:
            self._lacking(db)
        return there

    def _write(self, results: Sequence[Result]) -> None:
        if self._db is None:
            raise SinkError(f"{self._path}: is not open")
        columns = transposed(latest(results), _CONVERT)
        rows = [value for row in zip(*columns, strict=True) for value in (*row, self._run)]
        width = len(COLUMNS) + 1
        try:
            with _transaction(self._db):
                at = 0
                for size in _ROWS:
                    while len(rows) - at >= size * width:
                        self._db.execute(self._inserts[size], rows[at : at + size * width])
                        at += size * width
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    # Errors

    def _connected(self, *, create: bool = False) -> sqlite3.Connection:
        if self._path.exists() and 0 < self._path.stat().st_size < _SMALLEST_PAGE:
            # SQLite takes what is shorter than a page for empty, and would write over it.
            raise ConfigError(f"{self._path}: is not an SQLite database; choose another path")
        uri = f"{self._path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        return sqlite3.connect(uri, uri=True, timeout=self._busy, isolation_level=None, check_same_thread=False)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what SQLite says before a batch begins into errors that say what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: sqlite3.Error | OSError) -> FetcherError:
        code = _code(error)
        if code in _SUITS:
            return StateBusyError(
                f"{self._path}: is locked by another process; wait until it has ended, or choose another path"
            )
        if code == sqlite3.SQLITE_NOTADB:
            return ConfigError(f"{self._path}: is not an SQLite database; choose another path")
        if code == sqlite3.SQLITE_CORRUPT:
            return StateError(f"{self._path}: is damaged ({error}); move it away, and start over with --fresh")
        return ConfigError(f"{self._path}: can not be written: {_words(error)}; choose another path")

    def _failure(self, error: sqlite3.Error) -> SinkError:
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return SinkError(f"{self._path}: no space left; free some", retryable=True)
        if code in _SUITS:
            return SinkError(f"{self._path}: is locked by another process", retryable=True)
        hint = "; move it away, and start over with --fresh" if code in _DAMAGED else ""
        return SinkError(f"{self._path}: {_words(error)}{hint}")

    def _gone(self) -> StateError:
        return StateError(
            f"{self._path}: is not there, or is not the file with the table {self._table} that this batch has written "
            "to; put it back, or start over with --fresh"
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing. Takes the lock at once, so that it is not found taken half way."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _schema(table: str) -> list[str]:
    columns = [
        f"{quoted(column.name)} {_TYPES[column.kind]}{' NOT NULL' if column.required else ''}" for column in COLUMNS
    ]
    definition = ", ".join([*columns, f"{quoted(RUN)} TEXT NOT NULL", f"PRIMARY KEY ({', '.join(KEY)})"])
    unwanted = ", ".join(f"'{kind}'" for kind in sorted(UNWANTED))
    condition = f"outcome <> 'ok' AND ifnull(error_kind, '') NOT IN ({unwanted})"
    failures = f"SELECT {', '.join(_FAILURE)} FROM {quoted(table)} WHERE {condition}"  # noqa: S608  quoted
    return [
        *_REGISTER.strip().split("\n"),
        f"CREATE TABLE {quoted(table)}({definition})",
        f"CREATE VIEW {quoted(table + '_failures')} AS {failures}",
    ]


_FAILURE = ("batch", "job_id", "url", "status", "error_kind", "error_message", "attempts", "finished_at")


def _insert(table: str, rows: int) -> str:
    names = ", ".join(quoted(name) for name in [*(column.name for column in COLUMNS), RUN])
    row = f"({', '.join('?' * (len(COLUMNS) + 1))})"
    return f"INSERT INTO {quoted(table)} ({names}) VALUES {', '.join([row] * rows)} {upsert_tail()}"  # noqa: S608


def _time(moment: datetime) -> str:
    return in_utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _code(error: Exception) -> int | None:
    """Return SQLite's primary result code."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _words(error: sqlite3.Error | OSError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


_CONVERT: dict[Kind, Callable[[Any], Any]] = {
    "text": writable,
    "integer": integer,
    "json": json_text,
    "time": _time,
}
