"""Jobs from a query to an SQLite database, which is only ever read."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fetcher.errors import ConfigError, SourceError
from fetcher.interfaces import Chunk
from fetcher.sources import query as queries
from fetcher.sources.inputs import path_advice
from fetcher.sources.query import Answer, QuerySettings, check_columns, position_of, quoted
from fetcher.sources.rows import CHUNK_BYTES
from fetcher.sources.threads import read_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_STEPS = 10_000  # of SQLite's machine, between two looks at the clock: a millisecond or so
_ELSEWHERE = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})


class SqliteSourceConfig(QuerySettings):
    """A query to an SQLite database."""

    type: Literal["sqlite"] = "sqlite"
    """A query to an SQLite database."""
    path: str = Field(min_length=1)
    """The database, relative to the working folder."""

    def build(self) -> SqliteSource:
        """Return the source."""
        return SqliteSource(self)


class _Database:
    """A connection, of one thread. What takes longer than the timeout, or is not wanted any more, is interrupted."""

    def __init__(self, config: SqliteSourceConfig, stopped: threading.Event) -> None:
        self._config = config
        self._stopped = stopped
        self._deadline = 0.0
        if not Path(config.path).is_file():
            raise SourceError(f"{config.path}: there is no such file; {path_advice()}")
        uri = f"{Path(config.path).absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, timeout=config.lock_timeout, isolation_level=None)
        # Or a row with text that is not UTF-8 would end the reading. It is told from other text where it is used.
        self._connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        self._connection.set_progress_handler(self._late, _STEPS)
        self._connection.set_authorizer(_authorised)
        self._cursor = self._connection.cursor()

    def ask(self, sql: str, *values: Any) -> list[str]:
        """Begin a query, and return the names of its columns."""
        self._deadline = time.monotonic() + self._config.timeout
        self._cursor.execute(sql, values)
        return [column[0] for column in self._cursor.description or ()]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the next rows of the query: so many, or so many bytes of them."""
        self._deadline = time.monotonic() + self._config.timeout
        rows: list[tuple[Any, ...]] = []
        size = 0
        while len(rows) < queries.CHUNK_ROWS and size < CHUNK_BYTES:
            row = self._cursor.fetchone()
            if row is None:
                break
            rows.append(row)
            size += queries.size_of(row)
        return rows

    def told(self, error: sqlite3.Error | sqlite3.Warning) -> SourceError:
        """Return an error that says what is wrong with the query or the database."""
        reason = str(error)
        if reason == "interrupted":
            reason = f"it took longer than timeout, which is {self._config.timeout:g}s"
        return SourceError(f"{self._config.path}: the query failed: {reason}")

    def close(self) -> None:
        """Close the connection, and the query first, which would keep it."""
        self._cursor.close()
        self._connection.close()

    def _late(self) -> bool:
        return self._stopped.is_set() or time.monotonic() > self._deadline


def _authorised(action: int, *_: str | None) -> int:
    """Keep a query within its database, whatever it says."""
    return sqlite3.SQLITE_DENY if action in _ELSEWHERE else sqlite3.SQLITE_OK


class _Reading:
    """One reading of the rows. All but ``stopped`` belongs to one thread."""

    def __init__(self, config: SqliteSourceConfig) -> None:
        self._config = config
        self._database: _Database | None = None
        self.stopped = threading.Event()

    def open(self, position: str | None) -> None:
        config = self._config
        start = position_of(config.path, position)
        self._database = database = _Database(config, self.stopped)
        try:
            if config.order is None:
                names = database.ask(config.query)
            else:
                names = database.ask(*_ordered(config.query, config.order, start.after))
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise database.told(error) from error
        self._order = None if config.order is None else names.index(config.order)
        self._answer = Answer(config.path, names, config, start, json_text=True)

    def chunk(self) -> Chunk | None:
        """Return about 500 rows, fewer if some of them were read by an earlier run; None at the end."""
        assert self._database is not None  # noqa: S101  open was called
        try:
            rows = self._database.rows()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._database.told(error) from error
        if not rows:
            self._answer.end()
            return None
        taken = [self._answer.job(row, self._after(row)) for row in rows]
        return Chunk([job for job in taken if job is not None], self._answer.position)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _after(self, row: tuple[Any, ...]) -> int | float | str | None:
        value: int | float | str | bytes | None = None if self._order is None else row[self._order]
        if isinstance(value, bytes):
            raise SourceError(
                f"{self._config.path}: {self._config.order!r} is a BLOB, by which rows can not be ordered"
            )
        return value


def _ordered(query: str, order: str, after: float | str | None) -> tuple[Any, ...]:
    """Return a query by its order from a value on, and the value. Bytes decide, so that no two values are alike."""
    column = f"{quoted(order)} COLLATE BINARY"
    rest = "" if after is None else f" WHERE {column} > ?"
    values = () if after is None else (after,)
    return f"{_named(query)}{rest} ORDER BY {column}", *values


def _named(query: str) -> str:
    # As a part of another query, nothing but a SELECT can be parsed.
    return f"WITH fetcher_rows AS (\n{query}\n) SELECT * FROM fetcher_rows"  # noqa: S608  the query is the config's


def _first_name(name: str, names: list[str]) -> str:
    """Return what a column was called before SQLite made a second ``url`` into ``url:1``."""
    first, _, number = name.rpartition(":")
    return first if number.isdecimal() and first in names else name


class SqliteSource:
    """Yields the rows of a query, read in a thread of its own."""

    def __init__(self, config: SqliteSourceConfig) -> None:
        self._config = config

    def check(self) -> None:
        """Raise ConfigError if the database can not be opened, or the query is not a SELECT that it can answer."""
        config = self._config
        try:
            database = _Database(config, threading.Event())
        except (SourceError, sqlite3.Error) as error:
            raise ConfigError(str(error)) from error
        try:
            database.ask("SELECT 1 FROM sqlite_master")  # or nothing of the file would have been read
            names = database.ask(f"{_named(config.query)} LIMIT 0")
            check_columns(config.path, [_first_name(name, names) for name in names], config)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ConfigError(str(database.told(error))) from error
        finally:
            database.close()

    def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        return read_in_thread(_Reading(self._config), position)
