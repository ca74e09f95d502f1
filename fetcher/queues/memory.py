"""A queue in memory: for `fetcher get`, for tests, and for batches that may be lost with the process."""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fetcher.interfaces import Ack, Counts, Lease, Leased, Nack
from fetcher.queues.leases import LeaseTable
from fetcher.settings import Duration, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.model import Job, Outcome

_Lane = tuple[int, str]
# Entries of the heap that are out of date are dropped once they are this many times as many as the lanes.
_MOST_STALE = 4
_SMALL_HEAP = 64


class MemoryQueueConfig(Settings):
    """Lost with the process; a run can not be resumed."""

    type: Literal["memory"] = "memory"
    lease: Duration = 60.0
    """How long a job may be held before it is given to somebody else; held leases are renewed in time."""
    capacity: int = Field(default=100_000, ge=1)
    """Reading pauses while this many jobs have not ended; a job takes about a kilobyte of memory."""

    def build(self) -> MemoryQueue:
        """Return the queue."""
        return MemoryQueue(lease=self.lease, capacity=self.capacity)


class MemoryQueue:
    """Jobs in a lane for each priority and host; a heap of lanes that tolerates entries that are out of date."""

    def __init__(
        self, *, lease: float = 60.0, capacity: int = 100_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.term = lease
        self.capacity = capacity
        self._clock = clock
        self._leases: LeaseTable[tuple[int, Job]] = LeaseTable(lease)
        self._lanes: dict[_Lane, deque[tuple[int, Job]]] = {}
        self._heap: list[tuple[int, int, _Lane]] = []
        self._delayed: list[tuple[float, int, Job]] = []
        self._seen: set[str] = set()
        self._marks: dict[str, str] = {}
        self._next = 0
        self._added = self._duplicates = self._ready = 0
        self._outcomes: dict[Outcome, int] = {}

    async def open(self) -> Mapping[str, str]:
        """Return the marks; there are none yet."""
        return dict(self._marks)

    async def put(self, jobs: Sequence[Job], marks: Mapping[str, str]) -> int:
        """Add jobs and return how many were new."""
        fresh = duplicates = 0
        for job in jobs:
            if job.key is not None and job.key in self._seen:
                duplicates += job.parent is None
                continue
            if job.key is not None:
                self._seen.add(job.key)
            fresh += 1
            self._push(job)
        self._added += fresh
        self._duplicates += duplicates
        for lane in {(job.priority, job.host) for job in jobs} & self._lanes.keys():
            self._rank(lane)
        self._marks.update(marks)
        return fresh

    async def lease(self, limit: int, per_host: int, room: Mapping[str, int]) -> Leased:
        """Lease ready jobs of hosts that have room."""
        self._reclaim()
        left = dict(room)
        passed: set[_Lane] = set()
        taken: list[tuple[int, Job]] = []
        backlog: dict[str, int] = {}
        while self._heap and len(taken) < limit:
            _, size, lane = heapq.heappop(self._heap)
            jobs = self._lanes.get(lane)
            if jobs is None or len(jobs) != -size:
                continue
            passed.add(lane)
            host = lane[1]
            free = left.get(host, per_host)
            count = max(0, min(len(jobs), free, limit - len(taken)))
            left[host] = free - count
            if count:
                backlog[host] = backlog.get(host, 0) + len(jobs)
            taken.extend(jobs.popleft() for _ in range(count))
        for lane in sorted(passed):
            self._rank(lane)
        self._ready -= len(taken)
        token = self._leases.grant(taken, self._clock())
        next_due = max(0.0, self._delayed[0][0] - self._clock()) if self._delayed else None
        return Leased([Lease(job, handle, token) for handle, job in taken], next_due, backlog)

    async def ack(self, acks: Sequence[Ack], marks: Mapping[str, str]) -> int:
        """End jobs, store marks, and return how many leases were refused."""
        held = self._leases.held(acks)
        for ack in held:
            self._outcomes[ack.outcome] = self._outcomes.get(ack.outcome, 0) + 1
        self._leases.release(ack.lease.handle for ack in held)
        self._marks.update(marks)
        return len(acks) - len(held)

    async def nack(self, nacks: Sequence[Nack]) -> int:
        """Give jobs back and return how many leases were refused."""
        held = self._leases.held(nacks)
        now = self._clock()
        for nack in held:
            self._delay(nack.lease.job, now + nack.delay)
        self._leases.release(nack.lease.handle for nack in held)
        return len(nacks) - len(held)

    async def extend(self, leases: Sequence[Lease]) -> int:
        """Renew leases and return how many were refused."""
        return self._leases.extend(leases, self._clock())

    async def counts(self) -> Counts:
        """Count the jobs by state."""
        return Counts(
            added=self._added,
            duplicates=self._duplicates,
            ready=self._ready,
            delayed=len(self._delayed),
            leased=len(self._leases),
            outcomes=dict(self._outcomes),
        )

    async def clear(self) -> None:
        """Forget everything."""
        self._leases.clear()
        for kept in (self._lanes, self._heap, self._delayed, self._seen, self._marks, self._outcomes):
            kept.clear()
        self._added = self._duplicates = self._ready = 0

    async def close(self) -> None:
        """Release nothing: a queue in memory can be opened again by its owner."""

    def _push(self, job: Job) -> None:
        self._next += 1
        self._ready += 1
        lane = (job.priority, job.host)
        self._lanes.setdefault(lane, deque()).append((self._next, job))

    def _rank(self, lane: _Lane) -> None:
        jobs = self._lanes[lane]
        if jobs:
            heapq.heappush(self._heap, (-lane[0], -len(jobs), lane))
        else:
            del self._lanes[lane]
        if len(self._heap) > _MOST_STALE * len(self._lanes) + _SMALL_HEAP:
            self._heap = [(-lane[0], -len(jobs), lane) for lane, jobs in self._lanes.items()]
            heapq.heapify(self._heap)

    def _delay(self, job: Job, due: float) -> None:
        self._next += 1
        heapq.heappush(self._delayed, (due, self._next, job))

    def _reclaim(self) -> None:
        """Put back what is due, and what was leased and not heard of again."""
        now = self._clock()
        lapsed = self._leases.lapsed(now)
        self._leases.release(handle for handle, _ in lapsed)
        back = [job for _, job in lapsed]
        while self._delayed and self._delayed[0][0] <= now:
            back.append(heapq.heappop(self._delayed)[2])
        for job in back:
            self._push(job)
        for lane in {(job.priority, job.host) for job in back}:
            self._rank(lane)
