"""A queue in one SQLite file, owned by one process at a time.

Durable are the jobs, which of them are done, what is delayed, and the marks. Leases are not: the file is locked
for as long as it is open, so whoever opens it knows that nobody holds a lease, and a lease costs no write.

    jobs(seq, lane, payload)    a job as JSON; lane is its priority and host; order within a lane is by seq
    done(seq, outcome)          small and dense, so that an ack of jobs from many hosts touches few pages
    delayed(seq, due)           jobs that wait for a retry; when due they are put again under a new seq
    temp.lanes                  of each lane: jobs ready, and the seq up to which it was leased; rebuilt at open

Each batch is one statement over a JSON array: sqlite3 then gives up the GIL once per batch instead of once per
row, and the event loop runs on beside it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from pydantic import Field

from fetcher.errors import StateError
from fetcher.interfaces import Ack, Counts, Lease, Leased, Nack
from fetcher.model import Job, Outcome
from fetcher.queues.database import open_database, state_error
from fetcher.queues.leases import LeaseTable
from fetcher.settings import Duration, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_T = TypeVar("_T")
_Candidate = tuple[int, str, int, int, int]  # lane, host, jobs ready, head, room of the host
_Take = tuple[int, int, int]  # lane, head, how many

_LONGEST_DELAY = 600.0

_LANES = """
CREATE TEMP TABLE lanes(id INTEGER PRIMARY KEY, host TEXT, priority INTEGER, ready INTEGER, head INTEGER);
INSERT INTO lanes SELECT lane.id, host, priority, ready, head FROM lane JOIN (
    SELECT lane AS id, count(*) AS ready, min(seq) - 1 AS head FROM jobs
    WHERE seq NOT IN (SELECT seq FROM done) AND seq NOT IN (SELECT seq FROM delayed) GROUP BY lane) USING (id);
CREATE INDEX temp.lanes_by_backlog ON lanes(priority DESC, ready DESC) WHERE ready > 0;
CREATE TEMP TABLE room(host TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
"""

_NEW_LANES = """
INSERT OR IGNORE INTO lane(host, priority)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)
"""
_LANE_IDS = """
SELECT json_group_array(json_array(host, priority, id)) FROM lane WHERE (host, priority) IN
(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
_GROW_LANES = """
INSERT INTO lanes SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), 0 FROM json_each(?) WHERE true
ON CONFLICT(id) DO UPDATE SET ready = ready + excluded.ready
"""
_PUT = (
    "INSERT INTO jobs(lane, payload) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
)
_CANDIDATES = """
SELECT json_group_array(json_array(id, host, ready, head, n)) FROM (
    SELECT id, host, ready, head, coalesce(room.n, :per_host) AS n FROM lanes LEFT JOIN room USING (host)
    WHERE ready > 0 AND coalesce(room.n, :per_host) > 0 ORDER BY priority DESC, ready DESC LIMIT :limit)
"""
# LIMIT can not depend on a row, so each lane reads as much as the one that takes most, and json_each's key cuts it.
_TAKE = """
SELECT json_group_array(json_array(seq, lane, json(payload))) FROM jobs WHERE seq IN (
    SELECT picked.value FROM json_each(:takes) AS take, json_each((
        SELECT json_group_array(seq) FROM (
            SELECT seq FROM jobs
            WHERE lane = json_extract(take.value, '$[0]') AND seq > json_extract(take.value, '$[1]')
              AND NOT EXISTS (SELECT 1 FROM done WHERE done.seq = jobs.seq)
              AND NOT EXISTS (SELECT 1 FROM delayed WHERE delayed.seq = jobs.seq)
            ORDER BY seq LIMIT :most))) AS picked
    WHERE picked.key < json_extract(take.value, '$[2]'))
"""
_ADVANCE = """
UPDATE lanes SET ready = ready - json_extract(taken.value, '$[1]'), head = json_extract(taken.value, '$[2]')
FROM json_each(?) AS taken WHERE lanes.id = json_extract(taken.value, '$[0]')
"""
_DONE = "INSERT INTO done SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
_DELAY = "INSERT INTO delayed SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
_REWRITE = """
UPDATE jobs SET payload = json_extract(value, '$[2]') FROM json_each(?) WHERE seq = json_extract(value, '$[0]')
"""
_DUE = "SELECT json_group_array(seq) FROM (SELECT seq FROM delayed WHERE due <= ? ORDER BY due LIMIT ?)"
_DUE_LANES = """
SELECT json_group_array(json_array(lane, host, priority, n)) FROM (
    SELECT lane, count(*) AS n FROM jobs WHERE seq IN (SELECT value FROM json_each(?)) GROUP BY lane)
JOIN lane ON lane.id = lane
"""
_PUT_AGAIN = """
INSERT INTO jobs(lane, payload)
SELECT lane, payload FROM jobs WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq
"""


class SqliteQueueConfig(Settings):
    """Kept in one file, so that a run can be resumed after any kind of end."""

    type: Literal["sqlite"] = "sqlite"
    path: str = ""
    """The file; ``state/<name of the batch>.db`` if it is not given."""
    lease: Duration = 60.0
    """How long a job may be held before it is given to somebody else; held leases are renewed in time."""
    capacity: int = Field(default=2_000_000, ge=1)
    """Reading pauses while this many jobs have not ended; a job takes some 150 bytes of disk."""
    durability: Literal["flush", "fsync"] = "flush"
    """``flush`` survives the end of the process; ``fsync`` the end of the machine, at the cost of speed."""

    def build(self) -> SqliteQueue:
        """Return the queue, not yet open."""
        return SqliteQueue(
            Path(self.path), lease=self.lease, capacity=self.capacity, synchronous=self.durability == "fsync"
        )


class SqliteQueue:
    """Runs every statement on one thread of its own, so that a slow disk never holds up the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        lease: float = 60.0,
        capacity: int = 2_000_000,
        synchronous: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.term = lease
        self.capacity = capacity
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._leases: LeaseTable[tuple[int, int]] = LeaseTable(lease)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="queue")
        self._db: sqlite3.Connection | None = None
        self._closed = False
        # Persisted times are wall-clock; within a run they follow the steady clock, so that a jump moves nothing.
        self._epoch = time.time() - clock()

    async def open(self) -> Mapping[str, str]:
        """Open or create the file, lock it, and return all marks."""
        return await self._run(self._open)

    async def put(self, jobs: Sequence[Job], marks: Mapping[str, str]) -> int:
        """Add jobs and return how many were new."""
        return await self._run(self._put, jobs, marks)

    async def lease(self, limit: int, per_host: int, room: Mapping[str, int]) -> Leased:
        """Lease ready jobs of hosts that have room."""
        # Whether a lease has lapsed is judged by the time of this call. If the process is stopped before it is
        # carried out, its owner has had no chance to renew.
        return await self._run(self._lease, limit, per_host, room, self._clock())

    async def ack(self, acks: Sequence[Ack], marks: Mapping[str, str]) -> int:
        """End jobs, store marks, and return how many leases were refused."""
        return await self._run(self._ack, acks, marks)

    async def nack(self, nacks: Sequence[Nack]) -> int:
        """Give jobs back and return how many leases were refused."""
        return await self._run(self._nack, nacks)

    async def extend(self, leases: Sequence[Lease]) -> int:
        """Renew leases and return how many were refused."""
        return await self._run(self._leases.extend, leases, self._clock())

    async def counts(self) -> Counts:
        """Count the jobs by state."""
        return await self._run(self._count)

    async def clear(self) -> None:
        """Forget everything."""
        await self._run(self._clear)

    async def close(self) -> None:
        """Close the file and give up its lock."""
        if not self._closed:
            await self._run(self._close)
            self._closed = True
            self._executor.shutdown(wait=False)

    async def _run(self, function: Callable[..., _T], *args: Any) -> _T:
        if self._closed:
            raise StateError(f"{self._path}: the queue is closed")
        call = asyncio.get_running_loop().run_in_executor(self._executor, self._guarded, function, args)
        # A cancelled caller must not leave while its transaction is still running: what it would do next (close,
        # say) has to find the outcome decided.
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise

    def _guarded(self, function: Callable[..., _T], args: tuple[Any, ...]) -> _T:
        try:
            return function(*args)
        except sqlite3.Error as error:
            raise state_error(error, self._path) from error
        finally:
            if self._db is not None and self._db.in_transaction:
                self._db.rollback()

    # What follows runs on the queue's thread.

    def _open(self) -> dict[str, str]:
        self._db = db = open_database(self._path, synchronous=self._synchronous)
        # A wall clock that was set back between two runs must not turn a short delay into a long one.
        db.execute("UPDATE delayed SET due = min(due, ?)", (self._now() + _LONGEST_DELAY,))
        db.executescript(_LANES)
        return dict(db.execute("SELECT name, value FROM marks"))

    def _now(self) -> float:
        return self._epoch + self._clock()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError(f"{self._path}: the queue is not open")
        return self._db

    def _put(self, jobs: Sequence[Job], marks: Mapping[str, str]) -> int:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        fresh = self._unseen(db, jobs)
        backlog: dict[tuple[str, int], int] = {}
        for job in fresh:
            lane = (job.host, job.priority)
            backlog[lane] = backlog.get(lane, 0) + 1
        named = _json(list(backlog))
        db.execute(_NEW_LANES, (named,))
        ids = {(host, priority): lane for host, priority, lane in _one(db, _LANE_IDS, named)}
        db.execute(_GROW_LANES, (_json([(ids[lane], *lane, n) for lane, n in backlog.items()]),))
        db.execute(_PUT, (_json([(ids[job.host, job.priority], job) for job in fresh]),))
        duplicates = _rows(jobs) - _rows(fresh) if len(fresh) < len(jobs) else 0
        self._add_counts(db, {"added": len(fresh), "duplicates": duplicates})
        self._set_marks(db, marks)
        db.execute("COMMIT")
        return len(fresh)

    def _unseen(self, db: sqlite3.Connection, jobs: Sequence[Job]) -> Sequence[Job]:
        if not any(job.key is not None for job in jobs):
            return jobs
        # Keys are stored as digests: a key is often a whole URL, and there is one for every job.
        digests = [
            None if job.key is None else blake2b(job.key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            for job in jobs
        ]
        fresh = []
        for job, digest in zip(jobs, digests, strict=True):
            job.key = None
            if digest is None or db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount:
                fresh.append(job)
        return fresh

    def _lease(self, limit: int, per_host: int, room: Mapping[str, int], asked_at: float) -> Leased:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        lapsed = self._reclaim(db, limit, asked_at)
        db.execute("DELETE FROM room")
        db.execute("INSERT INTO room SELECT key, value FROM json_each(?)", (_json(room),))
        lanes, takes = self._shares(db, limit, per_host)
        rows = _decode_rows(
            db.execute(_TAKE, {"takes": _json(takes), "most": max((t[2] for t in takes), default=0)}).fetchone()[0]
        )
        taken: dict[int, tuple[int, int]] = {}
        for seq, lane, _ in rows:
            count, head = taken.get(lane, (0, 0))
            taken[lane] = (count + 1, max(head, seq))
        db.execute(_ADVANCE, (_json([(lane, *rest) for lane, rest in taken.items()]),))
        due = db.execute("SELECT min(due) FROM delayed").fetchone()[0]
        db.execute("COMMIT")
        self._leases.release(lapsed)
        rank = {take[0]: place for place, take in enumerate(takes)}
        rows.sort(key=lambda row: (rank[row[1]], row[0]))
        token = self._leases.grant([(seq, lane) for seq, lane, _ in rows], self._clock())
        leases = [Lease(job, seq, token) for seq, _, job in rows]
        backlog: dict[str, int] = {}
        for lane, host, ready, _, _ in lanes:
            if lane in taken:
                backlog[host] = backlog.get(host, 0) + ready
        return Leased(leases, None if due is None else max(0.0, due - self._now()), backlog)

    def _shares(self, db: sqlite3.Connection, limit: int, per_host: int) -> tuple[list[_Candidate], list[_Take]]:
        most = limit
        while True:
            lanes = _one(db, _CANDIDATES, {"per_host": per_host, "limit": most})
            takes = _takes(lanes, limit)
            # Lanes of hosts whose room is used up by a higher priority may have hidden others.
            if len(lanes) < most or sum(take for _, _, take in takes) >= limit:
                return lanes, takes
            most *= 4

    def _reclaim(self, db: sqlite3.Connection, limit: int, asked_at: float) -> list[int]:
        """Put back what is due, and what was leased and not heard of again; return the latter."""
        now = self._now()
        lapsed = [seq for seq, _ in self._leases.lapsed(asked_at)]
        if lapsed:
            db.execute(_DELAY, (_json([(seq, now) for seq in lapsed]),))
        # Somewhat more than can be leased, so that a host without room does not hide those behind it for long.
        due = _one(db, _DUE, (now, limit * 4))
        if not due:
            return lapsed
        seqs = _json(due)
        db.execute(_GROW_LANES, (_json(_one(db, _DUE_LANES, (seqs,))),))
        db.execute(_PUT_AGAIN, (seqs,))
        db.execute("DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?))", (seqs,))
        db.execute("DELETE FROM delayed WHERE seq IN (SELECT value FROM json_each(?))", (seqs,))
        return lapsed

    def _ack(self, acks: Sequence[Ack], marks: Mapping[str, str]) -> int:
        db = self._connection()
        held = self._leases.held(acks)
        counts: dict[str, int] = {}
        for ack in held:
            counts[ack.outcome.value] = counts.get(ack.outcome.value, 0) + 1
        db.execute("BEGIN IMMEDIATE")
        db.execute(_DONE, (_json([(ack.lease.handle, ack.outcome) for ack in held]),))
        self._add_counts(db, counts)
        self._set_marks(db, marks)
        db.execute("COMMIT")
        self._leases.release(ack.lease.handle for ack in held)
        return len(acks) - len(held)

    def _nack(self, nacks: Sequence[Nack]) -> int:
        db = self._connection()
        now = self._now()
        held = self._leases.held(nacks)
        rows = _json([(nack.lease.handle, now + nack.delay, nack.lease.job) for nack in held])
        db.execute("BEGIN IMMEDIATE")
        db.execute(_REWRITE, (rows,))
        db.execute(_DELAY, (rows,))
        db.execute("COMMIT")
        self._leases.release(nack.lease.handle for nack in held)
        return len(nacks) - len(held)

    def _count(self) -> Counts:
        db = self._connection()
        stored = dict(db.execute("SELECT name, n FROM counts"))
        outcomes = {outcome: stored[outcome] for outcome in Outcome if outcome in stored}
        added = stored.get("added", 0)
        delayed = db.execute("SELECT count(*) FROM delayed").fetchone()[0]
        leased = len(self._leases)
        ready = added - sum(outcomes.values()) - delayed - leased
        return Counts(added, stored.get("duplicates", 0), ready, delayed, leased, outcomes)

    def _clear(self) -> None:
        db = self._connection()
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        db.execute("BEGIN IMMEDIATE")
        for (table,) in [*tables, ("lanes",)]:
            db.execute(f"DELETE FROM {table}")  # noqa: S608  our own tables' names
        db.execute("COMMIT")
        db.execute("VACUUM")
        self._leases.clear()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _add_counts(self, db: sqlite3.Connection, counts: Mapping[str, int]) -> None:
        db.executemany(
            "INSERT INTO counts VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n",
            [(name, n) for name, n in counts.items() if n],
        )

    def _set_marks(self, db: sqlite3.Connection, marks: Mapping[str, str]) -> None:
        db.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", marks.items())


_encode = msgspec.json.Encoder().encode
_decode_rows = msgspec.json.Decoder(list[tuple[int, int, Job]]).decode


def _json(value: Any) -> str:
    return _encode(value).decode()


def _one(db: sqlite3.Connection, query: str, parameters: Any) -> Any:
    """Return the single JSON value that a query yields."""
    bound = parameters if isinstance(parameters, tuple | dict) else (parameters,)
    return msgspec.json.decode(db.execute(query, bound).fetchone()[0])


def _rows(jobs: Sequence[Job]) -> int:
    """Return how many jobs are of an input, and not next pages."""
    return sum(job.parent is None for job in jobs)


def _takes(lanes: Iterable[_Candidate], limit: int) -> list[_Take]:
    """Share ``limit`` out over lanes in their order; lanes of one host share that host's room."""
    used: dict[str, int] = {}
    takes = []
    for lane, host, ready, head, room in lanes:
        take = min(ready, room - used.get(host, 0), limit)
        if take > 0:
            takes.append((lane, head, take))
            used[host] = used.get(host, 0) + take
            limit -= take
    return takes
