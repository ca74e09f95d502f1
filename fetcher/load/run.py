"""One round: workers that fetch, in a closed or an open loop, until the window ends.

warm-up | window: what begins here is counted | grace: for what has begun to end
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fetcher.errors import ErrorKind
from fetcher.histogram import bucket_of
from fetcher.load.measurement import Round
from fetcher.load.meters import Meter
from fetcher.load.pace import ClosedPace, OpenPace
from fetcher.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fetcher.load.pace import Pace
    from fetcher.load.plan import Spec
    from fetcher.model import Job, Result

UNFINISHED = "unfinished"
_GRACE = 10.0
_INSTANT = 20e-6
_TIMEOUTS = {
    ErrorKind.CONNECT_TIMEOUT,
    ErrorKind.TLS_TIMEOUT,
    ErrorKind.READ_TIMEOUT,
    ErrorKind.TOTAL_TIMEOUT,
}


class Run:
    """A round in progress. ``round`` has its figures so far; ``stop`` ends it early."""

    def __init__(
        self,
        spec: Spec,
        jobs: Sequence[Job],
        fetch: Callable[[Job], Awaitable[Result]],
        stop: asyncio.Event,
        *,
        grace: float = _GRACE,
    ) -> None:
        self.spec = spec
        self.round = Round(concurrency=spec.concurrency, seconds=0.0)
        self._jobs = jobs
        self._fetch = fetch
        self._stop = stop
        self._grace = grace
        self._next = 0
        self._cutting = False
        self._began = self._begin = self._end = self._last_start = self._last_end = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the window began; negative during the warm-up."""
        return min(perf_counter(), self._end) - self._begin if self._begin else -self.spec.warm_up

    async def measure(self) -> Round:
        """Run it to its end and return its figures."""
        self._begin = perf_counter() + self.spec.warm_up
        self._end = self._begin + self.spec.duration if self.spec.duration is not None else math.inf
        pace = self._pace()
        meter = Meter()
        loop = asyncio.get_running_loop()
        background = [
            loop.create_task(pace.run(), name="pace"),
            loop.create_task(self._watch(meter), name="meter"),
        ]
        workers = [
            loop.create_task(self._work(pace), name=f"load worker {number}") for number in range(self.spec.concurrency)
        ]
        try:
            await self._until_over(workers, pace, meter)
        finally:
            for task in (*background, *workers):
                task.cancel()
            await asyncio.gather(*background, *workers, return_exceptions=True)
        self._finish(pace, meter)
        return self.round

    def _pace(self) -> Pace:
        if self.spec.rate is None:
            return ClosedPace(self.spec, self._begin, self._end)
        return OpenPace(self.spec, self._begin)

    async def _watch(self, meter: Meter) -> None:
        await asyncio.sleep(self._begin - perf_counter())
        await meter.watch()

    async def _until_over(self, workers: Sequence[asyncio.Task[None]], pace: Pace, meter: Meter) -> None:
        done: asyncio.Future[Any] = asyncio.gather(*workers)
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            left = None if math.isinf(self._end) else self._end - perf_counter()
            await asyncio.wait([done, stopped], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            self._end = min(self._end, perf_counter())
            pace.close()
            meter.stop()
            if not self._stop.is_set():
                await asyncio.wait([done, stopped], timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
            self._cutting = True
            for worker in workers:
                worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await done
        finally:
            stopped.cancel()

    async def _work(self, pace: Pace) -> None:
        while (due := await pace.turn()) is not None:
            job = self._jobs[self._next % len(self._jobs)]
            self._next += 1
            started = perf_counter()
            try:
                result = await self._fetch(job)
            except asyncio.CancelledError:
                if not self._cutting:
                    raise
                self._cut(due, started)
                return
            ended = perf_counter()
            self._count(result, due, started, ended)
            if ended - started < _INSTANT:
                # A fetch that waited for nothing has let nobody else run, not even the timer of the end.
                await asyncio.sleep(0)

    def _count(self, result: Result, due: float, started: float, ended: float) -> None:
        figures = self.round
        share = self._share(started, ended)
        figures.answered += share
        figures.received += share * (result.wire_size or 0)
        ok = result.outcome is Outcome.OK
        if ok:
            figures.good += share
        if not self._begin <= due < self._end:
            return
        figures.requests += 1
        figures.ok += ok
        self._last_start, self._last_end = max(self._last_start, started), max(self._last_end, ended)
        if not ok:
            self._count_error(str(result.error_kind), result.error_message or "")
        if result.status is not None or result.error_kind in _TIMEOUTS:
            self._count_latency(ended - due)

    def _share(self, started: float, ended: float) -> float:
        """Return how much of a request lies in the window, from 0 to 1.

        Whole requests would do over a long window. Over a short one, to count by completions alone would make
        it matter whether the last of a wave of answers came just before its end or just after.
        """
        if started >= self._begin and ended <= self._end:
            return 1.0
        within = min(ended, self._end) - max(started, self._begin)
        return max(0.0, within) / (ended - started)

    def _count_error(self, kind: str, message: str) -> None:
        self.round.errors[kind] = self.round.errors.get(kind, 0) + 1
        self.round.messages.setdefault(kind, message)

    def _count_latency(self, seconds: float) -> None:
        bucket = bucket_of(seconds)
        self.round.latency[bucket] = self.round.latency.get(bucket, 0) + 1
        self.round.slowest = max(self.round.slowest, seconds)

    def _cut(self, due: float, started: float) -> None:
        """Count what was still under way when the grace was over; what the user interrupted tells nothing."""
        if self._stop.is_set() or not self._begin <= due < self._end:
            return
        now = perf_counter()
        self.round.requests += 1
        self._last_start = max(self._last_start, started)
        self._count_error(UNFINISHED, f"no answer {self._grace:g} s after the end of the round")
        self._count_latency(now - due)

    def _finish(self, pace: Pace, meter: Meter) -> None:
        figures = self.round
        figures.complete = not self._stop.is_set()
        # A number of requests takes as long as they take; a window is as long as it was meant to be.
        last = self._last_end if self.spec.requests is not None and self._last_end else self._end
        figures.seconds = max(0.0, last - self._begin)
        figures.cpu_seconds = meter.cpu
        figures.cpu_share = meter.cpu / meter.seconds if meter.seconds > 0 else 0.0
        figures.peak_rss, figures.lag = meter.peak_rss, meter.lag
        if self.spec.rate is not None and figures.seconds > 0:
            figures.due = pace.due
            wanted = figures.requests / self.spec.rate
            took = self._last_start - self._begin if self.spec.requests is not None else figures.seconds
            figures.achieved_rate = figures.requests / max(wanted, took)
