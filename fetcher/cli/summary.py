"""What a run says at its end: is every URL accounted for, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fetcher.assembly import dead_letters_path
from fetcher.cli.text import clock, plain, seconds, size
from fetcher.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.assembly import Batch
    from fetcher.engine.engine import Engine
    from fetcher.engine.why.bounds import Finding
    from fetcher.pipeline.tally import Tally

_QUANTILES = (0.5, 0.95, 0.99)
_WORTH_A_WORD = 0.1


def render(batch: Batch, bounds: Sequence[Finding] = ()) -> Group:
    """Draw the summary of a batch, over all its runs; ``bounds``: what bounded the throughput of this one."""
    engine = batch.engine
    tally = engine.delivery.tally
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    rows = _rows(batch, engine, tally)
    if bounds:
        rows.insert(2, ("bound by", _bounds(bounds)))
    for label, value in rows:
        table.add_row(label, Text(value))
    parts: list[Table | Text] = [table]
    if tally.kinds:
        parts.append(_kinds(tally))
    return Group(*parts)


def _rows(batch: Batch, engine: Engine, tally: Tally) -> list[tuple[str, str]]:
    counts = "  ".join(f"{outcome.value} {tally.outcomes.get(outcome, 0):,}" for outcome in Outcome)
    ended = "all accounted for" if engine.accounted else f"{engine.left:,} left to resume"
    if engine.finished and not engine.accounted:
        ended = f"does not add up: {tally.total:,} records"
    rows = [
        (plain(batch.config.name), f"{engine.added:,} jobs = {counts}  ({ended})"),
        ("time", f"{clock(tally.elapsed)}  {tally.total / max(tally.elapsed, 1e-9):,.0f} jobs/s"),
    ]
    if engine.duplicates:
        rows.append(("duplicates", f"{engine.duplicates:,} rows named a job that was there already"))
    if tally.status_classes:
        rows.append(("status", "  ".join(f"{key} {n:,}" for key, n in sorted(tally.status_classes.items()))))
    if tally.latency:
        rows.append(("latency", "  ".join(f"p{q * 100:.0f} {seconds(tally.quantile(q))}" for q in _QUANTILES)))
    rows.append(("retries", f"{tally.retries:,}"))
    if engine.postponed.count:
        rows.append(("postponed", f"{engine.postponed.count:,} times, as none of their attempts"))
    rows.append(("bytes", f"{size(tally.wire_bytes)} received  {size(tally.body_bytes)} of bodies"))
    if tally.cut:
        rows.append(("listings", f"{tally.cut:,} have more than pagination.max_pages ({tally.max_pages:,}): cut there"))
    if tally.filtered:
        rows.append(("filtered", f"{tally.filtered:,} records that a stage has dropped; their jobs count"))
    for title, count in tally.dead_letters.items():
        where = dead_letters_path(batch.config.name, title)
        rows.append(("dead letters", plain(f"{count:,} records that {title} did not take, in {where}")))
    rows.extend(("output", plain(path)) for path in _outputs(batch))
    return rows


def _bounds(bounds: Sequence[Finding]) -> str:
    """Name what has bounded the throughput, the first of all with whom it concerns most."""
    named = [bound for bound in bounds if bound.share >= _WORTH_A_WORD] or bounds[:1]
    text = "  ".join(f"{bound.bound.value} {bound.share:.0%}" for bound in named)
    return plain(f"{text}  (most of all {named[0].details[0].rpartition(' (')[0]})" if named[0].details else text)


def _outputs(batch: Batch) -> list[str]:
    return [_output(sink) for sink in batch.config.sinks]


def _output(sink: Any) -> str:
    """Return the place of a sink; what it is known by may have a hash behind it, which says nothing to people."""
    kind = str(getattr(sink, "type", ""))
    place = getattr(sink, "path", None) or str(getattr(sink, "identity", "")).partition("?")[0]
    if kind == "email":
        return f"email to {', '.join(sink.to)}"
    if "://" in place and not place.startswith(f"{kind}:"):
        return f"{kind} {place}"
    return place or kind


def _kinds(tally: Tally) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("error kind")
    table.add_column("jobs", justify="right")
    table.add_column("for example", overflow="fold")
    for name, kind in sorted(tally.kinds.items(), key=lambda item: -item[1].count):
        example = f"{plain(kind.example_url, 100)}  ({plain(kind.example_message, 120)})"
        table.add_row(name, f"{kind.count:,}", Text(example))
    return table
