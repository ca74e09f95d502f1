"""What each guarantee costs: a batch with it, and without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import comparison
from benchmarks.cases import Case, Options, Report
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant, Race
from benchmarks.variants import USUAL, VARIANTS

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_SIZE = 1024
_MODULE = "fetcher_variant"


def run(bench: Bench, options: Options) -> Report:
    """Let every variant fetch the same, in turns."""
    n, concurrency = options.requests, options.concurrency
    urls = write_urls(bench, n, f"/bytes/{_SIZE}")
    entrants = [
        Entrant(name, _MODULE, urls, n, n * _SIZE, concurrency, concurrency, group="hardening", variant=name)
        for name in VARIANTS
    ]
    race = Race(bench.rounds(entrants, options.repeat), {}, {})
    return Report(
        tables=[comparison.table(f"{n:,} URLs of {_SIZE} bytes, {concurrency} in flight", race, USUAL)],
        checks=[],
        samples=race.samples,
        notes=[
            *(f"{name}: {variant.about}" for name, variant in VARIANTS.items()),
            f"x {USUAL}: above 1, it is faster so; 'no ...' shows what a guarantee costs that is always there",
        ],
    )


CASE = Case(
    goal="What each guarantee costs in requests per second and in CPU time, by leaving it out or switching it on.",
    run=run,
    requests=10_000,
    repeat=3,
)
