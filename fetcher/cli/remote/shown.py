"""Batches of a service as people read them on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fetcher.cli.text import clock, plain, seconds, size
from fetcher.model import Outcome
from fetcher.service.models import ENDED, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.service.models import BatchView, Progress, Why

_STATES = {
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.FAILED: "red",
    State.PAUSED: "yellow",
    State.CANCELLED: "yellow",
}
_OUTCOMES = {Outcome.OK: "green", Outcome.FAILED: "red", Outcome.SKIPPED: "yellow"}
_BAR = 30
_WIDTH = 160  # where there is no terminal to ask


def console(*, stderr: bool = False) -> Console:
    """Return what is drawn on, wide enough for whoever reads it from a file."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = _WIDTH
    return made


def table(batches: Sequence[BatchView]) -> Table:
    """Draw some batches, a line each."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("batch", "name", "state"):
        drawn.add_column(name, no_wrap=True)
    for name in ("jobs", "ok", "failed", "skipped", "left", "rate", "ETA"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for batch in batches:
        progress = batch.progress
        drawn.add_row(
            plain(batch.id),
            plain(batch.name, 30),
            _state(batch),
            _jobs(progress),
            *(f"{progress.outcomes.get(outcome.value, 0):,}" for outcome in Outcome),
            f"{progress.left:,}",
            f"{progress.rate:,.0f}/s" if batch.state is State.RUNNING else "-",
            clock(progress.eta),
        )
    return drawn


def one(batch: BatchView) -> Group:
    """Draw everything about a batch."""
    progress = batch.progress
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for label, value in _rows(batch, progress):
        grid.add_row(label, value)
    return Group(grid, *_kinds(progress))


def live(batch: BatchView) -> Group:
    """Draw the progress of a batch as ``fetcher run`` shows its own."""
    progress = batch.progress
    done = progress.jobs - progress.left
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(plain(batch.id), style="bold"),
        _state(batch),
        Text(f"{done:,}/{_jobs(progress)}"),
        ProgressBar(total=max(1, progress.jobs), completed=done, width=_BAR),
        Text(f"{progress.rate:,.0f}/s"),
        Text(f"ETA {clock(progress.eta)}"),
    )
    return Group(head, _counts(progress))


def why(found: Why) -> Group:
    """Draw what bounds the throughput."""
    parts: list[RenderableType] = [Text(f"{found.verdict} (over {found.seconds:.0f} s)", style="bold")]
    for bound in found.bounds:
        parts.append(Text(f"\n{bound.share:4.0%}  {bound.name}: {bound.explanation}"))
        if bound.details:
            parts.append(Text(f"      {plain(', '.join(bound.details), 400)}", style="dim"))
        parts.append(Text(f"      {bound.advice}"))
    return Group(*parts)


def _state(batch: BatchView) -> Text:
    if batch.exceeded:
        return Text(f"{batch.state.value}, too many failed", style="red")
    return Text(batch.state.value, style=_STATES.get(batch.state, ""))


def _jobs(progress: Progress) -> str:
    return f"{progress.jobs:,}" + ("" if progress.read_all else "+")


def _rows(batch: BatchView, progress: Progress) -> list[tuple[str, Text]]:
    state = _state(batch)
    if batch.reason is not None:
        state.append(f"  {plain(batch.reason, 500)}", style="none")
    rows = [
        (plain(batch.id), state),
        ("name", Text(plain(batch.name))),
        ("jobs", Text(f"{_jobs(progress)} = ") + _outcomes(progress) + Text(f"  left {progress.left:,}")),
        ("time", Text(f"{clock(progress.elapsed)} of running, {progress.rate:,.0f}/s, ETA {clock(progress.eta)}")),
    ]
    if progress.statuses:
        rows.append(("status", Text("  ".join(f"{key} {count:,}" for key, count in progress.statuses.items()))))
    latency = progress.latency
    if latency.p50 is not None:
        shown = (f"p{name} {seconds(value)}" for name, value in zip((50, 90, 99), _quantiles(batch), strict=True))
        rows.append(("latency", Text("  ".join(shown))))
    rows.append(("retries", Text(f"{progress.retries:,}")))
    rows.append(("bytes", Text(f"{size(progress.wire_bytes)} received  {size(progress.body_bytes)} of bodies")))
    if batch.exceeded:
        rows.append(("failures", Text("more than max_failures allows", style="red")))
    if batch.retry_of is not None:
        rows.append(("retry of", Text(plain(batch.retry_of))))
    return rows


def _quantiles(batch: BatchView) -> tuple[float | None, float | None, float | None]:
    latency = batch.progress.latency
    return latency.p50, latency.p90, latency.p99


def _outcomes(progress: Progress) -> Text:
    text = Text()
    for outcome in Outcome:
        text.append(f"{outcome.value} {progress.outcomes.get(outcome.value, 0):,}  ", style=_OUTCOMES[outcome])
    return text


def _counts(progress: Progress) -> Text:
    text = _outcomes(progress)
    text.append(f"in flight {progress.in_flight}  retries {progress.retries:,}  {size(progress.wire_bytes)}")
    return text


def _kinds(progress: Progress) -> list[RenderableType]:
    if not progress.kinds:
        return []
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    drawn.add_column("error kind")
    drawn.add_column("jobs", justify="right")
    drawn.add_column("for example", overflow="fold")
    for kind in progress.kinds:
        example = f"{plain(kind.example_url, 100)}  ({plain(kind.example_message, 120)})"
        drawn.add_row(kind.kind, f"{kind.count:,}", Text(example))
    return [drawn]


def has_ended(batch: BatchView) -> bool:
    """Tell whether nothing more becomes of a batch by itself."""
    return batch.state in ENDED
