"""How a run behaves as its input grows: the wait for the first fetch, memory, rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Case, Check, Options, Report, Table
from benchmarks.charts import Chart, Point, Series
from benchmarks.comparison import spread_of
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Bench, Round, Sample

_SIZE = 1024
_MB = 1_000_000
_FIRST_FETCH = 2.0
_PEAK = 200
_GROWTH = 1.1
_NULL, _REAL = "fetcher_null", "fetcher_run"


def run(bench: Bench, options: Options) -> Report:
    """Run three inputs, each ten times the one before; the largest over the network only if asked to."""
    sizes = [max(1, options.requests // divisor) for divisor in (100, 10, 1)]
    entrants = [_entrant(bench, _NULL, n, 0, options) for n in sizes]
    real = sizes if options.real else sizes[:-1]
    entrants += [_entrant(bench, _REAL, n, n * _SIZE, options) for n in real]
    rounds = bench.rounds(entrants, options.repeat)
    return Report(
        tables=[_table(rounds)],
        charts=_charts(rounds, sizes),
        checks=_checks(rounds, sizes[-2:]),
        samples=[sample for each in rounds for sample in each.values()],
        notes=[
            "first fetch: from the start of the process to the first request, import of everything included",
            f"{_NULL} has no network and no display; {_REAL} is the command as a user starts it",
        ],
    )


def _entrant(bench: Bench, module: str, count: int, size: int, options: Options) -> Entrant:
    urls = write_urls(bench, count, f"/bytes/{_SIZE}")
    return Entrant(_label(module, count), module, urls, count, size, options.concurrency, options.concurrency)


def _label(module: str, count: int) -> str:
    return f"{module} {count:,}"


def _table(rounds: list[Round]) -> Table:
    columns = ["run", "first fetch s", "peak RSS MB", "requests/s", "us CPU/request"]
    rows = [
        [
            label,
            spread_of(rounds, label, lambda sample: sample.first_fetch_s, ".2f"),
            spread_of(rounds, label, lambda sample: sample.fetched.max_rss / _MB, ".0f"),
            spread_of(rounds, label, lambda sample: sample.rate, ",.0f"),
            spread_of(rounds, label, lambda sample: sample.cpu_us, ".1f"),
        ]
        for label in rounds[0]
    ]
    return Table("a file of N URLs", columns, rows)


def _charts(rounds: list[Round], sizes: list[int]) -> list[Chart]:
    figures: dict[str, Callable[[Sample], float]] = {
        "peak RSS in MB": lambda sample: sample.fetched.max_rss / _MB,
        "requests/s": lambda sample: sample.rate,
    }
    charts = []
    for (y, figure), name in zip(figures.items(), ("scale-memory", "scale-rate"), strict=True):
        series = [
            Series(module, _points(rounds, {_label(module, n): n for n in sizes}, figure)) for module in (_NULL, _REAL)
        ]
        charts.append(Chart(name, f"A file of N URLs: {y}", "lines", y, series, x="URLs", log_y=False))
    return charts


def _points(rounds: list[Round], labels: dict[str, int], figure: Callable[[Sample], float]) -> list[Point]:
    return [
        Point(n, spread([figure(each[label]) for each in rounds])) for label, n in labels.items() if label in rounds[0]
    ]


def _checks(rounds: list[Round], largest: list[int]) -> list[Check]:
    samples = [sample for each in rounds for sample in each.values()]
    first = max(sample.first_fetch_s for sample in samples)
    peak = max(sample.fetched.max_rss for sample in samples) / _MB
    checks = [
        Check(
            f"first fetch within {_FIRST_FETCH:g} s of start",
            f"{first:.2f} s at worst",
            first <= _FIRST_FETCH,
        ),
        Check(f"peak RSS at most {_PEAK} MB", f"{peak:.0f} MB at worst", peak <= _PEAK),
    ]
    for module in (_NULL, _REAL):
        small, large = (_label(module, count) for count in largest)
        if large in rounds[0]:
            growth = spread([each[large].fetched.max_rss / each[small].fetched.max_rss for each in rounds]).median
            bound = f"{module}: with ten times the URLs at most {_GROWTH:g} times the memory"
            checks.append(Check(bound, f"{growth:.2f} times", growth <= _GROWTH))
    return checks


CASE = Case(
    goal=f"Whatever the number of URLs, the first fetch comes within {_FIRST_FETCH:g} s of the start, and "
    f"peak RSS stays under {_PEAK} MB and does not grow with it.",
    run=run,
    requests=1_000_000,
    repeat=1,
)
