"""Large bodies: how fast bytes get through, and how many of them are held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import comparison, contest
from benchmarks.cases import Case, Options, Report
from benchmarks.charts import bars

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_MIB = 2**20
_SIZE = 16 * _MIB
_IN_FLIGHT = 8
_BOUND = 0.5
_OURS = "fetcher_batch"


def run(bench: Bench, options: Options) -> Report:
    """Let everyone fetch as many files as there are to be requests."""
    task: dict[str, Any] = {"concurrency": _IN_FLIGHT, "group": "large", "size": _SIZE}
    entrants = [
        contest.entrant(bench, module, f"/bytes/{_SIZE}", options.requests, **task)
        for module in contest.everyone(options)
    ]
    race = bench.race(entrants, options.repeat)
    title = f"{options.requests} files of {_SIZE // _MIB} MiB, {_IN_FLIGHT} in flight"
    report = contest.report(title, race, [bars("large", title, race)])
    report.notes.append(f"MiB/s: {_SIZE // _MIB} x requests/s")
    report.notes.append("fetcher hashes every body (SHA-256); nobody else does")
    report.checks += comparison.at_least(race, _OURS, contest.BARE, _BOUND)
    return report


CASE = Case(
    goal="With 64 files of 16 MiB the bytes decide and not the requests: fetcher, which hashes them all, moves "
    f"at least {_BOUND:g} times as many as a loop that drops them.",
    run=run,
    requests=64,
    repeat=3,
    contest=True,
)
