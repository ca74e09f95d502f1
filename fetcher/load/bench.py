"""Measures every setting in several rounds, in turn, and keeps what was measured if it is interrupted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fetcher.load.measurement import Report, Round, Setting, held, machine
from fetcher.load.run import UNFINISHED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fetcher.load.plan import Plan
    from fetcher.load.run import Run
    from fetcher.load.target import Target

CLOSED, OPEN = "closed loop", "open loop"
_BUSY = 0.9
_CLOSED_NOTE = (
    "closed loop: each worker asks again when it has its answer, so a slow target is asked less often; for "
    "the latency that users see at a given load, use --rate"
)
_OPEN_NOTE = (
    "open loop: requests are due at fixed times, and latency is counted from then on, the wait for a free "
    "worker included (no coordinated omission)"
)
_OFF_NOTE = "retries and the limits of single hosts are off: every attempt counts, and nothing is held back"


class Bench:
    """A plan on a target. ``current`` is the measurement in progress, ``number`` its round."""

    def __init__(self, target: Target, plan: Plan, on_round: Callable[[Round], None] | None = None) -> None:
        self.target = target
        self.plan = plan
        self.settings = [Setting(concurrency, []) for concurrency in plan.concurrencies]
        self.number = 0
        self.current: Run | None = None
        self._on_round = on_round or (lambda _: None)

    async def run(self, stop: asyncio.Event) -> None:
        """Measure until through or stopped. Raises UnreachableError if nothing answers at the start."""
        await self.target.probe(stop)
        settings = {setting.concurrency: setting for setting in self.settings}
        for number, spec in self.plan.order():
            if stop.is_set():
                return
            run = self.target.run(spec, stop)
            self.number, self.current = number, run.run
            measured = await run.measure()
            self._keep(settings[spec.concurrency], measured)

    def _keep(self, setting: Setting, measured: Round) -> None:
        """Keep a round; one that was cut short only where there is no other."""
        if measured.complete or (measured.requests and not setting.rounds):
            setting.rounds.append(measured)
            self._on_round(measured)

    def report(self) -> Report:
        """Return what was measured so far."""
        report = Report(
            target=self.target.label,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine(),
            loop=OPEN if self.plan.rate is not None else CLOSED,
            plan=self.plan,
            settings=[setting for setting in self.settings if setting.rounds],
        )
        report.notes += [
            _OPEN_NOTE if self.plan.rate is not None else _CLOSED_NOTE,
            _OFF_NOTE,
            *self.target.notes,
        ]
        for setting in report.settings:
            report.notes += _remarks(report, setting)
        wanted = self.plan.rounds * len(self.plan.concurrencies)
        done = sum(one.complete for setting in self.settings for one in setting.rounds)
        if done < wanted:
            report.notes.append(f"interrupted: {done} of {wanted} rounds were measured to their end")
        return report


def _remarks(report: Report, setting: Setting) -> list[str]:
    """Return what has to be known to read the figures of a setting rightly."""
    at, notes = f"at concurrency {setting.concurrency:,}", []
    if not held(report, setting) and report.plan.rate is not None:
        unsent = sum(max(0, (one.due or 0) - one.requests) for one in setting.rounds)
        notes.append(
            f"the rate was not held {at}: {setting.achieved_rate:,.1f} of {report.plan.rate:,.1f} requests/s "
            f"were sent"
            + (f", {unsent:,} that were due never" if unsent else "")
            + "; "
            + ("this machine is at its limit" if setting.cpu_share >= _BUSY else "all workers were waiting")
        )
    elif setting.cpu_share >= _BUSY:
        notes.append(
            f"this process used {setting.cpu_share:.0%} of a core {at}: its figures are the limit of this "
            "machine, not of the target"
        )
    if UNFINISHED in setting.errors:
        count = setting.errors[UNFINISHED]
        notes.append(f"{count:,} requests {at} had no answer long after their round; they count as that slow")
    return notes
