"""What earlier runs fetched, so that what has not changed need not travel again (RFC 9110, section 13; RFC 9111).

    entries(key, entry)    of each URL: its validators, and what the record of its body said
    bodies(key, body)      bodies that went into records, which a later run may have to give again

It is no HTTP cache: nothing is answered from it. Every request is made, with conditions where that is possible. All
statements run on one thread. Lookups that come while one is under way are answered together by the next, so that a
thousand requests in flight cost a few calls; what is new is written every second or so, and at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from pydantic import Field

from fetcher.errors import StateBusyError, StateError
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

_APPLICATION_ID = 0x66746363  # "ftcc"
_VERSION = 1
_EXIT_RESUMABLE = 75
_PATIENCE = 10.0
_LINGER = 1.0
_MANY = 500
_MUCH = 8 * 1024 * 1024
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries(key TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bodies(key TEXT PRIMARY KEY, body BLOB NOT NULL);
PRAGMA user_version = {_VERSION};
PRAGMA application_id = {_APPLICATION_ID};
COMMIT;
"""
_FIND = "SELECT json_group_object(key, json(entry)) FROM entries WHERE key IN (SELECT value FROM json_each(?))"

_FORGET = "DELETE FROM entries WHERE key = ? AND json_extract(entry, '$.sha256') = ?"


class CacheSettings(Settings):
    """Where it is kept what earlier runs fetched."""

    path: str = Field(default="state/cache.db", min_length=1)
    """The file; batches may share it, also at the same time."""


class Entry(msgspec.Struct, omit_defaults=True):
    """A body of an earlier run, as its record described it, and what its server is asked whether it still is so.

    ``vary`` names the request headers that it depends on, ``variant`` is a hash of their values. ``path`` is its file;
    without one the body is ``inline`` in the cache, or was not kept by anybody.
    """

    url: str
    sha256: str
    size: int
    etag: str | None = None
    modified: str | None = None
    vary: tuple[str, ...] = ()
    variant: str = ""
    content_type: str | None = None
    path: str | None = None
    inline: bool = False
    stored_at: float = 0.0


class Cache:
    """A SQLite file. Raises StateError where it can not be used, which stops the run rather than a job."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._db: sqlite3.Connection | None = None
        self._wanted: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._looking: asyncio.Future[dict[str, Entry]] | None = None
        self._new: dict[str, tuple[Entry, bytes | None]] = {}
        self._new_size = 0
        self._writing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open or create the file."""
        await self._run(self._open)

    async def close(self) -> None:
        """Write what is new. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._db is None:
            self._executor.shutdown(wait=False)
            return
        try:
            await self._written()
            self._flush()
            await self._written()
        finally:
            await self._run(self._close)
            self._executor.shutdown(wait=False)

    async def find(self, url: str) -> Entry | None:
        """Return what is known of a URL, unless the file with its body is gone."""
        key = _key(url)
        if key in self._new:
            return self._new[key][0]
        waiter: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._wanted.append((key, waiter))
        if self._looking is None:
            self._look()
        return await waiter

    async def body(self, entry: Entry) -> bytes | None:
        """Return a body that is kept here; None if it is not that of the entry any more."""
        key = _key(entry.url)
        if key in self._new:
            newest, body = self._new[key]
            return body if newest.sha256 == entry.sha256 else None
        return await self._run(self._body, key, entry.sha256)

    async def add(self, entry: Entry, body: bytes | None) -> None:
        """Remember a body in place of what was known of its URL. Waits if the disk is far behind."""
        if self._writing is not None and (self._writing.done() or self._new_size >= _MUCH):
            await self._written()
        entry.stored_at = round(time.time(), 3)
        self._new[_key(entry.url)] = (entry, body)
        self._new_size += len(body or b"")
        if self._new_size >= _MUCH or len(self._new) >= _MANY:
            self._flush()
        self._wind()

    async def drop(self, entry: Entry) -> None:
        """Forget a body that turned out not to be there as it was, unless a newer one has taken its place."""
        key = _key(entry.url)
        if key in self._new and self._new[key][0].sha256 == entry.sha256:
            _, body = self._new.pop(key)
            self._new_size -= len(body or b"")
        await self._run(self._drop, key, entry.sha256)

    # Lookups

    def _look(self) -> None:
        """Have everything looked up that is wanted, if anything is."""
        wanted, self._wanted = self._wanted, []
        self._looking = None
        if wanted:
            keys = [key for key, _ in wanted]
            self._looking = self._submit(self._find, keys)
            self._looking.add_done_callback(lambda call: self._found(wanted, call))

    def _found(
        self, wanted: Iterable[tuple[str, asyncio.Future[Entry | None]]], call: asyncio.Future[dict[str, Entry]]
    ) -> None:
        error = call.exception()
        for key, waiter in wanted:
            if waiter.done():
                continue  # its fetch was cancelled
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(call.result().get(key))
        self._look()

    # Writing

    def _wind(self) -> None:
        """See to it that what is new is written before long."""
        if self._timer is None and self._new:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()
        self._wind()

    def _flush(self) -> None:
        """Begin to write what is new, unless the last of it is still being written."""
        if self._new and (self._writing is None or self._writing.done()):
            new, self._new, self._new_size = self._new, {}, 0
            self._writing = self._submit(self._write, new)

    async def _written(self) -> None:
        """Wait until what is being written has been, and raise what went wrong with it."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _run(self, function: Callable[..., _T], *args: Any) -> _T:
        return await asyncio.shield(self._submit(function, *args))

    def _submit(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, self._guarded, function, args)

    # What follows runs on the thread.

    def _guarded(self, function: Callable[..., _T], args: tuple[Any, ...]) -> _T:
        try:
            return function(*args)
        except sqlite3.Error as error:
            raise self._state_error(error) from error
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror}; choose another http.cache.path") from error

    def _state_error(self, error: sqlite3.Error) -> StateError:
        text = str(error)
        if "locked" in text:
            return StateBusyError(f"{self._path}: another process keeps the cache locked; try again")
        if "full" in text:
            failure = StateError(f"{self._path}: {text}; free some space and run again to resume")
            failure.exit_code = _EXIT_RESUMABLE
            return failure
        return StateError(f"{self._path}: the cache can not be used ({text}); move it away to start with an empty one")

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Bodies and URLs are for nobody else's eyes. SQLite gives its log the mode of the file. Whatever is wrong with
        # the path, SQLite will say.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._db = db = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        known = tuple(db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and known != (_APPLICATION_ID, _VERSION):
            raise StateError(f"{self._path}: is a database, but not a cache of this version of fetcher; name another")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if empty:
            db.executescript(_SCHEMA)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError(f"{self._path}: the cache is not open")
        return self._db

    def _find(self, keys: list[str]) -> dict[str, Entry]:
        wanted = msgspec.json.encode(keys).decode()
        entries = _decode(self._connection().execute(_FIND, (wanted,)).fetchone()[0])
        return {key: entry for key, entry in entries.items() if entry.path is None or _is_there(entry)}

    def _body(self, key: str, expected: str) -> bytes | None:
        row = self._connection().execute("SELECT body FROM bodies WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None and sha256(row[0]).hexdigest() == expected else None

    def _drop(self, key: str, digest: str) -> None:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            if db.execute(_FORGET, (key, digest)).rowcount:
                db.execute("DELETE FROM bodies WHERE key = ?", (key,))
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.rollback()

    def _write(self, new: dict[str, tuple[Entry, bytes | None]]) -> None:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            rows = [(key, msgspec.json.encode(entry).decode()) for key, (entry, _) in new.items()]
            db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows)
            db.executemany("DELETE FROM bodies WHERE key = ?", [(key,) for key in new])
            bodies = [(key, body) for key, (_, body) in new.items() if body is not None]
            db.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.rollback()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


_decode = msgspec.json.Decoder(dict[str, Entry]).decode


def _key(url: str) -> str:
    return blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _is_there(entry: Entry) -> bool:
    """Tell whether the file of a body is as long as it was. What is in it is read when a server says that it counts."""
    try:
        return entry.path is not None and Path(entry.path).stat().st_size == entry.size
    except OSError:
        return False
