"""Small answers at once, over connections that are kept: what a client itself costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Case, Options, Report
from benchmarks.contest import SIZE, contest

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_BOUND = 0.9


def run(bench: Bench, options: Options) -> Report:
    """Let everyone fetch the same small body many times."""
    title = f"{SIZE:,} bytes, keep-alive, {options.concurrency:,} in flight, no latency"
    return contest(bench, options, "small", title, f"/bytes/{SIZE}", bounds={"fetcher_batch": _BOUND})


CASE = Case(
    goal="With small answers that come at once nobody has to wait, and the client's own CPU time per request "
    "is all that counts: fetcher, everything durable, does at least "
    f"{_BOUND:g} times as many as a bare aiohttp loop that keeps nothing.",
    run=run,
    requests=20_000,
    repeat=3,
    contest=True,
)
