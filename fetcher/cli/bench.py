"""``fetcher bench``: how a target answers under load, setting by setting."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import structlog
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.text import Text

from fetcher.cli.exits import EXIT_FAILURES, EXIT_INTERRUPTED
from fetcher.cli.figures import comparison_table, rate, report_tables
from fetcher.cli.logs import configure_logging
from fetcher.cli.run import Override, raise_file_limit, run_loop
from fetcher.cli.signals import first_signal
from fetcher.cli.text import plain, seconds
from fetcher.errors import ConfigError, PlanError, ReportError
from fetcher.histogram import quantile
from fetcher.load import page
from fetcher.load.bench import Bench
from fetcher.load.comparison import check_comparable
from fetcher.load.measurement import Report
from fetcher.load.plan import parse_plan
from fetcher.load.target import Target, config_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import RenderableType

    from fetcher.load.measurement import Round
    from fetcher.load.plan import Plan
    from fetcher.load.run import Run

_REFRESH = 0.25
_WIDTH = 160  # where there is no terminal to ask
_OTHER_FILES = 64
_STDOUT = "-"

Consent = Annotated[bool, Parameter(name="--i-may-load-this-host", negative="")]


def bench(
    target: str,
    *,
    concurrency: str = "1,10,50,100",
    duration: str | None = None,
    requests: int | None = None,
    rate: str | None = None,
    rounds: int = 3,
    warm_up: str = "1s",
    html: str | None = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    compare: str | None = None,
    override: Override = None,
    consent: Consent = False,
) -> int:
    """Measure how a target answers under load, at several concurrencies in turn.

    Parameters
    ----------
    target
        A URL, a template http://host/{1..1000}, or a config (its sources, request, body and http sections).
    concurrency
        The settings to measure: how many requests are in flight.
    duration
        How long a round of a setting lasts (10s).
    requests
        How many requests a round has, in place of a duration.
    rate
        Send so many requests a second (100/s) whatever the target does: an open loop.
    rounds
        How many rounds of each setting, in turn: A B C A B C.
    warm_up
        How long each round runs before it counts.
    html
        A file for the report with plots.
    json
        A file for all figures; - is standard output.
    compare
        An earlier --json file to compare with.
    override
        Set a value of the config: key.path=value. May be given several times.
    consent
        Measure a target that is neither loopback nor private.
    """
    plan = parse_plan(
        concurrency=concurrency,
        duration=duration,
        requests=requests,
        rate=rate,
        rounds=rounds,
        warm_up=warm_up,
    )
    old = None if compare is None else _read_report(compare, plan)
    if html is not None:
        page.check()
    for path in (html, json):
        check_writable(path)
    raise_file_limit()
    check_files(max(plan.concurrencies))
    bench = Bench(Target(config_of(target, override or ()), target, consent=consent), plan, _log_round)
    configure_logging()
    console = error_console()
    code = run_loop(measure(bench.target, bench.run, console, lambda: _display(bench)))
    report = bench.report()
    show(report_tables(report), sys.stderr if json == _STDOUT else sys.stdout)
    if old is not None:
        show(comparison_table(report, old), sys.stderr if json == _STDOUT else sys.stdout)
    _write_reports(report, old, html, json)
    succeeded = any(setting.ok for setting in report.settings)
    return code or (0 if succeeded else EXIT_FAILURES)


def error_console() -> Console:
    """Return the console of standard error."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def show(what: RenderableType, file: IO[str]) -> None:
    """Print figures to standard output, or to the other one if that is taken."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(what)


async def measure(
    target: Target,
    work: Callable[[asyncio.Event], Awaitable[None]],
    console: Console,
    display: Callable[[], RenderableType],
) -> int:
    """Open the target and measure, with a live display; return 130 if it was interrupted."""
    stop = asyncio.Event()
    with first_signal(stop.set):
        await target.open()
        showing = asyncio.create_task(_show(console, display), name="display")
        # What was loaded so far lives as long as the process; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        try:
            await work(stop)
        finally:
            showing.cancel()
            await asyncio.wait([showing])
    return EXIT_INTERRUPTED if stop.is_set() else 0


async def _show(console: Console, display: Callable[[], RenderableType]) -> None:
    if not console.is_terminal:
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(display(), refresh=True)
            await asyncio.sleep(_REFRESH)


def run_line(run: Run) -> str:
    """Describe a round in progress on one line."""
    now, elapsed = run.round, run.elapsed
    if elapsed <= 0:
        return "warming up"
    parts = [
        f"{elapsed:.0f} s" + (f" of {run.spec.duration:g} s" if run.spec.duration is not None else ""),
        f"{rate(now.answered / elapsed)} requests/s",
        f"p50 {seconds(quantile(now.latency, 0.5))}",
        f"p99 {seconds(quantile(now.latency, 0.99))}",
        f"errors {now.requests - now.ok:,}",
    ]
    return "  ".join(parts)


def _display(bench: Bench) -> Text:
    text = Text(plain(bench.target.label, 100), style="bold")
    if bench.current is not None:
        spec = bench.current.spec
        head = f"\nround {bench.number} of {bench.plan.rounds}, concurrency {spec.concurrency:,}  "
        text.append(head, style="not bold")
        text.append(run_line(bench.current), style="not bold")
    for setting in bench.settings:
        if setting.rounds:
            line = f"\n{setting.concurrency:>9,}  {rate(setting.throughput.median)} requests/s  "
            line += f"p99 {seconds(setting.quantile(0.99))}"
            text.append(line, style="not bold dim")
    return text


def _log_round(measured: Round) -> None:
    """Write a log line for a round, where there is no display."""
    if sys.stderr.isatty():
        return
    structlog.get_logger().info(
        "round",
        concurrency=measured.concurrency,
        requests=measured.requests,
        per_second=round(measured.throughput, 1),
        p99_s=measured.quantile(0.99),
        errors=measured.requests - measured.ok,
    )


def check_files(concurrency: int) -> None:
    """Raise PlanError if this process may not open as many connections."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  not on Windows

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and concurrency + _OTHER_FILES > allowed:
        raise PlanError(
            f"--concurrency {concurrency:,}: this process may open only {allowed:,} files, and a connection "
            "is one; allow more (ulimit -n), or ask for less"
        )


def check_writable(path: str | None) -> None:
    """Raise ConfigError if a report can not be written there, before time is spent on measuring."""
    if path is None or path == _STDOUT:
        return
    existed = Path(path).exists()
    try:
        with Path(path).open("ab"):
            pass
        if not existed:
            Path(path).unlink()
    except OSError as error:
        raise ConfigError(f"{path}: can not be written: {error.strerror}; nothing was measured") from None


def _read_report(path: str, plan: Plan) -> Report:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can not be read: {error.strerror}") from None
    report = Report.load(content, path)
    check_comparable(plan, report)
    return report


def _write_reports(report: Report, old: Report | None, html: str | None, json: str | None) -> None:
    if json == _STDOUT:
        sys.stdout.write(report.dump().decode())
    elif json is not None:
        write_report(json, report.dump())
    if html is not None:
        write_report(html, page.render(report, old).encode("utf-8", "replace"))


def write_report(path: str, content: bytes) -> None:
    """Write a report. Raises ReportError if there is no room for it."""
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise ReportError(f"{path}: the report could not be written: {error.strerror}; the figures are above") from None
