"""Looks at engines several times a second, so as to tell what bounds them (`fetcher.engine.why.bounds`)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fetcher.engine.why.bounds import WINDOW, Looks
from fetcher.engine.why.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fetcher.engine.engine import Engine
    from fetcher.engine.why.advice import Bound
    from fetcher.engine.why.bounds import Finding

PERIOD = 0.25
"""Seconds between two looks, if looking is cheap."""
# Looking takes no more of a core than this, however many requests are in flight: it is done less often then.
_MOST_CPU = 0.005
# How much more the last look counts than those before it.
_SMOOTHING = 0.3


class Lookout:
    """``run`` looks; ``findings`` tells, of the last ``window`` seconds or, if that is infinite, of all the time.

    Of engines that have ended nothing is told, unless it is of all the time.
    ``engines`` returns those that are open. ``on_late`` is told how late the timer of each look was, in seconds.
    """

    def __init__(
        self,
        engines: Callable[[], Iterable[Engine]],
        on_late: Callable[[float], None] | None = None,
        window: float = WINDOW,
    ) -> None:
        self._engines = engines
        self._on_late = on_late
        self._looks = Looks(window)
        self._since: dict[Engine, float] = {}
        self._cpu = self._late = 0.0
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Look until cancelled."""
        period = PERIOD
        before = time.perf_counter(), time.thread_time()
        while True:
            due = self._loop.time() + period
            await asyncio.sleep(period)
            late = max(0.0, self._loop.time() - due)
            if self._on_late is not None:
                self._on_late(late)
            # That of the loop's own thread: what others take does not keep it from its work.
            now = time.perf_counter(), time.thread_time()
            self._update((now[1] - before[1]) / max(now[0] - before[0], 1e-6), late)
            before = now
            self.look()
            period = max(PERIOD, (time.thread_time() - now[1]) / _MOST_CPU)

    def _update(self, cpu: float, late: float) -> None:
        self._cpu += (cpu - self._cpu) * _SMOOTHING
        self._late += (late - self._late) * _SMOOTHING

    def look(self) -> None:
        """Look once."""
        now = self._loop.time()
        self._since = {engine: self._since.get(engine, now) for engine in self._engines() if not engine.draining}
        seen = [sample(engine, now, self._cpu, self._late, since) for engine, since in self._since.items()]
        self._looks.add(seen, now)

    @property
    def engines(self) -> int:
        """How many engines there were at the last look."""
        return len(self._since)

    @property
    def seconds(self) -> float:
        """Over which time there were looks."""
        return self._looks.seconds(self._loop.time())

    def findings(self) -> list[Finding]:
        """Return what bounds the throughput, the largest share first."""
        return self._looks.findings()

    def bounds(self) -> Mapping[Bound, float]:
        """Return the same as shares alone."""
        return {one.bound: one.share for one in self.findings()}
