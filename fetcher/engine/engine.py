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
from typing import TYPE_CHECKING, cast

import msgspec

from fetcher.engine.care import Failure
from fetcher.engine.feeder import Feeder
from fetcher.engine.growth import BEAT, Growth
from fetcher.engine.holding import Holding
from fetcher.engine.limiter import LimitSettings
from fetcher.engine.pulse import Pulse
from fetcher.engine.retry import Attempt, RetrySettings, decide, host_rest
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.signs import TROUBLE, Sign, asked_last, last_url, sign_of
from fetcher.engine.waiting import Running
from fetcher.engine.worker import Worker
from fetcher.errors import LateError
from fetcher.interfaces import Lease, Queue, Sink, Source, Stage, Transport
from fetcher.pipeline.delivery import Delivery
from fetcher.pipeline.outlet import Outlet

if TYPE_CHECKING:
    from fetcher.engine.scheduler import Demand
    from fetcher.errors import SourceError
    from fetcher.interfaces import Leased
    from fetcher.model import Job, Rejection, Response, Result

# How often freed room is leased anew, in seconds: rare enough that a lease takes many jobs, often enough that no
# host runs out of them meanwhile.
_LEASE_PAUSE = 0.01


class Parts(msgspec.Struct, kw_only=True):
    """What an engine is assembled from."""

    batch: str
    sources: Sequence[Source]
    queue: Queue
    transports: Mapping[str, Transport]
    sinks: Mapping[str, Sink | Outlet]
    limits: LimitSettings
    retry: RetrySettings
    default_method: str = "GET"
    dedupe: bool = False
    shutdown_timeout: float = 10.0
    slots: asyncio.Semaphore | None = None
    stages: Mapping[str, Stage] = {}


class Engine:
    """Runs one batch to its end, or until it is told to drain."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue = parts.queue
        self._retry = parts.retry
        self._random = random.random
        self.scheduler = Scheduler(parts.limits)
        self.transports = parts.transports
        self._pulse = Pulse(self.scheduler, parts.limits.most, Growth() if parts.limits.concurrency == "auto" else None)
        self._worker = Worker(
            parts.batch, parts.transports, parts.default_method, parts.retry.deadline, self._on_crawl_delay
        )
        self.delivery = Delivery(
            parts.queue, parts.sinks, self._settled, parts.stages, lambda: self.fed and self.left <= self.delivery.held
        )
        self._feeder = Feeder(parts.sources, parts.queue, dedupe=parts.dedupe, on_put=self._on_put)
        # The bound on requests in flight. Several engines may share one.
        self._slots = parts.slots or asyncio.Semaphore(parts.limits.most)
        self._want_lease = asyncio.Event()
        self._holding = Holding(parts.queue, self._want_lease.set)
        self.running: dict[int | str, Running] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._draining = asyncio.Event()
        self.added = self.duplicates = self.done = 0
        self.fed = False
        self.next_due_at: float | None = None
        self.retries = 0

    async def start(self, marks: Mapping[str, str]) -> None:
        """Open sinks and transports. Raises ConfigError or StateError before anything is fetched."""
        self._loop = asyncio.get_running_loop()
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
                    group.create_task(self._holding.return_loop(), name="retry loop"),
                    group.create_task(self._holding.renew_loop(), name="lease renewal"),
                    group.create_task(self._pulse_loop(), name="pulse"),
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
        await self._holding.return_all()

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

    @property
    def queued(self) -> int:
        """Jobs that are neither in flight nor on their way to the sinks."""
        return self.left - len(self._holding) + self.scheduler.waiting

    @property
    def draining(self) -> bool:
        """Tell whether no more jobs are started."""
        return self._draining.is_set()

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
            await self._holding.renew_if_late()
            demand = self.scheduler.demand(self._loop.time())
            self._want_lease.clear()
            due = demand.again
            if demand.limit:
                leased = await self._lease(demand)
                self.next_due_at = None if leased.next_due is None else self._loop.time() + leased.next_due
                if leased.next_due is not None:
                    due = leased.next_due if due is None else min(due, leased.next_due)
                self._holding.give_back(self.scheduler.add(leased, self._loop.time()))
                self._wake_worker()
            await self._pause(due)

    async def _lease(self, demand: Demand) -> Leased:
        call = asyncio.ensure_future(self._queue.lease(demand.limit, demand.per_host, demand.room))
        try:
            return self._holding.hold(await asyncio.shield(call), self._loop.time())
        except asyncio.CancelledError:
            # What the queue is just leasing to us has to be given back like the rest.
            self._holding.hold(await call, self._loop.time())
            raise

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
        if len(self._workers) < self._pulse.allowed and not self._draining.is_set():
            task = self._group.create_task(self._work(), name=f"worker {len(self._workers)}")
            self._workers.add(task)
            task.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while not self._draining.is_set() and not self._is_superfluous():
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

    def _is_superfluous(self) -> bool:
        """Tell whether a worker has to go because fewer are allowed than before; another may be idle in its place."""
        if len(self._workers) <= self._pulse.allowed:
            return False
        self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self._wake_worker()
        return True

    async def _pulse_loop(self) -> None:
        self._pulse.begin(self._loop.time(), time.process_time())
        while True:
            await asyncio.sleep(BEAT)
            before = self._pulse.allowed
            self._pulse.beat(self._loop.time(), time.process_time(), len(self.running))
            if self._pulse.allowed > before:
                self._wake_worker()

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
            verdict: Rejection | float | None = job.rejected
            if self.scheduler.some_in_trouble and verdict is None:
                verdict = self.scheduler.verdict(lease, started)
            if verdict is None:
                result, attempt = await self._worker.attempt(job, started - lease.leased_at)
                self._conclude(lease, result, attempt, started)
            elif isinstance(verdict, float):
                self._holding.give_back([lease], verdict)
            else:
                self.delivery.add(lease, self._worker.skip(job, verdict))
        finally:
            del self.running[lease.handle]
            self.scheduler.done(lease, started, self._loop.time())
            if not self._want_lease.is_set():
                self._want_lease.set()
            if not self.running and not self.scheduler.waiting:
                self.delivery.hurry()

    def _conclude(self, lease: Lease, result: Result, attempt: Attempt | None, started: float) -> None:
        """Deliver a result, or give the job back to be tried again."""
        now = self._loop.time()
        if attempt is None:
            self.scheduler.well(lease, started, now, None if result.redirects else result.first_byte_s)
            self.delivery.add(lease, result)
            return
        self._learn(lease, result, attempt, started)
        rest = host_rest(self._retry, attempt)
        if rest is not None:
            self._holding.give_back(self.scheduler.rest(asked_last(result, lease.job), now + rest, now))
        retry = decide(self._retry, attempt, self._random)
        if retry is not None and attempt.number > 1 and not self.scheduler.may_retry(lease.job.host, now):
            retry = decide(self._retry, attempt, self._random, spread=True)
        if retry is None:
            self.delivery.add(lease, result)
            return
        job = lease.job
        job.attempts = result.attempts
        if job.first_started_at is None and result.started_at is not None:
            job.first_started_at = result.started_at.timestamp()
        self.retries += 1
        self._holding.give_back([lease], retry.delay)

    def _learn(self, lease: Lease, result: Result, attempt: Attempt, started: float) -> None:
        """Have the scheduler know what an attempt that did not end well says about its host, or about two of them."""
        now, rest = self._loop.time(), host_rest(self._retry, attempt) or 0.0
        sign, url = sign_of(attempt, redirected=bool(result.redirects)), last_url(result)
        if url is not None and (host := asked_last(result, lease.job)) != lease.job.host:
            there = Failure.of(attempt, sign_of(attempt, redirected=False), rest)
            if there.sign in TROUBLE:
                self.scheduler.badly_elsewhere(url, host, there, started, now)
            rest = 0.0  # it is the other one that rests
        if sign is Sign.ANSWERED:
            self.scheduler.well(lease, started, now, None)
        elif sign is not Sign.NOTHING:
            self._holding.give_back(self.scheduler.badly(lease, Failure.of(attempt, sign, rest), started, now))

    def _on_crawl_delay(self, job: Job, response: Response) -> None:
        if response.crawl_delay is not None and not response.redirects:
            self.scheduler.slow_down(job.host, response.crawl_delay, self._loop.time())

    # Settling

    def _settled(self, leases: Sequence[Lease], accepted: int) -> None:
        self._holding.settle(leases)
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


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single exception of a group, which is the reason of the others."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
