"""The engine: leases jobs, gives them to workers, and sees every one of them to its end.

    feeder -> queue -> [lease loop] -> scheduler -> [workers] -> delivery -> queue
                                                        |
                                                   [retry loop] -> queue

What is in brackets are this module's own tasks. Each is supervised: one that dies stops the run with its reason. Where
answers have next pages, a follower stands before the delivery, and puts the jobs of those into the queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING

from fetcher.engine.crew import Crew
from fetcher.engine.feeder import Feeder
from fetcher.engine.following import Follower
from fetcher.engine.growth import BEAT, Growth
from fetcher.engine.holding import Holding
from fetcher.engine.hosts.care import Failure
from fetcher.engine.hosts.signs import TROUBLE, Sign, asked_last, last_url, sign_of
from fetcher.engine.hosts.telling import teller
from fetcher.engine.hosts.waits import Waits
from fetcher.engine.postponing import Postponed, put_off
from fetcher.engine.pulse import Pulse
from fetcher.engine.retry import Attempt, decide, host_rest
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.slots import Slots
from fetcher.engine.waiting import Running
from fetcher.engine.worker import Worker
from fetcher.errors import LateError
from fetcher.pipeline.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.engine.hosts.limiter import LimitSettings
    from fetcher.engine.parts import Parts
    from fetcher.engine.window import Demand
    from fetcher.errors import SourceError
    from fetcher.interfaces import Lease, Leased
    from fetcher.model import Job, Rejection, Response, Result

# How often freed room is leased anew, in seconds: rare enough that a lease takes many jobs, often enough that no
# host runs out of them meanwhile.
_LEASE_PAUSE = 0.01


class Engine:
    """Runs one batch to its end, or until it is told to drain."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue = parts.queue
        self._retry = parts.retry
        self._random = random.random
        # The bound on requests in flight.
        self._own_slots = Slots(parts.limits.most)
        slots = parts.slots or self._own_slots.share()
        self.scheduler = Scheduler(
            parts.limits,
            parts.hosts,
            weight=slots.weight,
            priority=slots.priority,
            owner=self,
            budgets=parts.budgets,
        )
        self._slots = slots
        self.transports = parts.transports
        self._pulse = Pulse(self.scheduler, parts.limits.most, _growth(parts.limits))
        deadline, method = parts.retry.deadline, parts.default_method
        self._worker = Worker(
            parts.batch,
            parts.transports,
            method,
            deadline,
            self._on_crawl_delay,
            parts.expect,
            teller(self.scheduler),
        )
        self.delivery = Delivery(
            parts.queue,
            parts.sinks,
            self._settled,
            parts.stages,
            lambda: self.fed and self.left <= self.delivery.held,
            parts.observe,
        )
        pages = parts.paginator
        self._follower = None if pages is None else Follower(pages, parts.queue, self.delivery, self._on_followed)
        # Where the results go of jobs that ended well.
        self._outbox = self._follower or self.delivery
        self._crew = Crew(self.scheduler, slots, self._pulse, self._outbox, self._attempt)
        begin = None if pages is None else pages.begin
        self._feeder = Feeder(parts.sources, parts.queue, dedupe=parts.dedupe, on_put=self._on_put, begin=begin)
        self._want_lease = asyncio.Event()
        self._holding = Holding(parts.queue, self._want_lease.set)
        self.running: dict[int | str, Running] = {}
        self._draining = asyncio.Event()
        self.added = self.duplicates = self.done = 0
        self.fed = False
        self.next_due_at: float | None = None
        self.retry_reasons: Counter[str] = Counter()
        self.postponed = Postponed()
        self._waits = Waits(self.scheduler.closed)

    async def start(self, marks: Mapping[str, str]) -> None:
        """Open sinks and transports. Raises ConfigError or StateError before anything is fetched."""
        self._loop = asyncio.get_running_loop()
        counts = await self._queue.counts()
        self.added, self.duplicates, self.done = counts.added, counts.duplicates, counts.done
        await self.delivery.open(marks)
        self.delivery.tally.max_pages = 0 if self._parts.paginator is None else self._parts.paginator.max_pages
        for transport in dict.fromkeys(self._parts.transports.values()):
            await transport.open()

    async def run(self, marks: Mapping[str, str]) -> None:
        """Work until every job has ended or the engine has been drained. Raises what stopped it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._crew.begin(group)
                delivering = group.create_task(self.delivery.run(), name="delivery")
                following = None
                if self._follower is not None:
                    following = group.create_task(self._follower.run(), name="follower")
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
                await self._crew.stop(self._parts.shutdown_timeout)
                if self._follower is not None and following is not None:
                    self._follower.finish()
                    await self._end_of(following, set)
                self.delivery.finish()
                await self._end_of(delivering, lambda: self.delivery.writing)
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            self._draining.set()
            self._crew.close()
            self.scheduler.close(self._loop.time())
        await self._holding.return_all()

    def drain(self) -> None:
        """Start no more jobs, let those in flight end within the shutdown timeout, deliver, and return."""
        self._crew.end()
        self._draining.set()

    def reconfigure(self, limits: LimitSettings) -> None:
        """Keep to other limits from now on: more at once, fewer as jobs end. Nothing is dropped."""
        self.scheduler.reconfigure(limits, asyncio.get_running_loop().time())
        self._own_slots.resize(limits.most)
        self._pulse.reconfigure(limits.most, _growth(limits))
        self._want_lease.set()
        self._crew.wake()

    async def close(self) -> None:
        """Close sinks and transports."""
        self._slots.close()
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
    def retries(self) -> int:
        """Attempts after the first ones, in this run. ``retry_reasons`` tells why."""
        return self.retry_reasons.total()

    @property
    def left(self) -> int:
        """Jobs read so far that have not ended."""
        return self.added - self.done

    @property
    def queued(self) -> int:
        """Jobs that are neither in flight nor on their way to the sinks."""
        return self.left - len(self._holding) + self.scheduler.waiting

    @property
    def batch(self) -> str:
        """The name of the batch."""
        return self._parts.batch

    @property
    def allowed(self) -> int:
        """Requests that it may have in flight now, if there are slots for them."""
        return self._pulse.allowed

    @property
    def waits_for_slots(self) -> bool:
        """Tell whether workers wait for slots that other engines have."""
        return self._slots.waiting > 0

    @property
    def waits_for_pages(self) -> bool:
        """Tell whether workers wait until the queue has the jobs of next pages."""
        return self._follower is not None and self._follower.is_behind

    @property
    def growing(self) -> bool:
        """Tell whether more jobs may be added: rows of sources, or next pages."""
        return not self.fed or (self._follower is not None and self.left > 0)

    @property
    def shared_slots(self) -> Slots | None:
        """The slots that it shares with other engines, None if it has its own."""
        shared = self._parts.slots
        return None if shared is None else shared.slots

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

    def _on_followed(self, added: int) -> None:
        self.added += added
        self._feeder.set_backlog(self.left)
        if added:
            self._want_lease.set()
        elif not self.running and not self.scheduler.waiting:
            self.delivery.hurry()

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
                self._crew.wake()
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

    async def _pulse_loop(self) -> None:
        self._pulse.begin(self._loop.time(), time.process_time())
        while True:
            await asyncio.sleep(BEAT)
            before = self._pulse.allowed
            self._pulse.beat(self._loop.time(), time.process_time(), len(self.running))
            if self._pulse.allowed > before:
                self._crew.wake()

    # As its scheduler sees it: `fetcher.engine.hosts.host.Owner`

    def may_start(self) -> bool:
        """Tell whether a job could be started now if its host were free."""
        return self._crew.may_start(len(self.running))

    def look_again(self, *, ready: bool) -> None:
        """Have a worker look for a job, now or when the first may start."""
        self._crew.look_again(ready=ready)

    def take_back(self, leases: Sequence[Lease]) -> None:
        """Give leases back to the queue."""
        self._holding.give_back(leases)
        self._want_lease.set()

    def lease_again(self) -> None:
        """Have the lease loop look for what there is room for now."""
        self._want_lease.set()

    async def _attempt(self, lease: Lease) -> None:
        job = lease.job
        started = self._loop.time()
        self.running[lease.handle] = Running(lease, started)
        try:
            verdict: Rejection | float | None = job.rejected
            if self.scheduler.some_in_trouble and verdict is None:
                verdict = self.scheduler.verdict(lease, started)
            if verdict is None:
                if job.first_started_at is not None:
                    self._waits.begin(job, started)
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
            self._outbox.add(lease, result)
            return
        if (delay := put_off(self._retry, attempt)) is not None:
            self.postponed.note(lease.job, result, now, delay)
            self._holding.give_back([lease], delay)
            self._holding.give_back(self.scheduler.put_off(asked_last(result, lease.job), now + delay, now))
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
        self.retry_reasons[str(result.error_kind)] += 1
        self._waits.put_back(job, now)
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
            self.drain()

    # Ending

    async def _end_of(self, task: asyncio.Task[None], writing: Callable[[], set[str]]) -> None:
        """Let what there is be taken, within another shutdown timeout; ``writing`` tells by whom."""
        await asyncio.wait([task], timeout=self._parts.shutdown_timeout)
        if not task.done():
            late = ", ".join(sorted(writing())) or "the queue"
            raise LateError(f"{late} did not take the last results in time; their jobs will be fetched again")


def _growth(limits: LimitSettings) -> Growth | None:
    return Growth() if limits.concurrency == "auto" else None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single exception of a group, which is the reason of the others."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
