"""What the service costs: a batch through ``fetcher serve`` beside the same work by ``fetcher run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import comparison
from benchmarks.cases import Case, Options, Report
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant, Race

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_SIZE = 1024
_BOUND = 0.9
_RUN, _SERVICE = "fetcher_run", "fetcher_service"
_VARIANTS = {"": _SERVICE, "watched": "watched", "two": "two batches"}


def run(bench: Bench, options: Options) -> Report:
    """Let the command and the service have the same, in turns."""
    n, concurrency = options.requests, options.concurrency
    urls = write_urls(bench, n, f"/bytes/{_SIZE}")
    entrants = [Entrant(_RUN, _RUN, urls, n, n * _SIZE, concurrency, concurrency)] + [
        Entrant(label, _SERVICE, urls, n, n * _SIZE, concurrency, concurrency, variant=variant)
        for variant, label in _VARIANTS.items()
    ]
    race = Race(bench.rounds(entrants, options.repeat), {}, {})
    return Report(
        tables=[comparison.table(f"{n:,} URLs of {_SIZE} bytes, {concurrency} in flight", race, _RUN)],
        checks=comparison.at_least(race, _SERVICE, _RUN, _BOUND),
        samples=race.samples,
        notes=[
            "requests/s: by the batch's own time; of two batches, from the start of the first to the end of the last",
            "us CPU: of fetcher_run the whole process with its start, of the others the service from submission to end",
            "watched: somebody looks at the page; two batches: the same URLs, half of them in each",
        ],
    )


CASE = Case(
    goal=f"A batch through the service does at least {_BOUND:g} times the requests per second of `fetcher run`.",
    run=run,
    requests=30_000,
    repeat=3,
)
