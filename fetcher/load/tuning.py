"""The search for the knee on a real target, and what it means for the limits of a config."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from fetcher.load.knee import Goal, Trial, Try, Verdict, next_step
from fetcher.load.plan import Spec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from fetcher.engine.hosts.limiter import LimitSettings
    from fetcher.load.measurement import Round
    from fetcher.load.run import Run
    from fetcher.load.target import Target
    from fetcher.model import Job


class Tuner:
    """Tries one concurrency after the other. ``trials`` has what each gave, ``verdict`` how it ended."""

    def __init__(
        self,
        target: Target,
        goal: Goal,
        *,
        duration: float,
        warm_up: float,
        on_trial: Callable[[Trial, str], None] | None = None,
    ) -> None:
        """``duration`` and ``warm_up`` of each trial are in seconds."""
        self.target = target
        self.goal = goal
        self.trials: list[Trial] = []
        self.verdict: Verdict | None = None
        self.current: Run | None = None
        self.duration, self._warm_up = duration, warm_up
        self._on_trial = on_trial or (lambda _trial, _why: None)

    async def run(self, stop: asyncio.Event) -> None:
        """Search until found or stopped. Raises UnreachableError if nothing answers at the start."""
        await self.target.probe(stop)
        while not stop.is_set():
            step = next_step(self.trials, self.goal)
            if isinstance(step, Verdict):
                self.verdict = step
                return
            await self._try(step, stop)

    async def _try(self, step: Try, stop: asyncio.Event) -> None:
        spec = Spec(concurrency=step.concurrency, duration=self.duration, warm_up=self._warm_up)
        run = self.target.run(spec, stop)
        self.current = run.run
        measured = await run.measure()
        if measured.complete:
            self.trials.append(trial_of(measured))
            self._on_trial(self.trials[-1], step.why)


def trial_of(measured: Round) -> Trial:
    """Return what the search has to know of a round."""
    return Trial(
        concurrency=measured.concurrency,
        throughput=measured.goodput,
        error_rate=measured.error_rate,
        p99=measured.quantile(0.99),
        cpu_share=measured.cpu_share,
    )


class Advice(msgspec.Struct, frozen=True):
    """Which limits a config needs for a concurrency to be reached, and what else stands in its way."""

    limits: dict[tuple[str, ...], int]
    remarks: list[str]


def advise(knee: int, jobs: Sequence[Job], limits: LimitSettings) -> Advice:
    """Return the limits with which ``knee`` requests are in flight over the hosts of ``jobs``.

    The limit of a host is raised where it is less than the host's share of the knee, and never lowered.
    """
    wanted: dict[tuple[str, ...], int] = {("limits", "concurrency"): knee}
    remarks: list[str] = []
    lookup = limits.lookup()
    needed = 0
    for host, count in Counter(job.host for job in jobs).items():
        share = math.ceil(knee * count / len(jobs))
        found = lookup(host)
        if found.interval:
            remarks.append(f"{host} is also held to {1 / found.interval:,.3g} requests/s by its rate or delay")
        if share <= found.concurrency:
            continue
        if found is limits.per_host:
            needed = max(needed, share)
        else:
            remarks.append(f"limits.hosts allows {host} only {found.concurrency} in flight; the knee needs {share}")
    if needed:
        wanted["limits", "per_host", "concurrency"] = needed
    return Advice(wanted, _few(remarks))


def _few(remarks: list[str], most: int = 3) -> list[str]:
    more = len(remarks) - most
    return remarks if more <= 0 else [*remarks[:most], f"and {more:,} hosts more like these"]
