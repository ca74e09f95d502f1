"""Answers that take their time, as those from far away do: what waiting for many at once is good for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import contest
from benchmarks.cases import Case, Check, Options, Report
from benchmarks.charts import Chart, Point, Series, over
from benchmarks.comparison import at_least
from benchmarks.latency_grid import grid

if TYPE_CHECKING:
    from benchmarks.measure import Bench, Entrant, Race

_DELAY = 0.1
_PATH = f"/delay/{_DELAY}/bytes/{contest.SIZE}"
_THREADS = 32
_THREADED = {"blocking_socket": 1, "socket_threads": 32, "http_client": 32, "requests_threads": 32}
_POOL = "socket_threads"
_ORDER = 10.0
# In flight, as multiples of what the options say (100), and the share of their requests (10,000).
_LEVELS = ((1, 0.1), (10, 0.8), (50, 2.0))
# Not where most are in flight: some of them have no more in flight for it, the others take half a minute for a run.
_SLOW = {"blocking_socket", "http_client", "requests_threads", "httpx", "scrapy", "crawlee"}
_DRAWN = ("bare_aiohttp", "fetcher_batch", "pyreqwest", "pycurl_multi", _POOL)


def run(bench: Bench, options: Options) -> Report:
    """Race at each number in flight, then see at which latency the two ways cross."""
    reports, races = [], {}
    for factor, share in _LEVELS:
        level = factor * options.concurrency
        entrants = _entrants(bench, options, level, round(options.requests * share))
        races[level] = race = bench.race(entrants, options.repeat)
        title = f"{contest.SIZE:,} bytes after {_DELAY * 1000:g} ms, {level:,} in flight"
        report = contest.report(title, race)
        report.checks += _checks(race, level)
        reports.append(report)
    report = contest.merged([*reports, grid(bench, options)])
    report.charts.insert(0, _chart(races))
    report.notes += [
        f"'{_POOL}, N threads': as many threads as requests in flight, far more than anyone would recommend",
        f"not where most are in flight, for being no faster, or for what it takes: {', '.join(sorted(_SLOW))}",
    ]
    return report


def _entrants(bench: Bench, options: Options, level: int, requests: int) -> list[Entrant]:
    most = level == _LEVELS[-1][0] * options.concurrency
    entrants = []
    for module in contest.everyone(options):
        if most and module in _SLOW:
            continue
        slots = min(_THREADED.get(module, level), level)
        # Whoever waits for fewer at once gets fewer to fetch: all take about as long.
        count = max(1, round(requests * slots / level)) if slots < level else contest.share(module, requests)
        task: dict[str, Any] = {"concurrency": level, "group": f"latency-{level}", "threads": _THREADS}
        entrants.append(contest.entrant(bench, module, _PATH, count, **task))
        if module == _POOL:
            task |= {"label": f"{_POOL}, {level:,} threads", "threads": level}
            entrants.append(contest.entrant(bench, module, _PATH, requests, **task))
    return entrants


def _checks(race: Race, level: int) -> list[Check]:
    checks = [
        *at_least(race, contest.BARE, _POOL, _ORDER),
        *at_least(race, "fetcher_batch", _POOL, _ORDER),
    ]
    for check in checks:
        check.bound = f"{level:,} in flight, {check.bound} ({_THREADS} threads)"
    return checks if level > _ORDER * _THREADS else []


def _chart(races: dict[int, Race]) -> Chart:
    series = []
    for label in _DRAWN:
        points = [
            Point(level, over(race, label, lambda sample: sample.rate))
            for level, race in races.items()
            if label in race.rounds[0]
        ]
        series.append(Series(f"{label}, {_THREADS} threads" if label == _POOL else label, points))
    many = [
        Point(level, over(race, f"{_POOL}, {level:,} threads", lambda sample: sample.rate))
        for level, race in races.items()
        if f"{_POOL}, {level:,} threads" in race.rounds[0]
    ]
    series.append(Series(f"{_POOL}, a thread for each", many))
    return Chart(
        name="latency",
        title=f"Answers that take {_DELAY * 1000:g} ms",
        kind="lines",
        x="requests in flight",
        y="requests/s",
        series=[each for each in series if each.points],
    )


CASE = Case(
    goal=f"When an answer takes {_DELAY * 1000:g} ms, waiting for a thousand at once without blocking fetches at "
    f"least {_ORDER:g} times as much as blocking in {_THREADS} threads; and where the two cross is known.",
    run=run,
    requests=10_000,
    repeat=3,
    contest=True,
)
