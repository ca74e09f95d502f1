"""What a user gets: `fetcher run` with durable queue and records, beside a loop that keeps nothing."""

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
_BOUND = 0.9
_BARE, _RUN = "bare_aiohttp", "fetcher_run"
_MODULES = (_BARE, _RUN, "fetcher_batch")


def run(bench: Bench, options: Options) -> Report:
    """Compare the command, and the batch in it, with the bare loop."""
    n, concurrency = options.requests, options.concurrency
    urls = write_urls(bench, n, f"/bytes/{_SIZE}")
    entrants = [Entrant(name, name, urls, n, n * _SIZE, concurrency, concurrency) for name in _MODULES]
    rounds = bench.rounds(entrants, options.repeat)
    race = Race(rounds, {}, {})
    ratio = comparison.ratio(rounds, _RUN, _BARE)
    return Report(
        tables=[comparison.table(f"{n:,} URLs of {_SIZE} bytes, {concurrency} in flight", race, _BARE)],
        checks=[
            Check(
                f"at least {_BOUND:g} times the rate of the bare loop",
                f"{comparison.shown(ratio, '.2f')} times",
                ratio.median >= _BOUND,
            )
        ],
        samples=race.samples,
        charts=[bars("end-to-end", f"{n:,} URLs, {concurrency} in flight", race)],
        notes=[
            "requests/s, ratio: bare_aiohttp from first request to last; fetcher_run by its own tally",
            "fetcher_batch: the same batch without a display, from before the first read to the last ack",
            "us CPU: of fetcher_run the whole process with its start, of the others what the rate is of",
            "process s: the whole process; those of fetcher end with reading and checking their records",
        ],
    )


CASE = Case(
    goal=f"`fetcher run` with a SQLite queue and a JSONL file does at least {_BOUND:g} times the requests "
    "per second of a bare aiohttp loop that keeps nothing.",
    run=run,
    requests=30_000,
)
