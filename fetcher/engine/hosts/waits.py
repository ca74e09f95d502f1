"""Jobs that are tried again, and how long they wait for a budget meanwhile: that is no part of their time. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Job

# Jobs between two attempts; of more than that, the time that the oldest wait counts.
_MOST_KNOWN = 100_000


class Waits:
    """Moves the beginning of a job by as long as no budget let it be tried again.

    ``closed``: for how many seconds in all the budgets of a host have let nothing start so far, None if it has none.
    """

    def __init__(self, closed: Callable[[str, float], float | None]) -> None:
        self._closed = closed
        self._since: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, job: Job, now: float) -> None:
        """Take into account that a job ends to wait, before its age is looked at."""
        before = self._since.pop(job.id, None) if self._since else None
        if before is not None and job.first_started_at is not None:
            job.first_started_at += max(0.0, (self._closed(job.host, now) or 0.0) - before)

    def put_back(self, job: Job, now: float) -> None:
        """Take into account that a job begins to wait."""
        closed = self._closed(job.host, now)
        if closed is not None:
            self._since[job.id] = closed
            if len(self._since) > _MOST_KNOWN:
                del self._since[next(iter(self._since))]
