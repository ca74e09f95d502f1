"""What each output costs: a batch that writes it, beside the same batch that writes JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import comparison
from benchmarks.cases import Case, Options, Report
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant, Race
from benchmarks.outputs import JSONL, OUTPUTS

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_SIZE = 1024
_MODULE = "fetcher_sink"
_BOUNDS = {"parquet": 0.8, "sqlite": 0.8, "postgres": 0.6, "warc.gz": 0.5}


def run(bench: Bench, options: Options) -> Report:
    """Let every sink have the same, in turns."""
    n, concurrency = options.requests, options.concurrency
    urls = write_urls(bench, n, f"/bytes/{_SIZE}")
    entrants = [
        Entrant(name, _MODULE, urls, n, n * _SIZE, concurrency, concurrency, group="sinks", variant=name)
        for name in OUTPUTS
    ]
    race = Race(bench.rounds(entrants, options.repeat), {}, {})
    checks = [check for name, bound in _BOUNDS.items() for check in comparison.at_least(race, name, JSONL, bound)]
    return Report(
        tables=[comparison.table(f"{n:,} URLs of {_SIZE} bytes, bodies in the records", race, JSONL)],
        checks=checks,
        samples=race.samples,
        notes=[
            "requests/s: from before the first read to after the last ack and the close of the sink",
            "every output was read back: it has each job once, or there would be no figures of it",
        ],
    )


CASE = Case(
    goal="Parquet and SQLite do at least 0.8, PostgreSQL at least 0.6 and WARC at least 0.5 times the requests per "
    "second of a JSONL file.",
    run=run,
    requests=20_000,
    repeat=3,
)
