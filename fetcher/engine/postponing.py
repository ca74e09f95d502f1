"""Jobs that could not begin: whether one is put off rather than tried again, and what those that were wait for. Pure.

What such a job needs first (a token, say) is not to be had for now. That is no failure of its host and none of its
attempts: it goes back to the queue, and its host rests meanwhile, so that the others do not all find out one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fetcher.engine.retry import Attempt, RetrySettings
    from fetcher.model import Job, Result

# Reasons are as many as there are endpoints and ways to fail, but they may name anything.
_MOST_REASONS = 32


def put_off(policy: RetrySettings, attempt: Attempt) -> float | None:
    """Return for how many seconds a job is put off, None if what happened was an attempt.

    What has been sent to somebody (a redirect may lead to a host that needs more than the first) is only put off if
    it may be sent again.
    """
    return None if attempt.sent and attempt.method not in policy.methods else attempt.postpone


class Postponed:
    """How many times jobs were put off, and why. Times are in seconds on the loop's clock."""

    def __init__(self) -> None:
        self.count = 0
        self._until: dict[str, float] = {}

    def note(self, job: Job, result: Result, now: float, delay: float) -> None:
        """Take into account that a job is put off: that is no part of its time. ``result`` says why it could not begin.

        Of too many reasons the oldest is forgotten.
        """
        if job.first_started_at is not None:
            job.first_started_at += (result.total_s or 0.0) + delay
        self.count += 1
        reason = result.error_message or str(result.error_kind)
        self._until.pop(reason, None)
        self._until[reason] = now + delay
        if len(self._until) > _MOST_REASONS:
            del self._until[next(iter(self._until))]

    def reasons(self, now: float) -> list[tuple[str, float]]:
        """Return what jobs wait for now, each with the seconds until it is asked for again, the soonest first."""
        self._until = {reason: until for reason, until in self._until.items() if until > now}
        return sorted(((reason, until - now) for reason, until in self._until.items()), key=lambda found: found[1])
