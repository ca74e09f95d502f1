"""What has been learnt about one host, and which limits follow from it. Pure: time is passed in, in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.adaptation import Pace
from fetcher.engine.breaker import Breaker, BreakerSettings
from fetcher.engine.budget import Budget
from fetcher.engine.limiter import MAX_CONCURRENCY, HostLimits
from fetcher.engine.signs import Sign
from fetcher.errors import ErrorKind

if TYPE_CHECKING:
    from fetcher.engine.limiter import LimitSettings

LONGEST_CRAWL_DELAY = 60.0
UNLIMITED = HostLimits(concurrency=MAX_CONCURRENCY)
_OVERLOAD = frozenset({Sign.PRESSED, Sign.LOST})
_NOBODY_THERE = frozenset({Sign.LOST, Sign.DOWN})


class Failure(msgspec.Struct, frozen=True):
    """How an attempt failed. ``first``: it was the first one of its job."""

    sign: Sign
    kind: ErrorKind | None
    first: bool


class Care(msgspec.Struct, eq=False):
    """How a host is treated, on top of what the config says.

    ``pace`` is None if limits do not adapt, ``rules`` if there is no breaker. ``breaker`` and ``budget`` are None until
    something fails.
    """

    rules: BreakerSettings | None = None
    pace: Pace | None = None
    breaker: Breaker | None = None
    budget: Budget | None = None
    crawl_delay: float = 0.0

    @classmethod
    def begin(cls, limits: LimitSettings, configured: HostLimits) -> Care:
        """Return how a host is treated of which nothing is known."""
        pace = Pace(configured.concurrency, configured.concurrency) if limits.adapt else None
        return cls(None if limits.breaker == "off" else limits.breaker, pace)

    @property
    def notable(self) -> bool:
        """Tell whether this has to be remembered when the host has no jobs for a while."""
        return (
            self.breaker is not None
            or self.budget is not None
            or self.crawl_delay > 0
            or (self.pace is not None and self.pace.reduced)
        )

    def answered(self, started: float, now: float, latency: float | None) -> bool:
        """Take an answer into account; return whether other limits follow."""
        if self.budget is not None:
            self.budget.earn()
        changed = self.pace is not None and self.pace.answered(started, now, latency)
        if self.breaker is None or self.breaker.reason is not None:
            return changed
        probing, self.breaker = self.breaker.probing, None
        return changed or probing

    def slower(self, failure: Failure, started: float, now: float, in_flight: int) -> bool:
        """Take a failure into account as a sign of load; return whether other limits follow."""
        if self.pace is None:
            return False
        if failure.sign is Sign.REFUSED:
            return self.pace.refused(started, now, in_flight)
        return failure.sign in _OVERLOAD and self.pace.pressed(started, now, in_flight)

    def pause(self, failure: Failure, started: float, now: float) -> float | None:
        """Take a failure into account; return for how many seconds to leave the host alone.

        0 if it is given up, None if it is asked on.
        """
        if self.rules is None or failure.sign not in _NOBODY_THERE:
            return None
        if self.breaker is None:
            self.breaker = Breaker()
        return self.breaker.failed(self.rules, started, now, first=failure.first, kind=failure.kind)

    def may_retry(self, now: float) -> bool:
        """Tell whether another retry of a retry is within the budget, and count it."""
        if self.budget is None:
            self.budget = Budget(now)
        return self.budget.spend(now)

    def limits(self, configured: HostLimits) -> HostLimits:
        """Return what holds for the host now."""
        concurrency, delay = configured.concurrency, max(configured.delay, self.crawl_delay)
        if self.breaker is not None and self.breaker.reason is not None:
            return UNLIMITED
        if self.pace is not None:
            concurrency, delay = self.pace.concurrency, max(delay, self.pace.interval)
        if self.breaker is not None and self.breaker.probing:
            concurrency = 1
        if concurrency == configured.concurrency and delay == configured.delay:
            return configured
        return configured.model_copy(update={"concurrency": concurrency, "delay": delay})
