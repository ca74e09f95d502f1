"""The figures of ``fetcher bench`` and ``fetcher tune`` as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fetcher.cli.text import plain, seconds, size
from fetcher.load.comparison import compare, differences
from fetcher.load.knee import levels_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from fetcher.load.comparison import Ratio
    from fetcher.load.knee import Goal, Level, Trial, Verdict
    from fetcher.load.measurement import Report, Setting, Spread

_CERTAIN = 10


def report_tables(report: Report) -> Group:
    """Draw a report: what the target did, what that cost, what went wrong, and how to read it."""
    return Group(
        Text(heading(report), style="bold"),
        _traffic(report),
        Text(),
        _cost(report.settings),
        *_errors(report.settings),
        Text(),
        *(Text(f"- {plain(note, 400)}") for note in report.notes),
    )


def heading(report: Report) -> str:
    """Say what was measured, how, and with what."""
    plan, made = report.plan, report.machine
    each = f"{plan.requests:,} requests" if plan.requests is not None else f"{plan.duration:g} s"
    rate = f" at {plan.rate:,.10g} requests/s" if plan.rate is not None else ""
    rounds = f"{plan.rounds} round{'s' if plan.rounds != 1 else ''} of {each}"
    return (
        f"{plain(report.target)}\n{report.loop}{rate}, {rounds} after {plan.warm_up:g} s of warm-up; "
        f"Python {made.get('python')}, aiohttp {made.get('aiohttp')}, {made.get('cores')} cores"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _traffic(report: Report) -> Table:
    table = _table("concurrency", "requests/s", "min-max", "p50", "p95", "p99", "max", "errors")
    for setting in report.settings:
        latencies = [seconds(setting.quantile(q)) for q in (0.5, 0.95, 0.99)]
        failed = setting.requests - setting.ok
        table.add_row(
            f"{setting.concurrency:,}",
            rate(setting.throughput.median),
            spread(setting.throughput),
            *latencies,
            seconds(setting.slowest if setting.latency else None),
            f"{failed:,}" + (f" ({failed / setting.requests:.1%})" if failed else ""),
        )
    return table


def _cost(settings: Iterable[Setting]) -> Table:
    table = _table("concurrency", "bytes/s", "CPU/request", "of a core", "peak RSS", "loop lag p99")
    for setting in settings:
        cpu = setting.cpu_per_request
        table.add_row(
            f"{setting.concurrency:,}",
            size(setting.bytes_per_second),
            "-" if cpu is None else f"{cpu * 1e6:,.0f} us",
            f"{setting.cpu_share:.0%}",
            size(setting.peak_rss),
            seconds(setting.lag),
        )
    return table


def _errors(settings: Sequence[Setting]) -> list[RenderableType]:
    if not any(setting.errors for setting in settings):
        return []
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("concurrency", justify="right")
    table.add_column("error kind", no_wrap=True)
    table.add_column("requests", justify="right")
    table.add_column("for example", overflow="fold")
    for setting in settings:
        for kind, count in setting.errors.items():
            message = Text(plain(setting.messages.get(kind, ""), 120))
            table.add_row(f"{setting.concurrency:,}", kind, f"{count:,}", message)
    return [Text(), table]


def rate(value: float) -> str:
    """Write a number of requests per second."""
    return f"{value:,.0f}" if value >= _CERTAIN else f"{value:.2f}"


def spread(values: Spread) -> str:
    """Write how far rounds lie apart."""
    return f"{rate(values.low)}-{rate(values.high)}"


def comparison_table(new: Report, old: Report) -> Group:
    """Draw the ratios to an older report."""
    table = _table("concurrency", "requests/s new/old", "p99 new/old")
    for one in compare(new, old):
        table.add_row(f"{one.concurrency:,}", _ratio(one.throughput), _ratio(one.p99))
    lines = [f"- {plain(line, 300)}" for line in differences(new, old)]
    head = f"against the report of {plain(old.date, 40)} (worst and best ratio over all rounds in brackets)"
    return Group(Text(), Text(head, style="bold"), table, *map(Text, lines))


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    certain = "" if ratio.certain else "  within noise"
    return f"{ratio.ratio:.2f} ({ratio.low:.2f}-{ratio.high:.2f}){certain}"


def trials_table(trials: Sequence[Trial], verdict: Verdict | None, goal: Goal) -> Table:
    """Draw what was tried, in order of concurrency, with the knee marked."""
    levels = levels_of(trials)
    knee = verdict.knee if verdict is not None else None
    best = max((level.throughput for level in levels if not level.objection(goal)), default=0.0)
    table = _table("concurrency", "good/s", "of best", "p99", "errors", "of a core", "trials")
    table.add_column("", no_wrap=True)
    for level in levels:
        table.add_row(
            f"{level.concurrency:,}",
            rate(level.throughput),
            f"{level.throughput / best:.0%}" if best else "-",
            seconds(level.p99),
            f"{level.error_rate:.1%}",
            f"{level.cpu_share:.0%}",
            f"{level.trials}",
            _mark(level, knee, goal),
            style="bold green" if level.concurrency == knee else None,
        )
    return table


def _mark(level: Level, knee: int | None, goal: Goal) -> str:
    if level.concurrency == knee:
        return "<- the knee"
    objection = level.objection(goal)
    if objection or knee is None:
        return objection or ""
    return "slower" if level.concurrency < knee else "no faster"
