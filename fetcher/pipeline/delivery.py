"""From results to stages to sinks to acknowledgements, in that order and in batches.

    workers -> batcher -> [intake: stages] -> outlet -> [sink] -> ledger -> [settling] -> queue
                                           -> outlet -> [sink] ->

A job is acknowledged only after every sink has its record durably, and the marks of the sinks are committed with
the acknowledgement. So whatever moment the process ends at, a record that counts is acknowledged, and one that is
not acknowledged is cut off again before the job is fetched anew. What is in brackets are tasks; when one of them
fails, the others end what they are at, and then that failure is raised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from fetcher.interfaces import Ack, Lease
from fetcher.model import Result
from fetcher.pipeline.batcher import Batcher
from fetcher.pipeline.ledger import Ledger, Point, Settlement, Unit
from fetcher.pipeline.outlet import Outlet
from fetcher.pipeline.stages import Stages
from fetcher.pipeline.tally import Tally
from fetcher.pipeline.weight import added, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.interfaces import Queue, Sink, Stage

BATCH_SIZE = 512
BATCH_BYTES = 8 * 1024 * 1024
LINGER = 0.1
TALLY_MARK = "tally"
_UNITS = 2  # not acknowledged at a time: one that sinks are writing, and one that is ready when they have it
_TICK = 0.2  # seconds between looks at whether a sink with batches of its own has waited long enough


class Delivered(msgspec.Struct):
    """A result and the lease that it settles."""

    lease: Lease
    result: Result
    weight: int


def _weight(item: Delivered) -> int:
    return item.weight


class Delivery:
    """Takes results from workers and sees them through. ``on_settled`` is told which leases have ended.

    ``at_end`` tells whether nothing else will come: then no sink waits for larger batches. ``observe`` is told of the
    results that were acknowledged; it may not raise.
    """

    def __init__(
        self,
        queue: Queue,
        sinks: Mapping[str, Sink | Outlet],
        on_settled: Callable[[Sequence[Lease], int], None],
        stages: Mapping[str, Stage] | None = None,
        at_end: Callable[[], bool] | None = None,
        observe: Callable[[Sequence[Result]], None] | None = None,
    ) -> None:
        self._queue = queue
        self.outlets = [sink if isinstance(sink, Outlet) else Outlet(key, sink) for key, sink in sinks.items()]
        self._batched = [outlet for outlet in self.outlets if outlet.plan.batching is not None]
        self._stages = Stages(stages or {})
        self._on_settled = on_settled
        self._at_end = at_end
        self._observe = observe
        self._batcher: Batcher[Delivered] = Batcher(
            size=BATCH_SIZE, size_bytes=BATCH_BYTES, linger=LINGER, weigh=_weight
        )
        self._ledger = Ledger(outlet.key for outlet in self.outlets)
        own = [outlet.plan.batching for outlet in self._batched if outlet.plan.batching is not None]
        self._most = max((batching.size for batching in own), default=0)
        self._most_bytes = max((batching.size_bytes for batching in own), default=0)
        self._progress = asyncio.Event()  # for who settles: an outlet has written something
        self._settled = asyncio.Event()  # for the intake: something was acknowledged
        self._taken = False  # everything that there is was handed to the outlets
        self._failed = False
        self._timer: asyncio.TimerHandle | None = None
        self.tally = Tally()
        # The marks of sinks as they were last committed: up to there, what was written is acknowledged.
        self.marks: dict[str, str] = {}
        self._earlier = 0.0
        self._dead_before: dict[str, int] = {}
        self._started = 0.0

    @property
    def held(self) -> int:
        """Results that were added and are not acknowledged yet, but for those that stages are at work on."""
        return len(self._batcher) + self._ledger.count

    @property
    def full(self) -> bool:
        """Tell whether workers should wait in ``room`` before they fetch more."""
        return self._batcher.full

    async def room(self) -> None:
        """Wait until the sinks have caught up."""
        await self._batcher.room()

    @property
    def writing(self) -> set[str]:
        """The names of the sinks, and of the stage, that are at work on a batch."""
        names = {outlet.title for outlet in self.outlets if outlet.is_writing}
        return names | {f"stage {self._stages.current}"} if self._stages.current is not None else names

    def add(self, lease: Lease, result: Result) -> None:
        """Deliver one result. Never waits: see ``full``."""
        self._batcher.add(Delivered(lease, result, weight_of(result)))

    async def open(self, marks: Mapping[str, str]) -> None:
        """Open every sink at the mark up to which its records are acknowledged."""
        self.tally = Tally.load(marks.get(TALLY_MARK))
        self._earlier = self.tally.elapsed
        self._dead_before = dict(self.tally.dead_letters)
        self.marks = {outlet.key: marks[outlet.key] for outlet in self.outlets if outlet.key in marks}
        begun: dict[str, str] = {}
        for outlet in self.outlets:
            begun |= await outlet.open(marks, self._commit)
        # Before the first record: what is written and not acknowledged at a crash has to be known as ours.
        if begun:
            await self._commit(begun)

    async def _commit(self, marks: Mapping[str, str]) -> None:
        await self._queue.ack([], marks)
        self.marks.update(marks)

    async def run(self) -> None:
        """Deliver until closed. Raises SinkError or StateError, with nothing acknowledged that is not durable."""
        self._started = asyncio.get_running_loop().time()
        intake = asyncio.create_task(self._intake(), name="delivery intake")
        settling = asyncio.create_task(self._settle_all(), name="delivery settling")
        writers = [asyncio.create_task(outlet.run(self._reached), name=outlet.title) for outlet in self.outlets]
        tasks = [intake, settling, *writers]
        try:
            failed = await _first_failed(tasks)
            if failed:
                for outlet in self.outlets:
                    outlet.abandon()
                intake.cancel()
                # All of them have ended before a failure is raised: nobody may close a sink that is still writing.
                await asyncio.wait([intake, *writers])
                self._taken = self._failed = True
                self._progress.set()
                await asyncio.wait([settling])
            _raise_first(failed, tasks)
        finally:
            await self._end(tasks)

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        self._taken = True
        if self._timer is not None:
            self._timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # From workers to outlets

    async def _intake(self) -> None:
        while (batch := await self._next_batch()) is not None:
            results = [item.result for item in batch]
            unit = Unit([item.lease for item in batch], results, sum(map(_weight, batch)))
            records = results
            if self._stages:
                staged = await self._stages.run(results)
                records, unit.results, unit.filtered = staged.records, staged.results, staged.filtered
                unit.weight += added(records, results)
            number = self._ledger.enter(unit)
            for outlet in self.outlets:
                outlet.put(number, records, unit.weight)
            if not self.outlets:
                self._progress.set()
            self._look()
        self._cut()
        for outlet in self.outlets:
            outlet.finish()
        self._taken = True
        self._progress.set()

    async def _next_batch(self) -> list[Delivered] | None:
        while self._is_enough():
            self._cut()
            self._settled.clear()
            await self._settled.wait()
        return await self._batcher.next()

    def _is_enough(self) -> bool:
        """Tell whether no more is to be held at a time; a sink with batches of its own needs as much as one of them."""
        if len(self._ledger) < _UNITS:
            return False
        return self._ledger.count >= self._most or self._ledger.weight >= self._most_bytes

    def _cut(self) -> None:
        """Let all sinks with batches of their own write what they have: together, so that they have common marks."""
        for outlet in self._batched:
            outlet.cut(self._ledger.last)

    def _look(self) -> None:
        """Cut if it is time to, and look again in a moment if there is something to be cut."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._taken or not any(outlet.gathers for outlet in self._batched):
            return
        loop = asyncio.get_running_loop()
        ended = self._at_end is not None and not len(self._batcher) and self._at_end()
        if ended or any(outlet.due(loop.time()) for outlet in self._batched):
            self._cut()
        else:
            self._timer = loop.call_later(_TICK, self._look)

    # From outlets to the queue

    def _reached(self, outlet: Outlet, point: Point) -> None:
        self._ledger.reach(outlet.key, point)
        self._progress.set()

    async def _settle_all(self) -> None:
        while True:
            settlement = self._ledger.settle()
            if settlement is not None:
                await self._acknowledge(settlement)
                self._settled.set()
            elif self._taken and (self._failed or not len(self._ledger)):
                return
            else:
                await self._progress.wait()
                self._progress.clear()

    async def _acknowledge(self, settlement: Settlement) -> None:
        leases, acks = [], []
        for unit in settlement.units:
            self.tally.add(unit.results)
            self.tally.filtered += unit.filtered
            leases += unit.leases
            acks += [Ack(lease, result.outcome) for lease, result in zip(unit.leases, unit.results, strict=True)]
        for outlet in self.outlets:
            if count := settlement.dead_letters[outlet.key]:
                self.tally.dead_letters[outlet.title] = self._dead_before.get(outlet.title, 0) + count
        self.tally.elapsed = self._earlier + asyncio.get_running_loop().time() - self._started
        refused = await self._queue.ack(acks, settlement.marks | {TALLY_MARK: self.tally.dump()})
        self.marks.update(settlement.marks)
        if self._observe is not None:
            for unit in settlement.units:
                self._observe(unit.results)
        self._on_settled(leases, len(leases) - refused)

    # Ending

    def hurry(self) -> None:
        """Deliver what there is at once: nothing else is under way."""
        self._batcher.hurry()
        if self._batched:
            self._look()

    def finish(self) -> None:
        """Let ``run`` end once everything that was added is delivered; who is in trouble has one more try."""
        self._batcher.close()
        for outlet in self.outlets:
            outlet.hasten()

    async def close(self) -> None:
        """Close every sink."""
        closing = await asyncio.gather(*(outlet.close() for outlet in self.outlets), return_exceptions=True)
        for failure in closing:
            if isinstance(failure, BaseException):
                raise failure


async def _first_failed(tasks: Sequence[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    """Wait until all tasks have ended, or one has failed; return what has failed.

    One that ended as cancelled though nobody cancelled it has failed as well: what it was to do is not done.
    """
    left = set(tasks)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in done if task.cancelled() or task.exception() is not None]
        if failed:
            return failed
    return []


def _raise_first(failed: Sequence[asyncio.Task[None]], tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in [*failed, *tasks]:
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure
    if failed:
        raise RuntimeError(f"the task {failed[0].get_name()!r} was cancelled, by itself or by what it calls")
