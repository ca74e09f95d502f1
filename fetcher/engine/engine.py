"""The engine: leases jobs, gives them to workers, and sees every one of them to its end.

    feeder -> queue -> [lease loop] -> scheduler -> [workers] -> delivery -> queue
                                                        |
                                                   [retry loop] -> queue

What is in brackets are this module's own tasks. Each is supervised: one that dies stops the run with its reason.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from fetcher.engine.feeder import Feeder
from fetcher.engine.limiter import LimitSettings
from fetcher.engine.retry import Attempt, RetrySettings, decide, host_rest
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.worker import Worker
from fetcher.errors import LateError
from fetcher.interfaces import Lease, Nack, Queue, Sink, Source, Transport
from fetcher.pipeline.delivery import Delivery

if TYPE_CHECKING:
    from fetcher.engine.scheduler import Demand
    from fetcher.errors import SourceError
    from fetcher.interfaces import Leased
    from fetcher.model import Job, Result

# How often freed room is leased anew, in seconds: rare enough that a lease takes many jobs, often enough that no
# host runs out of them meanwhile.
_LEASE_PAUSE = 0.01
_NACK_PAUSE = 0.05
_RENEWALS_PER_TERM = 3


class Parts(msgspec.Struct, kw_only=True):
    """What an engine is assembled from."""

    batch: str
    sources: Sequence[Source]
    queue: Queue
    transports: Mapping[str, Transport]
    sinks: Mapping[str, Sink]
    limits: LimitSettings
    retry: RetrySettings
    default_method: str = "GET"
    dedupe: bool = False
    shutdown_timeout: float = 10.0
    slots: asyncio.Semaphore | None = None


class Running(msgspec.Struct, eq=False):
    """A job in flight, since ``started`` on the loop's clock."""

    lease: Lease
    started: float


class Engine:
    """Runs one batch to its end, or until it is told to drain."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue = parts.queue
        self._retry = parts.retry
        self._random = random.random
        self.scheduler = Scheduler(parts.limits)
        self._worker = Worker(parts.batch, parts.transports, parts.default_method, parts.retry.deadline)
        self.delivery = Delivery(parts.queue, parts.sinks, self._settled)
        self._feeder = Feeder(parts.sources, parts.queue, dedupe=parts.dedupe, on_put=self._on_put)
        # The bound on requests in flight. Several engines may share one.
        self._slots = parts.slots or asyncio.Semaphore(parts.limits.concurrency)
        self._held: dict[int | str, Lease] = {}
        self.running: dict[int | str, Running] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._nacks: list[Nack] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._want_lease = asyncio.Event()
        self._want_nack = asyncio.Event()
        self._draining = asyncio.Event()
        self.added = self.duplicates = self.done = 0
        self.fed = False
        self.retries = 0

    async def start(self, marks: Mapping[str, str]) -> None:
        """Open sinks and transports. Raises ConfigError or StateError before anything is fetched."""
        self._loop = asyncio.get_running_loop()
        self._renewed = time.monotonic()
        counts = await self._queue.counts()
        self.added, self.duplicates, self.done = counts.added, counts.duplicates, counts.done
        await self.delivery.open(marks)
        for transport in dict.fromkeys(self._parts.transports.values()):
            await transport.open()

    async def run(self, marks: Mapping[str, str]) -> None:
        """Work until every job has ended or the engine has been drained. Raises what stopped it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                delivering = group.create_task(self.delivery.run(), name="delivery")
                background = [
                    group.create_task(self._feed(marks), name="feeder"),
                    group.create_task(self._lease_loop(), name="lease loop"),
                    group.create_task(self._nack_loop(), name="retry loop"),
                    group.create_task(self._renew_loop(), name="lease renewal"),
                ]
                await self._draining.wait()
                for task in background:
                    task.cancel()
                await self._stop_workers()
                await self._finish_delivery(delivering)
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            self._draining.set()
            if self._timer is not None:
                self._timer.cancel()
        await self._return_jobs()

    def drain(self) -> None:
        """Start no more jobs, let those in flight end within the shutdown timeout, deliver, and return."""
        self._draining.set()

    async def close(self) -> None:
        """Close sinks and transports."""
        await self.delivery.close()
        for transport in dict.fromkeys(self._parts.transports.values()):
            await transport.close()

    @property
    def finished(self) -> bool:
        """Tell whether every job of every source has ended."""
        return self.fed and not self.failures and self.left == 0

    @property
    def accounted(self) -> bool:
        """Tell whether there is exactly one record for every job: what was put in is what came out."""
        return self.finished and self.delivery.tally.total == self.added

    @property
    def failures(self) -> list[SourceError]:
        """Why sources could not be read to their end."""
        return self._feeder.failures

    @property
    def left(self) -> int:
        """Jobs read so far that have not ended."""
        return self.added - self.done

    # Feeding and leasing

    async def _feed(self, marks: Mapping[str, str]) -> None:
        self._feeder.set_backlog(self.left)
        await self._feeder.run(marks)
        self.fed = True
        self._end_if_finished()

    def _on_put(self, read: int, added: int) -> None:
        self.added += added
        self.duplicates += read - added
        self._feeder.set_backlog(self.left)
        self._want_lease.set()

    async def _lease_loop(self) -> None:
        while True:
            # The process was stopped for a while: its leases may lapse in the next lease, but not before. It may have
            # been stopped again while it renewed them. uvloop's own time stands still within a turn of the loop.
            while time.monotonic() - self._renewed > self._queue.term / 2:
                await self._renew()
            demand = self.scheduler.demand(self._loop.time())
            self._want_lease.clear()
            due = demand.again
            if demand.limit:
                leased = await self._lease(demand)
                if leased.next_due is not None:
                    due = leased.next_due if due is None else min(due, leased.next_due)
                self._give_back(self.scheduler.add(leased, self._loop.time()))
                self._wake_worker()
            await self._pause(due)

    async def _lease(self, demand: Demand) -> Leased:
        call = asyncio.ensure_future(self._queue.lease(demand.limit, demand.per_host, demand.room))
        try:
            return self._hold(await asyncio.shield(call))
        except asyncio.CancelledError:
            # What the queue is just leasing to us has to be given back like the rest.
            self._hold(await call)
            raise

    def _hold(self, leased: Leased) -> Leased:
        now = self._loop.time()
        for lease in leased.leases:
            lease.leased_at = now
            self._held[lease.handle] = lease
        return leased

    def _give_back(self, leases: Sequence[Lease]) -> None:
        if leases:
            self._nacks.extend(Nack(lease, 0.0) for lease in leases)
            self._want_nack.set()

    async def _pause(self, due: float | None) -> None:
        """Wait until another lease may find something: room was made, jobs were put, or a delay has passed."""
        try:
            async with asyncio.timeout(None if due is None else max(due, _LEASE_PAUSE)):
                await self._want_lease.wait()
                await asyncio.sleep(_LEASE_PAUSE)
        except TimeoutError:
            return

    # Working

    def _wake_worker(self) -> None:
        """Have one more worker look for a job; it wakes the next if there is more to do."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._parts.limits.concurrency and not self._draining.is_set():
            task = self._group.create_task(self._work(), name=f"worker {len(self._workers)}")
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while not self._draining.is_set():
            if self.delivery.full:
                await self.delivery.room()
            await self._slots.acquire()
            try:
                # Both waits may have lasted beyond the beginning of a drain.
                lease = None if self._draining.is_set() else self.scheduler.next(self._loop.time())
                if lease is not None:
                    if self.scheduler.has_ready:
                        self._wake_worker()
                    else:
                        self._set_timer()
                    await self._attempt(lease)
            finally:
                self._slots.release()
            if lease is None and not self._draining.is_set():
                await self._rest()

    async def _rest(self) -> None:
        self._set_timer()
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        await waiter

    def _set_timer(self) -> None:
        """Have a worker look again when the first host in the window may be asked.

        Set by every worker before it fetches or rests; if all are busy when it fires, the next that is not looks.
        """
        wake_at = self.scheduler.wake_at()
        if self._timer is not None and (wake_at is None or self._timer_at > wake_at):
            self._timer.cancel()
            self._timer = None
        if wake_at is not None and self._timer is None:
            # When it fires is noted here: what uvloop returns for a time that has come does not know.
            self._timer_at = wake_at
            self._timer = self._loop.call_at(wake_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake_worker()

    async def _attempt(self, lease: Lease) -> None:
        job = lease.job
        started = self._loop.time()
        self.running[lease.handle] = Running(lease, started)
        try:
            if job.rejected is not None:
                self.delivery.add(lease, self._worker.skip(job))
                return
            result, attempt = await self._worker.attempt(job, started - lease.leased_at)
            self._conclude(lease, result, attempt)
        finally:
            del self.running[lease.handle]
            self.scheduler.done(lease, started, self._loop.time())
            if not self._want_lease.is_set():
                self._want_lease.set()
            if not self.running and not self.scheduler.waiting:
                self.delivery.hurry()

    def _conclude(self, lease: Lease, result: Result, attempt: Attempt | None) -> None:
        """Deliver a result, or give the job back to be tried again."""
        if attempt is None:
            self.delivery.add(lease, result)
            return
        rest = host_rest(self._retry, attempt)
        if rest is not None:
            now = self._loop.time()
            self._give_back(self.scheduler.rest(_asking(result, lease.job), now + rest, now))
        retry = decide(self._retry, attempt, self._random)
        if retry is None:
            self.delivery.add(lease, result)
            return
        job = lease.job
        job.attempts = result.attempts
        if job.first_started_at is None and result.started_at is not None:
            job.first_started_at = result.started_at.timestamp()
        self.retries += 1
        self._nacks.append(Nack(lease, retry.delay))
        self._want_nack.set()

    # Settling

    async def _nack_loop(self) -> None:
        while True:
            await self._want_nack.wait()
            await asyncio.sleep(_NACK_PAUSE)
            await self._flush_nacks()

    async def _flush_nacks(self) -> None:
        self._want_nack.clear()
        nacks, self._nacks = self._nacks, []
        if nacks:
            await self._queue.nack(nacks)
            for nack in nacks:
                self._held.pop(nack.lease.handle, None)
            self._want_lease.set()

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(self._queue.term / _RENEWALS_PER_TERM)
            await self._renew()

    async def _renew(self) -> None:
        self._renewed = time.monotonic()
        await self._queue.extend(list(self._held.values()))

    def _settled(self, leases: Sequence[Lease], accepted: int) -> None:
        for lease in leases:
            self._held.pop(lease.handle, None)
        self.done += accepted
        self._feeder.set_backlog(self.left)
        self._end_if_finished()

    def _end_if_finished(self) -> None:
        if self.fed and self.left == 0:
            self._draining.set()

    # Ending

    async def _stop_workers(self) -> None:
        """Let workers end what they are at, up to the shutdown timeout; then cut them off."""
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        if self._workers:
            await asyncio.wait(self._workers, timeout=self._parts.shutdown_timeout)
        late = list(self._workers)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _finish_delivery(self, delivering: asyncio.Task[None]) -> None:
        """Let the sinks take what there is, within another shutdown timeout."""
        self.delivery.finish()
        await asyncio.wait([delivering], timeout=self._parts.shutdown_timeout)
        if not delivering.done():
            late = ", ".join(sorted(self.delivery.writing)) or "the queue"
            raise LateError(f"{late} did not take the last results in time; their jobs will be fetched again")

    async def _return_jobs(self) -> None:
        """Give back what was leased and not ended, so that nobody has to wait for the leases to lapse."""
        await self._flush_nacks()
        if self._held:
            await self._queue.nack([Nack(lease, 0.0) for lease in self._held.values()])
            self._held.clear()


def _asking(result: Result, job: Job) -> str:
    """Return the host that a Retry-After came from: where redirects have led to."""
    if not result.redirects or result.final_url is None:
        return job.host
    return urlsplit(result.final_url).hostname or job.host


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single exception of a group, which is the reason of the others."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
