"""One task that everyone can do, given to everyone: what ``small``, ``fresh``, ``tls``, ``latency`` share."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

from benchmarks import comparison, contenders
from benchmarks.cases import Report
from benchmarks.charts import bars
from benchmarks.inputs import write_urls
from benchmarks.measure import Entrant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.cases import Options
    from benchmarks.charts import Chart
    from benchmarks.measure import Bench, Race

BARE = "bare_aiohttp"
SIZE = 1024
MISSING = "missing"

# What these do has cases of its own: no network, a process and a display of its own, a promise taken away.
_NOT_PEERS = {"__main__", "fetcher_null", "fetcher_run", "fetcher_sink", "fetcher_variant"}
# Of the requests of a case, so that each takes about as long; rates are compared, so the number does not matter.
_SHARES = {
    "blocking_socket": 0.5,
    "requests_threads": 0.25,
    "httpx": 0.1,
    "scrapy": 0.1,
    "crawlee": 0.25,
}
NOTES = [
    "every contender got every response and every byte, or there would be no figures of it",
    "requests/s and us CPU: from the first request to the last; process s: with start and end of the process",
    "each contender, and all its threads, has one core; origin CPU near 100%: the origin is what is measured",
    "blocking_socket, socket_threads: parse nothing but the status, and have a connection for each request",
    "threads: 32, as many as a ThreadPoolExecutor takes at most of its own accord",
    "fetcher_engine: this project, queue and sink in memory; fetcher_batch: with SQLite queue and JSONL file",
]


def everyone(options: Options) -> list[str]:
    """Return the contenders of a case: the bare loop and the peers that were named, or all."""
    peers = options.peers or peer_names()
    return [BARE, *(name for name in peers if name != BARE)]


def peer_names() -> list[str]:
    """Return everyone who can take part."""
    names = (name for _, name, _ in pkgutil.iter_modules(contenders.__path__))
    return [name for name in names if name not in _NOT_PEERS]


def share(module: str, count: int) -> int:
    """Return how many of ``count`` requests a contender is to make."""
    return max(1, round(count * _SHARES.get(module, 1.0)))


def entrant(bench: Bench, module: str, path: str, count: int, size: int = SIZE, **task: Any) -> Entrant:
    """Give a contender ``count`` requests of a path that answers with ``size`` bytes."""
    root = bench.tls().url if task.get("tls") else bench.origin.url
    urls = write_urls(bench, count, path, root)
    fields = {"label": module, "per_host": task.get("concurrency", 100)} | task
    return Entrant(module=module, urls=urls, count=count, bytes=count * size, **fields)


def contest(
    bench: Bench,
    options: Options,
    name: str,
    title: str,
    path: str,
    bounds: Mapping[str, float] | None = None,
    **task: Any,
) -> Report:
    """Give the same task to everyone; draw up table and chart. ``bounds`` are least ratios to the bare loop."""
    fields: dict[str, Any] = {"concurrency": options.concurrency, "group": name} | task
    entrants = [entrant(bench, module, path, share(module, options.requests), **fields) for module in everyone(options)]
    race = bench.race(entrants, options.repeat)
    drawn = report(title, race, [bars(name, title, race)])
    for label, bound in (bounds or {}).items():
        drawn.checks += comparison.at_least(race, label, BARE, bound)
    return drawn


def report(title: str, race: Race, charts: Sequence[Chart] = ()) -> Report:
    """Draw up a race."""
    return Report(
        tables=[comparison.table(title, race, BARE)],
        checks=[],
        samples=race.samples,
        notes=list(NOTES),
        charts=list(charts),
        missing={label: why for label, why in race.unable.items() if why.startswith(MISSING)},
        broken=dict(race.broken),
    )


def merged(reports: Sequence[Report]) -> Report:
    """Return several reports as one."""
    return Report(
        tables=[table for each in reports for table in each.tables],
        checks=[check for each in reports for check in each.checks],
        samples=[sample for each in reports for sample in each.samples],
        notes=list(dict.fromkeys(note for each in reports for note in each.notes)),
        charts=[chart for each in reports for chart in each.charts],
        missing={label: why for each in reports for label, why in each.missing.items()},
        broken={label: why for each in reports for label, why in each.broken.items()},
    )
