"""What everything but the network costs: source, queue, engine and file, with answers out of thin air."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import comparison
from benchmarks.cases import Case, Check, Options, Report
from benchmarks.charts import bars
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant, Race

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_SIZE = 1024
_BOUND = 4.0
_BARE, _NULL = "bare_aiohttp", "fetcher_null"


def run(bench: Bench, options: Options) -> Report:
    """Compare a batch without a network with the bare loop that has one."""
    n, concurrency = options.requests, options.concurrency
    urls = write_urls(bench, n, f"/bytes/{_SIZE}")
    entrants = [
        Entrant(_BARE, "bare_aiohttp", urls, n, n * _SIZE, concurrency, concurrency),
        Entrant(_NULL, "fetcher_null", urls, n, 0, concurrency, concurrency),
    ]
    rounds = bench.rounds(entrants, options.repeat)
    race = Race(rounds, {}, {})
    ratio = comparison.ratio(rounds, _NULL, _BARE)
    return Report(
        tables=[comparison.table(f"{n:,} URLs, {concurrency} in flight", race, _BARE)],
        checks=[
            Check(
                f"at least {_BOUND:g} times the rate of the bare loop",
                f"{comparison.shown(ratio, '.2f')} times",
                ratio.median >= _BOUND,
            )
        ],
        samples=race.samples,
        charts=[bars("engine", f"{n:,} URLs, {concurrency} in flight", race)],
        notes=["fetcher_null: from before the first line is read to after the last job is acknowledged"],
    )


CASE = Case(
    goal=f"The engine with a SQLite queue and a JSONL file does at least {_BOUND:g} times the requests per "
    "second of a bare aiohttp loop, so that the network and not the engine is what a run waits for.",
    run=run,
    requests=50_000,
)
