"""The contract of the whole system: five interfaces, and the small values that pass between them.

    source --Chunk--> queue --Lease--> scheduler --Job--> transport --Response--> delivery --Result--> sinks
                        ^                                                             |
                        +------------------- Ack, Nack, marks ------------------------+

Everything here runs on one event loop. Unless a method says otherwise, it is called by one task at a time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from fetcher.model import Job, Outcome, Response, Result

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence


class Chunk(msgspec.Struct):
    """Some jobs of a source, and the position after the last of them."""

    jobs: list[Job]
    position: str


class Source(Protocol):
    """Where jobs come from. It is read as a stream, once, and holds no more than a chunk."""

    def check(self) -> None:
        """Raise ConfigError if it is plain already that the input can not be read. Called before any fetch."""
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
        """Add jobs; return how many were new. A job whose ``key`` was ever put before is counted and dropped."""
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
class Observable(Protocol):
    """A transport that can tell what a fetch is at. Any may do without."""

    def standing(self, job: Job) -> Standing | None:
        """Tell what the fetch of a job is at, None if it is not under way. Asked now and then, for display."""
        ...


class Format(Protocol):
    """How results become bytes. Pure: no I/O, no clock."""

    def begin(self) -> bytes:
        """Return what a new output starts with."""
        ...

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return the bytes of some results. Never fails on anything that a server can send."""
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

        The same results may be written again after a crash. Raises SinkError if they were not accepted.
        """
        ...

    async def close(self) -> None:
        """Flush and release. May be called twice."""
        ...
