"""What a run shows while it runs: a live display on a terminal, JSON log lines elsewhere. Both on stderr."""

from __future__ import annotations

import asyncio
import heapq
import sys
from typing import TYPE_CHECKING

import structlog
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fetcher.cli import troubles, waiting
from fetcher.cli.text import clock, plain, seconds, size
from fetcher.engine.waiting import look
from fetcher.model import Outcome
from fetcher.sinks.stdout import StdoutConfig

if TYPE_CHECKING:
    from fetcher.assembly import Batch
    from fetcher.engine.engine import Engine

_REFRESH = 0.25
_LOOK_EVERY = 1.0
_LOOKS_PER_LOG = 5
_SMOOTHING = 0.15
_HOSTS_SHOWN = 3
_STYLES = {Outcome.OK: "green", Outcome.FAILED: "red", Outcome.SKIPPED: "yellow"}


class Rate:
    """Jobs ended per second, smoothed."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._time = asyncio.get_running_loop().time()
        self.value = 0.0

    def update(self, done: int) -> None:
        """Take the count of this moment into account."""
        now = asyncio.get_running_loop().time()
        if now <= self._time:
            return
        current = (done - self._done) / (now - self._time)
        self.value = current if not self.value else self.value + _SMOOTHING * (current - self.value)
        self._done, self._time = done, now

    def eta(self, engine: Engine) -> float | None:
        """Estimate the seconds to the end, None while the sources are still being read or nothing moves."""
        return engine.left / self.value if self.value > 0 and not engine.growing else None


async def show(batch: Batch, console: Console) -> None:
    """Show progress until cancelled; nothing where a display would be drawn into records."""
    if not console.is_terminal:
        await _log(batch)
    if not _records_on_terminal(batch):
        await _display(batch, console)


async def _log(batch: Batch) -> None:
    """Write a line of progress now and then, and another about what is waited for if nothing ends."""
    engine, now = batch.engine, asyncio.get_running_loop().time
    rate, lull, trouble = Rate(engine.done), waiting.Lull(engine.done, now()), troubles.Troubles()
    while True:
        # Looked at more often than written, so as to know since when nothing has ended.
        for _ in range(_LOOKS_PER_LOG):
            await asyncio.sleep(_LOOK_EVERY)
            quiet = lull.update(engine.done, now())
            trouble.log(engine.delivery, batch.config.name, now())
        rate.update(engine.done)
        log_progress(batch, rate)
        if quiet is not None:
            found = waiting.fields(look(engine, now()), quiet)
            structlog.get_logger().info("waiting", batch=batch.config.name, **found)


async def _display(batch: Batch, console: Console) -> None:
    engine, now = batch.engine, asyncio.get_running_loop().time
    rate, lull = Rate(engine.done), waiting.Lull(engine.done, now())
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            rate.update(engine.done)
            live.update(render(batch, rate, lull.update(engine.done, now())), refresh=True)
            await asyncio.sleep(_REFRESH)


def _records_on_terminal(batch: Batch) -> bool:
    return sys.stdout.isatty() and any(isinstance(sink, StdoutConfig) for sink in batch.config.sinks)


def log_progress(batch: Batch, rate: Rate) -> None:
    """Write one line of progress."""
    engine = batch.engine
    structlog.get_logger().info(
        "progress",
        batch=batch.config.name,
        done=engine.done,
        total=engine.added,
        reading=not engine.fed,
        in_flight=len(engine.running),
        per_second=round(rate.value, 1),
        retries=engine.retries,
        postponed=engine.postponed.count,
        **{outcome.value: count for outcome, count in engine.delivery.tally.outcomes.items()},
        **troubles.fields(engine.delivery),
    )


def render(batch: Batch, rate: Rate, quiet: float | None = None) -> Group:
    """Draw the display. ``quiet``: for how many seconds nothing has ended, if that is worth a word."""
    engine = batch.engine
    tally = engine.delivery.tally
    head = Table.grid(padding=(0, 2))
    total = f"{engine.added:,}" + ("+" if engine.growing else "")
    head.add_row(
        Text(batch.config.name, style="bold"),
        Text(f"{engine.done:,}/{total}"),
        ProgressBar(total=max(1, engine.added), completed=engine.done, width=30),
        Text(f"{rate.value:,.0f}/s"),
        # While nothing ends, nobody knows when it will.
        Text(f"ETA {clock(rate.eta(engine) if quiet is None else None)}"),
    )
    counts = Text()
    for outcome in Outcome:
        counts.append(f"{outcome.value} {tally.outcomes.get(outcome, 0):,}  ", style=_STYLES[outcome])
    counts.append(f"in flight {len(engine.running)}  retries {engine.retries:,}  {size(tally.wire_bytes)}")
    if engine.postponed.count:
        counts.append(f"  postponed {engine.postponed.count:,}")
    now = asyncio.get_running_loop().time()
    parts: list[RenderableType] = [head, counts, _hosts(engine), *troubles.render(engine.delivery, now)]
    if quiet is not None:
        parts.append(waiting.render(look(engine, now), quiet))
    return Group(*parts)


def _hosts(engine: Engine) -> Text:
    """Name the hosts with most in flight and those that answer most slowly."""
    hosts = [host for host in engine.scheduler.hosts() if host.in_flight and host.name]
    busiest = heapq.nlargest(_HOSTS_SHOWN, hosts, key=lambda host: host.in_flight)
    slowest = heapq.nlargest(_HOSTS_SHOWN, hosts, key=lambda host: host.latency)
    line = Text("busiest ", style="dim")
    line.append("  ".join(f"{plain(host.name, 40)} {host.in_flight}" for host in busiest) or "-")
    line.append("\nslowest ")
    line.append("  ".join(f"{plain(host.name, 40)} {seconds(host.latency)}" for host in slowest) or "-")
    return line
