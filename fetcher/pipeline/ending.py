"""Tells sinks that want to know how a run has ended."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog

from fetcher.errors import FetcherError, SinkError
from fetcher.interfaces import Concluding, Ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fetcher.pipeline.outlet import Outlet
    from fetcher.pipeline.tally import Tally

PATIENCE = 30.0
_BACKOFF = 0.5
_MAX_BACKOFF = 5.0


def wants_ending(outlets: Sequence[Outlet]) -> bool:
    """Tell whether any sink wants to know."""
    return any(isinstance(outlet.sink, Concluding) for outlet in outlets)


def ending_of(batch: str, jobs: int, tally: Tally, *, limit: str, exceeded: bool, stopped: str | None) -> Ending:
    """Return how a run has ended, by its tally."""
    return Ending(
        batch=batch,
        jobs=jobs,
        outcomes={str(outcome): count for outcome, count in tally.outcomes.items()},
        statuses=dict(tally.status_classes),
        kinds={name: kind.count for name, kind in tally.kinds.items()},
        seconds=tally.elapsed,
        limit=limit,
        exceeded=exceeded,
        stopped=stopped,
    )


async def conclude(
    outlets: Sequence[Outlet], ending: Ending, commit: Callable[[Mapping[str, str]], Awaitable[object]]
) -> None:
    """Tell every sink that wants to know, and ``commit`` the mark of each.

    A sink that is away is tried again for its ``patience``, by default 30 s. Then SinkError if it is required, once
    all others are told; what happens to one that is not is logged.
    """
    failures: list[Exception] = []
    for outlet in outlets:
        if not isinstance(outlet.sink, Concluding):
            continue
        try:
            mark = await _tell(outlet, outlet.sink, ending)
        except Exception as error:  # noqa: BLE001  whatever a sink does that is not required, it must not fail a run
            outlet.errors += 1
            if outlet.plan.required:
                failures.append(error)
            else:
                reason = str(error) if isinstance(error, FetcherError) else f"{type(error).__name__}: {error}"
                structlog.get_logger().error("not told of the end", sink=outlet.title, reason=reason)
        else:
            if mark is not None:
                outlet.mark = mark
                await commit({outlet.key: mark})
    if failures:
        raise failures[0]


async def _tell(outlet: Outlet, sink: Concluding, ending: Ending) -> str | None:
    loop = asyncio.get_running_loop()
    patience = PATIENCE if outlet.plan.patience is None else outlet.plan.patience
    last = loop.time() + patience
    backoff = _BACKOFF
    while True:
        try:
            return await sink.conclude(ending)
        except SinkError as error:
            pause = error.pause or backoff * random.uniform(0.5, 1.0)
            if not error.retryable or loop.time() + pause > last:
                raise
        await asyncio.sleep(pause)
        backoff = min(backoff * 2, _MAX_BACKOFF)
