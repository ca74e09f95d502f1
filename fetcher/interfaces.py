"""The contract of the whole system: six interfaces, and the small values that pass between them.

    source --Chunk--> queue --Lease--> scheduler --Job--> transport --Response--> delivery --Result--> sinks
                        ^                                                             |
                        +------------------- Ack, Nack, marks ------------------------+

Everything here runs on one event loop. Unless a method says otherwise, it is called by one task at a time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from fetcher.errors import NOT_HAD, UNWANTED
from fetcher.model import Job, Outcome, Response, Result

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


class Chunk(msgspec.Struct):
    """Some jobs of a source, and the position after the last of them."""

    jobs: list[Job]
    position: str


class Source(Protocol):
    """Where jobs come from. It is read as a stream, once, and holds no more than a chunk."""

    def check(self) -> None:
        """Raise ConfigError if it is plain already that the input can not be read. Called before any fetch.

        It may take its time, and is called on a thread other than that of the loop.
        """
        ...

    def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on, or from the start if it is None.

        ``Job.id`` names the row within the source, the same at every reading. A row that can not be a job is
        yielded as a job with ``rejected`` set, never raised. Raises SourceError if the input can not be read on,
        or is not the input that ``position`` was taken from.
        """
        ...


class Lease(msgspec.Struct):
    """A job held by this engine since ``leased_at``, which the engine sets.

    ``handle`` and ``token`` mean something to the queue alone.
    """

    job: Job
    handle: int | str
    token: int
    leased_at: float = 0.0


class Leased(msgspec.Struct):
    """The answer to a lease: jobs to work on, and what the scheduler has to know of the rest.

    ``next_due``: in how many seconds the next delayed job becomes ready, None if none is delayed. ``backlog``: of
    each leased job's host, how many jobs are ready, those leased now included.
    """

    leases: list[Lease]
    next_due: float | None = None
    backlog: dict[str, int] = {}


class Ack(msgspec.Struct):
    """This job has ended, and every required sink has its record."""

    lease: Lease
    outcome: Outcome


class Nack(msgspec.Struct):
    """This job is to come back after ``delay`` seconds, as its ``lease.job`` now stands (attempts and all)."""

    lease: Lease
    delay: float


class Counts(msgspec.Struct):
    """What a batch consists of: ``added`` = ``ready`` + ``delayed`` + ``leased`` + the outcomes. Always."""

    added: int = 0
    duplicates: int = 0
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    outcomes: dict[Outcome, int] = {}

    @property
    def done(self) -> int:
        """Jobs that have ended, in whatever way."""
        return sum(self.outcomes.values())

    @property
    def left(self) -> int:
        """Jobs that have not ended yet."""
        return self.added - self.done


class Queue(Protocol):
    """What is still to be fetched. Survives the process unless its type says otherwise.

    Calls may overlap; each takes effect as a whole. ``marks`` is a small durable map (positions of sources, marks
    of sinks, the tally) whose changes are committed with the jobs they belong to, in one transaction.
    ``term`` is how many seconds a lease lasts; ``capacity`` how many jobs that have not ended it holds with ease.
    """

    term: float
    capacity: int

    async def open(self) -> Mapping[str, str]:
        """Open or create the queue, take back what a dead owner had leased, and return all marks.

        Raises StateBusyError if another process has it open, StateError if it can not be read.
        """
        ...

    async def put(self, jobs: Sequence[Job], marks: Mapping[str, str]) -> int:
        """Add jobs; return how many were new.

        A job whose ``key`` was ever put before is dropped, and counted as a duplicate unless it has a ``parent``: that
        has been fetched again after a crash, and leads to the same.
        """
        ...

    async def lease(self, limit: int, per_host: int, room: Mapping[str, int]) -> Leased:
        """Lease up to ``limit`` ready jobs, and of each host no more than ``room`` says, or else ``per_host``.

        Higher priority goes first, then the host with the most jobs waiting, then the order in which they were
        put. What it costs depends on ``limit`` and ``room``, not on how many jobs wait or how they are ordered.
        """
        ...

    async def ack(self, acks: Sequence[Ack], marks: Mapping[str, str]) -> int:
        """End jobs and store ``marks``; return how many leases were refused because they are no longer held."""
        ...

    async def nack(self, nacks: Sequence[Nack]) -> int:
        """Give jobs back, to be ready after their delay; return how many leases were refused."""
        ...

    async def extend(self, leases: Sequence[Lease]) -> int:
        """Hold leases for another full term; return how many were refused."""
        ...

    async def counts(self) -> Counts:
        """Count the jobs by state."""
        ...

    async def clear(self) -> None:
        """Forget everything: jobs, keys, counts and marks. Called right after ``open``, to start over."""
        ...

    async def close(self) -> None:
        """Release everything. May be called twice."""
        ...


class Transport(Protocol):
    """How a job of certain URL schemes is fetched. ``fetch`` is called by many workers at once."""

    async def open(self) -> None:
        """Get ready; raises ConfigError if a setting turns out to be unusable."""
        ...

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job, whatever its status. Raises FetchError if there is no trustworthy response.

        ``within`` is how many seconds are left of the job's own deadline; kind ``deadline`` if they are not enough.
        A cancelled fetch leaves nothing behind: no open socket that is not reusable, no task.
        """
        ...

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        ...


class Standing(msgspec.Struct, frozen=True):
    """What a fetch is at: in which phase, and for how many ``seconds``.

    ``received``: bytes of bodies so far, as they travelled. ``left``: for how many seconds it may go on at
    most, None if something else times what it is at.
    """

    phase: str
    seconds: float
    received: int = 0
    left: float | None = None


@runtime_checkable
class Checkable(Protocol):
    """A transport that can tell whether its settings are usable without being opened. Any may do without."""

    def check(self) -> None:
        """Raise ConfigError if a setting is unusable: what ``open`` would raise. Opens and changes nothing."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A transport that can tell what a fetch is at. Any may do without."""

    def standing(self, job: Job) -> Standing | None:
        """Tell what the fetch of a job is at, None if it is not under way. Asked now and then, for display."""
        ...


@runtime_checkable
class Surveyed(Protocol):
    """A transport that can tell what all of its fetches are at. Any may do without."""

    def at_work(self) -> Iterable[tuple[Job, str, float]]:
        """Return each job under way with its phase, as in ``Standing``, and for how many seconds that has lasted.

        Asked several times a second; what it returns is used up before anything else is done.
        """
        ...


class Format(Protocol):
    """How results become bytes. Pure: no I/O, no clock."""

    def begin(self) -> bytes:
        """Return what a new output starts with."""
        ...

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return the bytes of some results. Never fails on anything that a server can send."""
        ...


class PartFormat(Format, Protocol):
    """A format whose files are whole or nothing, as their end says where everything is. ``encode`` returns one.

    Records are kept as drafts, bytes that can be appended to one another, until they are enough for a file: after
    ``part_size`` bytes of them. Its config has ``streams = False``.
    """

    suffix: str
    part_size: int

    @property
    def columns(self) -> list[str]:
        """What each record has, in this order; a run goes on with those that it began with."""
        ...

    def follow(self, columns: Sequence[str]) -> None:
        """Write these columns from now on. Raises ValueError for one that no record has."""
        ...

    def columns_of(self, part: Path) -> list[str]:
        """Return the columns of a file."""
        ...

    def reads(self, drafts: Path) -> bool:
        """Return whether drafts of another version of the format have the columns of this one."""
        ...

    def draft(self, results: Sequence[Result]) -> bytes:
        """Return the results as a draft."""
        ...

    def length(self, drafts: Path, rows: int) -> int:
        """Return how many bytes of drafts hold their first records. Raises ValueError if no draft ends there."""
        ...

    def write(self, drafts: Path, create: Callable[[str], Path]) -> None:
        """Write all records of drafts to files; ``create`` names the file of a partition, which may be ``""``."""
        ...

    def count(self, part: Path) -> int:
        """Return how many records a file has."""
        ...

    def undo(self, parts: Iterable[Path], rows: int) -> Iterator[bytes]:
        """Yield drafts of the first ``rows`` records out of all that ``write`` wrote to these files."""
        ...


class Stage(Protocol):
    """What becomes of each result between the fetch and the sinks. Asked about one result at a time.

    ``concurrency`` 0: ``apply`` is called on a thread of the pipeline, and given up after ``timeout`` seconds if the
    stage has such an attribute. Otherwise it is called on the loop, and may return an awaitable; so many of those are
    awaited at once.
    """

    concurrency: int

    def check(self) -> None:
        """Raise ConfigError if the stage can not work. Called before any fetch."""
        ...

    def apply(self, result: Result) -> Result | Awaitable[Result | None] | None:
        """Return the record as it is to go on: the same, or a changed copy; None if it is to go nowhere.

        The given result must not be changed. Whatever is raised is about this job alone: it ends as failed, kind
        ``stage_failed``, with the message of a ValueError as it is.
        """
        ...


class Sink(Protocol):
    """Where results go. It is handed batches one at a time and neither retries, nor batches, nor counts.

    To resume, a batch calls ``check`` and ``open`` with the last mark. To start, ``check`` and ``open`` with None. To
    start over, ``check`` with the mark of the earlier run, ``discard`` with the same, and ``open`` with None.
    """

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Prove that what comes next will succeed, and change nothing that is there.

        Every sink is checked before the first one is opened or discards anything. Raises ConfigError if the output
        can not be used, StateBusyError if another run is using it, StateError if it is not as ``mark`` says.
        A mark is only ever given to a sink of the type, path and format that it was taken from.
        """
        ...

    async def discard(self, mark: str) -> None:
        """Delete what an earlier run of this batch wrote up to ``mark``, and nothing that others wrote."""
        ...

    async def open(self, mark: str | None) -> str | None:
        """Get ready to go on after ``mark``, dropping what was written after it; None means from the start.

        Return the mark that now holds, if this sink has marks: it is committed before the first record, so that
        what is written and never acknowledged is known as this batch's own. Raises what ``check`` raises. Called
        before the first fetch.
        """
        ...

    async def write(self, results: Sequence[Result]) -> str | None:
        """Return once the results are durably accepted, with the mark after them if this sink has marks.

        The same results may be written again after a crash, or after a SinkError, which is raised if they were not
        accepted: a ``retryable`` one has the same batch written again later, any other ends the run.
        """
        ...

    async def close(self) -> None:
        """Flush and release. May be called twice."""
        ...


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of a batch has ended, in numbers over all runs so far. ``seconds`` is how long they took.

    ``stopped`` says which fault has ended it before all jobs were done, None if they are. ``exceeded`` tells whether
    more jobs failed than ``limit``, which is written as the config has it. ``kinds`` are the error kinds.
    """

    batch: str
    jobs: int
    outcomes: dict[str, int]
    statuses: dict[str, int]
    kinds: dict[str, int]
    seconds: float
    limit: str
    exceeded: bool
    stopped: str | None = None

    @property
    def done(self) -> int:
        """Jobs that have ended, in whatever way."""
        return sum(self.outcomes.values())

    @property
    def failed(self) -> int:
        """Jobs that have failed, and those that were skipped though nobody chose that."""
        return self.outcomes.get(Outcome.FAILED, 0) + sum(self.kinds.get(kind, 0) for kind in NOT_HAD)

    @property
    def told(self) -> int:
        """Jobs to be told of one by one: all that did not end ``ok``, but for those that were not wanted."""
        ended = self.done - self.outcomes.get(Outcome.OK, 0)
        return ended - sum(self.kinds.get(kind, 0) for kind in UNWANTED)


@runtime_checkable
class Concluding(Protocol):
    """A sink that wants to know how a run has ended. Any may do without.

    It is not told of a run that was interrupted, or ended by what may be over later: that run is not at its end.
    """

    async def conclude(self, ending: Ending) -> str | None:
        """Take note of the end, after the last record, and return the mark to be committed with it.

        May be called again for the same ending, after a crash. Raises SinkError as ``write`` does.
        """
        ...
