"""The SQLite file of a queue: its schema, how it is recognised, opened and locked."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from fetcher.errors import StateBusyError, StateError

if TYPE_CHECKING:
    from pathlib import Path

_APPLICATION_ID = 0x66746368  # "ftch"
_VERSION = 1
_MINIMUM_SQLITE = (3, 35, 0)
_SMALLEST_PAGE = 512

_SCHEMA = f"""
BEGIN;
CREATE TABLE jobs(seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, payload TEXT NOT NULL);
CREATE INDEX jobs_by_lane ON jobs(lane, seq);
CREATE TABLE lane(id INTEGER PRIMARY KEY, host TEXT NOT NULL, priority INTEGER NOT NULL, UNIQUE(host, priority));
CREATE TABLE done(seq INTEGER PRIMARY KEY, outcome TEXT NOT NULL);
CREATE TABLE delayed(seq INTEGER PRIMARY KEY, due REAL NOT NULL);
CREATE INDEX delayed_by_due ON delayed(due);
CREATE TABLE seen(key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE marks(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counts(name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""


def open_database(path: Path, *, synchronous: bool) -> sqlite3.Connection:
    """Open or create the file of a queue and lock it for this process. Raises StateError."""
    if sqlite3.sqlite_version_info < _MINIMUM_SQLITE:
        raise StateError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or later is needed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"{path.parent}: can not create the folder for the queue: {error.strerror}") from error
    stray = _probe(path)
    # Jobs have passwords and tokens in them. SQLite gives its log the mode of the file. Whatever is wrong with the
    # path, SQLite will say.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        _prepare(db, path, synchronous=synchronous)
    except BaseException:
        db.close()
        raise
    for file in stray:
        file.unlink(missing_ok=True)
    return db


def _probe(path: Path) -> list[Path]:
    """Refuse what is not ours before SQLite writes what a dead owner left in the log into the file.

    Return what this leaves behind, to be deleted once the file is locked.
    """
    with contextlib.suppress(FileNotFoundError):
        # SQLite takes what is shorter than a page for empty.
        if 0 < path.stat().st_size < _SMALLEST_PAGE:
            raise sqlite3.DatabaseError("file is not a database")
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    if not log.exists() or not log.stat().st_size:
        return []
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
    try:
        _identify(db, path)
    finally:
        db.close()
    return [index]


def _identify(db: sqlite3.Connection, path: Path) -> bool:
    """Tell whether the file is still to be filled; raise StateError if it is not ours."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    empty = bool(db.execute("SELECT count(*) = 0 FROM sqlite_master").fetchone()[0])
    if not empty and application != _APPLICATION_ID:
        raise StateError(f"{path}: is a database, but not a queue of fetcher; give another path")
    if version > _VERSION:
        raise StateError(f"{path}: was written by a newer version of fetcher; use that, or give another path")
    return empty


def _prepare(db: sqlite3.Connection, path: Path, *, synchronous: bool) -> None:
    # Exclusive locking keeps a second process out for as long as this one lives, however it ends. It comes
    # first, so that the log's index is kept in memory rather than in a file.
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    empty = _identify(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if synchronous else 'NORMAL'}")
    db.execute("PRAGMA cache_size = -16000")
    # Temporary tables need no file, of which there may be none left beside so many connections. What they hold is
    # bounded by the lanes, about 100 bytes for each host and priority: 100 MB for a million hosts.
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA temp.journal_mode = MEMORY")
    if empty:
        db.executescript(_SCHEMA)


def state_error(error: sqlite3.Error, path: Path) -> StateError:
    """Return our error for one of SQLite, naming the file and what to do."""
    text = str(error)
    if "locked" in text:
        return StateBusyError(f"{path}: another process is using this queue; wait until it has ended, or name another")
    if "not a database" in text or "malformed" in text:
        return StateError(f"{path}: is not a readable queue ({text}); move it away to start over")
    return StateError(f"{path}: {text}")
