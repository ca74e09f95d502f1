"""A new connection for each request: the origin closes each after its answer, and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Case, Options, Report
from benchmarks.contest import SIZE, contest

if TYPE_CHECKING:
    from benchmarks.measure import Bench


def run(bench: Bench, options: Options) -> Report:
    """Let everyone fetch from an origin that keeps no connection."""
    title = f"{SIZE:,} bytes, a connection for each request, {options.concurrency:,} in flight, no latency"
    return contest(bench, options, "fresh", title, f"/once/{SIZE}")


CASE = Case(
    goal="When every request needs a connection of its own, as on a crawl that sees each host once, opening "
    "it adds the same to everyone, and blocking sockets, made for this, show what is the least.",
    run=run,
    requests=8_000,
    repeat=3,
    contest=True,
)
