"""One sink as the delivery sees it: what it gets of each record, how much at once, and what becomes of its failures.

A sink neither filters nor batches nor retries. An outlet does, the same for all of them:

- what may succeed later is tried again, with growing pauses, while the jobs wait and so do, in the end, the workers;
- what can not succeed stops the run, which can be resumed;
- a sink that is not required has so much patience, and no more: then its records go to its dead letters.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from fetcher.errors import SinkError, StateBusyError, StateError
from fetcher.histogram import bucket_of
from fetcher.model import Result
from fetcher.pipeline.ledger import Point

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from fetcher.interfaces import Sink

    Commit = Callable[[Mapping[str, str]], Awaitable[object]]

_T = TypeVar("_T")

PATIENCE = 30.0
_BACKOFF = 0.25
_MAX_BACKOFF = 15.0
_MAX_DOUBLINGS = 20


class Batching(msgspec.Struct, frozen=True):
    """When a sink is given what waits for it: so many records, bytes of them, or seconds after the first."""

    size: int
    size_bytes: int
    linger: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a config says of a sink beside what is its own.

    ``title`` is its name for people. ``batching`` None means a unit at a time, as the delivery makes them.
    """

    title: str = ""
    required: bool = True
    patience: float | None = None
    where: Callable[[Result], bool] | None = None
    reshape: Callable[[Result], Result] | None = None
    batching: Batching | None = None


def dead_key(key: str) -> str:
    """Return under which key the mark of a sink's dead letters is kept."""
    return f"dead:{key}"


def stale_key(key: str) -> str:
    """Return under which key the mark is kept of what a sink still has to discard, for it was away at the start."""
    return f"stale:{key}"


class Trouble(msgspec.Struct, frozen=True):
    """A sink does not take records: since when (on the clock of the loop), what it said last, and how often."""

    since: float
    message: str
    failures: int


class Outlet:
    """A sink and its plan. ``run`` writes what ``put`` was given, in that order.

    ``lag`` counts records that the sink does not have yet; ``errors`` its failures in this run. ``flushes`` is a
    histogram (`fetcher.histogram`) of how many seconds its writes took, and ``flush_s`` their sum.
    """

    def __init__(self, key: str, sink: Sink, plan: Plan | None = None, dead: Sink | None = None) -> None:
        self.key = key
        self.plan = plan or Plan()
        self.title = self.plan.title or key
        self.sink = sink
        self.lag = self.errors = self.dead_letters = 0
        self.flushes: dict[int, int] = {}
        self.flush_s = 0.0
        self.trouble: Trouble | None = None
        self.is_writing = False
        self._dead = None if dead is None else Outlet(dead_key(key), dead, Plan(title=f"dead letters of {self.title}"))
        self.mark: str | None = None
        self._stale: str | None = None
        self._is_open = False
        self._commit: Commit | None = None
        self._waiting: deque[tuple[int, list[Result]]] = deque()
        # With batches of its own: up to where it may write, and what was gathered since.
        self._cut = self._gathered = self._weight = 0
        self._oldest: float | None = None
        self._rests_until = 0.0
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._finished = self._abandoned = self._misjudged = False

    # Opening and closing

    async def open(self, marks: Mapping[str, str], commit: Commit) -> dict[str, str]:
        """Open the sink at its mark and return the marks that are new.

        One that is not required and away is opened later; ``commit`` stores its mark then.
        """
        self._prepare(marks, commit)
        begun: dict[str, str] = {}
        try:
            begun = await self.start()
        except SinkError as error:
            if self.plan.required:
                raise
            self._note(error)
        if self._dead is not None and self._dead.mark is not None:
            # It was written to before, and is to be cut back; one that is not needed is not even created.
            begun |= await self._dead.start()
        return begun

    def _prepare(self, marks: Mapping[str, str], commit: Commit) -> None:
        self.mark, self._commit = marks.get(self.key), commit
        self._stale = marks.get(stale_key(self.key)) or None
        if self._dead is not None:
            self._dead._prepare(marks, commit)  # noqa: SLF001  an outlet, too

    async def start(self) -> dict[str, str]:
        """Open the sink at its mark, and return the marks that are new."""
        before = self.mark
        begun = {}
        if before is None and self._stale is not None:
            await self._discard(self._stale)
            begun[stale_key(self.key)] = ""
        self.mark = await self.sink.open(before)
        self._is_open, self._stale = True, None
        return begun if self.mark is None or self.mark == before else begun | {self.key: self.mark}

    async def _discard(self, mark: str) -> None:
        """Delete what an earlier run wrote, now that the sink is there, or it would stand among this run's records."""
        try:
            await self.sink.check(mark, resume=False)
        except StateBusyError:
            raise
        except StateError:
            return  # it is no longer what the earlier run left; whether it can be used, opening it tells
        await self.sink.discard(mark)

    async def close(self) -> None:
        """Close the sink, and its dead letters."""
        try:
            await self.sink.close()
        finally:
            if self._dead is not None:
                await self._dead.close()

    # Batching

    def put(self, number: int, results: list[Result], weight: int) -> None:
        """Take a unit of results; those that the plan leaves out count as delivered."""
        where, reshape = self.plan.where, self.plan.reshape
        if where is not None:
            results = [result for result in results if self._asked(where, result, default=True)]
        if reshape is not None:
            results = [self._asked(reshape, result, default=result) for result in results]
        self._waiting.append((number, results))
        if results:
            self.lag += len(results)
            self._gathered += len(results)
            self._weight += weight
            if self._oldest is None:
                self._oldest = asyncio.get_running_loop().time()
        self._wake.set()

    def _asked(self, function: Callable[[Result], _T], result: Result, *, default: _T) -> _T:
        """Ask the plan about a record. One that it fails on is delivered whole: it must cost neither record nor run."""
        try:
            return function(result)
        except Exception as error:  # noqa: BLE001  whatever it is is about this record
            self.errors += 1
            if not self._misjudged:
                reason = f"{type(error).__name__}: {error}"
                structlog.get_logger().error("where or select failed, record kept whole", sink=self.title, why=reason)
            self._misjudged = True
            return default

    @property
    def gathers(self) -> bool:
        """Tell whether something waits for a cut."""
        return self._oldest is not None

    def due(self, now: float) -> bool:
        """Tell whether a sink with batches of its own should be given what waits for it."""
        batching = self.plan.batching
        if batching is None or self._oldest is None:
            return False
        if self._gathered >= batching.size or self._weight >= batching.size_bytes:
            return True
        return now - self._oldest >= batching.linger

    def cut(self, number: int) -> None:
        """Let the sink be given all units up to ``number``, which is the last."""
        self._cut = number
        self._gathered = self._weight = 0
        self._oldest = None
        self._wake.set()

    def _next(self) -> tuple[int, list[Result]] | None:
        """Take out what is to be written now: one unit, or with batches of its own all up to the cut."""
        if self.plan.batching is None:
            return self._waiting.popleft() if self._waiting else None
        # What holds no record for this sink needs no cut.
        last = self._cut if self._gathered else inf
        number, results = 0, []
        while self._waiting and self._waiting[0][0] <= last:
            number, more = self._waiting.popleft()
            results += more
        return (number, results) if number else None

    # Writing

    async def run(self, reached: Callable[[Outlet, Point], None]) -> None:
        """Write until finished or abandoned; ``reached`` is told how far. Raises SinkError for what stops the run."""
        while not self._abandoned:
            batch = self._next()
            if batch is not None:
                number, results = batch
                if results:
                    await self.deliver(results)
                    self.lag -= len(results)
                reached(self, Point(number, self.marks(), self.dead_letters))
            elif self._finished:
                return
            else:
                await self._wake.wait()
                self._wake.clear()

    def hasten(self) -> None:
        """Make no more pauses: what is in trouble has one more try."""
        self._hurried.set()
        if self._dead is not None:
            self._dead.hasten()

    def finish(self) -> None:
        """Let ``run`` end once everything is written."""
        self._finished = True
        self._wake.set()

    def abandon(self) -> None:
        """Let ``run`` end after the write that is under way: another sink has failed for good."""
        self._abandoned = True
        self.hasten()
        self.finish()

    def marks(self) -> dict[str, str]:
        """Return the marks after what was written so far, of the sink and of its dead letters."""
        marks = {} if self.mark is None else {self.key: self.mark}
        return marks if self._dead is None else marks | self._dead.marks()

    async def deliver(self, results: Sequence[Result]) -> None:
        """Have the sink take results, or else its dead letters."""
        self.is_writing = True
        try:
            if self._is_resting() or not await self._persist(results):
                if self._dead is not None:
                    await self._dead.deliver(results)
                self.dead_letters += len(results)
        finally:
            self.is_writing = False

    async def _persist(self, results: Sequence[Result]) -> bool:
        """Write, as often as it takes; False once a sink that is not required has had its patience."""
        while True:
            last = self._hurried.is_set()
            try:
                await self._write(results)
            except Exception as error:
                self._note(error)
                if last or self._is_final(error):
                    # Whatever a sink does that is not required, it must not stop a run.
                    if self.plan.required or self._abandoned:
                        raise
                    return False
                delay = self._delay(error)
            else:
                self.trouble = None
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._hurried.wait()

    async def _write(self, results: Sequence[Result]) -> None:
        if not self._is_open:
            begun = await self.start()
            if begun and self._commit is not None:
                # Before the first record: what is written and not acknowledged at a crash has to be known as ours.
                await self._commit(begun)
        started = time.perf_counter()
        try:
            self.mark = await self.sink.write(results) or self.mark
            self._clock(time.perf_counter() - started)
        except asyncio.CancelledError:
            # A library that cancels what several tasks wait for must not end a run.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise SinkError(f"{self.title}: the sink cancelled its own write", retryable=True) from None

    def _clock(self, seconds: float) -> None:
        bucket = bucket_of(seconds)
        self.flushes[bucket] = self.flushes.get(bucket, 0) + 1
        self.flush_s += seconds

    # Failing

    def troubles(self) -> list[tuple[str, Trouble]]:
        """Return who does not take records, by title: this sink, or its dead letters."""
        own = [(self.title, self.trouble)] if self.trouble is not None else []
        return own + (self._dead.troubles() if self._dead is not None else [])

    def _note(self, error: Exception) -> None:
        self.errors += 1
        now = asyncio.get_running_loop().time()
        since, failures = (now, 0) if self.trouble is None else (self.trouble.since, self.trouble.failures)
        message = str(error) if isinstance(error, SinkError) else f"{type(error).__name__}: {error}"
        self.trouble = Trouble(since, message, failures + 1)

    def _is_final(self, error: Exception) -> bool:
        """Tell whether this failure is the end of trying. A sink that is not required then rests for a while."""
        if not isinstance(error, SinkError) or not error.retryable or self.trouble is None:
            return True
        now = asyncio.get_running_loop().time()
        patience = self.plan.patience
        if patience is None:
            patience = inf if self.plan.required else PATIENCE
        if now - self.trouble.since < patience:
            return False
        self._rests_until = now + _MAX_BACKOFF
        return True

    def _is_resting(self) -> bool:
        """Tell whether the sink was away for so long that it is not worth trying at this moment."""
        if self.plan.required or self.trouble is None:
            return False
        return asyncio.get_running_loop().time() < self._rests_until

    def _delay(self, error: Exception) -> float:
        """Return how many seconds to wait before the next try."""
        pause: float | None = getattr(error, "pause", None)
        if pause is not None:
            return pause
        failures = 1 if self.trouble is None else min(self.trouble.failures, _MAX_DOUBLINGS)
        return min(_MAX_BACKOFF, _BACKOFF * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
