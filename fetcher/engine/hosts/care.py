"""What has been learnt about one host, and which limits follow from it. Pure: time is passed in, in seconds.

A host is a name. Its pace, its rate and its retries are kept by that, because its ports share one machine; whether
somebody is there goes by origin (scheme, host, port), because each port has a server of its own. As long as nothing of
a host answers it is paused as a whole. Once some other origin of it has, that goes on, and only jobs of the one in
trouble wait, or are skipped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from fetcher.engine.hosts.adaptation import Pace
from fetcher.engine.hosts.breaker import Breaker, BreakerSettings
from fetcher.engine.hosts.budget import Budget
from fetcher.engine.hosts.limiter import MAX_CONCURRENCY, HostLimits
from fetcher.engine.hosts.signs import Sign
from fetcher.errors import ErrorKind

if TYPE_CHECKING:
    from fetcher.engine.hosts.limiter import LimitSettings
    from fetcher.engine.retry import Attempt
    from fetcher.model import Rejection

LONGEST_CRAWL_DELAY = 60.0
UNLIMITED = HostLimits(concurrency=MAX_CONCURRENCY)
_OVERLOAD = frozenset({Sign.PRESSED, Sign.LOST})
_NOBODY_THERE = frozenset({Sign.LOST, Sign.DOWN})
# Answers, of a host that is there.
_RELUCTANT = frozenset({Sign.REFUSED, Sign.PRESSED})
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "ftps": 21}

Origin = tuple[str, str | None, int | None]


class Failure(msgspec.Struct, frozen=True):
    """How an attempt failed.

    ``first``: it was the first one of its job. ``rest``: for how many seconds the host asked to be left alone, and is.
    """

    sign: Sign
    kind: ErrorKind | None
    first: bool
    status: int | None = None
    rest: float = 0.0

    @classmethod
    def of(cls, attempt: Attempt, sign: Sign, rest: float) -> Failure:
        """Return how an attempt failed, with what that says about a host."""
        return cls(sign, attempt.kind, attempt.number == 1, attempt.status, rest)

    @property
    def answer(self) -> str:
        """What the host said, for people."""
        return f"{self.status or self.kind or 'no status'}"


def origin_of(url: str) -> Origin:
    """Return the scheme, host and port of a URL that has been checked."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


class Care(msgspec.Struct, eq=False):
    """How a host is treated, on top of what the config says.

    ``pace`` is None if limits do not adapt, ``rules`` if there is no breaker. ``breakers`` is empty and ``budget``
    None until something fails. ``paused``: a probe decides about the host as a whole. ``given_up``: all of it that is
    known is down. ``well_at``: when something of it last answered while there were breakers.
    """

    rules: BreakerSettings | None = None
    pace: Pace | None = None
    breakers: dict[Origin, Breaker] = {}
    budget: Budget | None = None
    crawl_delay: float = 0.0
    paused: bool = False
    given_up: bool = False
    well_at: float = -math.inf

    @classmethod
    def begin(cls, limits: LimitSettings, configured: HostLimits) -> Care:
        """Return how a host is treated of which nothing is known."""
        pace = Pace(configured.concurrency, configured.concurrency) if limits.adapt else None
        return cls(None if limits.breaker == "off" else limits.breaker, pace)

    def follow(self, limits: LimitSettings, configured: HostLimits) -> None:
        """Keep to other settings from now on, and to what has been learnt as far as they have a place for it."""
        self.rules = None if limits.breaker == "off" else limits.breaker
        if self.rules is None:
            self.breakers, self.paused, self.given_up = {}, False, False
        if not limits.adapt:
            self.pace = None
        elif self.pace is None:
            self.pace = Pace(configured.concurrency, configured.concurrency)
        elif self.pace.ceiling != configured.concurrency:
            self.pace.aim(configured.concurrency)

    @property
    def notable(self) -> bool:
        """Tell whether this has to be remembered when the host has no jobs for a while."""
        return (
            bool(self.breakers)
            or self.budget is not None
            or self.crawl_delay > 0
            or (self.pace is not None and self.pace.reduced)
        )

    def answered(self, url: str, started: float, now: float, latency: float | None) -> bool:
        """Take an answer to a request for ``url`` into account; return whether other limits follow."""
        if self.budget is not None:
            self.budget.earn()
        changed = self.pace is not None and self.pace.answered(started, now, latency)
        return self._is_there(url, now) or changed if self.breakers else changed

    def _is_there(self, url: str, now: float) -> bool:
        """Close the breaker of an origin that answered; return whether other limits follow."""
        origin = origin_of(url)
        breaker = self.breakers.get(origin)
        if breaker is not None:
            if breaker.reason is not None:
                return False
            del self.breakers[origin]
        self.well_at = now
        changed = self.paused or self.given_up
        self.paused = self.given_up = False
        return changed

    def slower(self, url: str, failure: Failure, started: float, now: float, in_flight: int) -> bool:
        """Take a failure to get ``url`` into account as a sign of load; return whether other limits follow."""
        changed = False
        if self.pace is None:
            pass
        elif failure.sign is Sign.REFUSED:
            changed = self.pace.refused(started, now, in_flight, first=failure.first, rest=failure.rest)
        elif failure.sign in _OVERLOAD:
            changed = self.pace.pressed(started, now, in_flight)
        if self.breakers and failure.sign in _RELUCTANT and not self._hopeless(failure):
            return self._is_there(url, now) or changed
        return changed

    def _hopeless(self, failure: Failure) -> bool:
        return failure.sign is Sign.REFUSED and self.pace is not None and self.pace.hopeless

    def pause(self, url: str, failure: Failure, started: float, now: float) -> float | None:
        """Take a failure to get ``url`` into account; return for how many seconds to leave its origin alone.

        0 if it is given up, None if it is asked on. `paused` and `given_up` tell whether that goes for all of the host.
        """
        refusal = failure.answer if self._hopeless(failure) else None
        if self.rules is None or not (refusal or failure.sign in _NOBODY_THERE):
            return None
        origin = origin_of(url)
        breaker = self.breakers.get(origin)
        if breaker is None:
            breaker = self.breakers[origin] = Breaker(f"{origin[1]}:{origin[2]}", started)
        alone = self.well_at < breaker.since
        pause = breaker.failed(self.rules, started, now, first=failure.first, kind=failure.kind, refusal=refusal)
        if pause is not None and alone:
            self.paused = pause > 0
            self.given_up = all(breaker.reason is not None for breaker in self.breakers.values())
        return pause

    def verdict(self, url: str, now: float) -> Rejection | float | None:
        """Return why ``url`` may not be asked for now: for good, or for so many seconds. None if it may be."""
        breaker = self.breakers.get(origin_of(url))
        return None if breaker is None else breaker.verdict(now)

    def may_retry(self, now: float) -> bool:
        """Tell whether another retry of a retry is within the budget, and count it."""
        if self.budget is None:
            self.budget = Budget(now)
        return self.budget.spend(now)

    def limits(self, configured: HostLimits) -> HostLimits:
        """Return what holds for the host now."""
        concurrency, delay = configured.concurrency, max(configured.delay, self.crawl_delay)
        if self.given_up:
            return UNLIMITED
        if self.pace is not None:
            # What the pace moves below is the config of the process; a batch may ask for less than that.
            concurrency, delay = min(concurrency, self.pace.concurrency), max(delay, self.pace.interval)
        if self.paused:
            concurrency = 1
        if concurrency == configured.concurrency and delay == configured.delay:
            return configured
        return configured.model_copy(update={"concurrency": concurrency, "delay": delay})
