"""How many requests may begin in any window of time: the budget of a key or of a host. Pure: time is passed in.

A budget has one or several allowances, such as 10/s and 5000/d, and no window of such a length ever has more starts
than that, wherever it begins. Within a second starts are evenly spaced; within what is longer they come as they like,
until it is used up. What is left of a budget may also be told by whoever keeps it (RateLimit headers), which needs no
config.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.hosts.limiter import CATCH_UP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fetcher.budgets import Allowance
    from fetcher.model import RateLimit

SECOND = 1.0
LONGEST_TOLD = 3600.0
"""What a server says of its budget is believed for so many seconds at most; then it is asked again."""
# A long window is counted in so many parts, and forgets its starts part by part: what is used up comes back late by one
# of them at most, and never too early.
_PARTS = 120
# A budget of which nothing is left now is so for a moment at least: servers round down.
_LEAST_RESET = 1.0
# Who begins a new window with a single request waits for its answer for so long, and asks no more than so many times
# for news of a budget of which nobody speaks any more.
_NEXT_PROBE = 5.0
_MOST_PROBES = 3
_UNBOUNDED = 1_000_000_000


class Spacing(msgspec.Struct, eq=False):
    """``count`` starts in any second, evenly spaced. A start that comes late is made up for, but never too soon."""

    count: int
    next_at: float = 0.0
    starts: deque[float] = msgspec.field(default_factory=deque)

    def opens_at(self, now: float) -> float:  # noqa: ARG002  as a window has it
        """Return when the next start may be, or might have been."""
        if len(self.starts) < self.count:
            return self.next_at
        return max(self.next_at, self.starts[-self.count] + SECOND)

    def take(self, now: float) -> None:
        """Count a start."""
        interval = SECOND / self.count
        tolerance = min(CATCH_UP, interval)
        is_new = now - self.next_at > max(CATCH_UP, interval)
        self.next_at = (now if is_new else max(self.next_at, now - tolerance)) + interval
        self.starts.append(now)
        while len(self.starts) > self.count:
            self.starts.popleft()

    def give_back(self) -> None:
        """Take it back that the last start was one; of those that no longer count there is nothing to take back."""
        if self.starts:
            self.next_at -= SECOND / self.count
            self.starts.pop()

    def room(self, now: float, within: float) -> int:
        """Return how many may start within so many seconds."""
        return math.ceil((now + within - max(now, self.opens_at(now))) * self.count)

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing of the past counts any more."""
        return not self.starts or max(self.next_at + CATCH_UP, self.starts[-1] + SECOND) <= now


class Window(msgspec.Struct, eq=False):
    """``count`` starts in any ``period``. ``parts``: how many there were in which part of it, numbered by time."""

    count: int
    period: float
    used: int = 0
    opened_at: float = 0.0
    parts: deque[tuple[int, int]] = msgspec.field(default_factory=deque)

    @property
    def width(self) -> float:
        """Seconds of a part."""
        return self.period / _PARTS

    def opens_at(self, now: float) -> float:
        """Return when the next start may be; of one that is open, when it last became so."""
        if self.used >= self.count:
            self._expire(now)
            left = self.used
            for part, starts in self.parts:
                if left < self.count:
                    break
                left -= starts
                self.opened_at = self._ends_at(part)
            if self.used >= self.count:
                return self.opened_at
        return min(self.opened_at, now)

    def take(self, now: float) -> None:
        """Count a start."""
        self.note(now, 1)
        self._expire(now)

    def note(self, at: float, starts: int) -> None:
        """Count starts at a time that is not before those that were counted already."""
        part = math.floor(at / self.width)
        if self.parts and self.parts[-1][0] >= part:
            part, before = self.parts.pop()
            starts_in_part = before + starts
        else:
            starts_in_part = starts
        self.parts.append((part, starts_in_part))
        self.used += starts

    def give_back(self) -> None:
        """Take it back that the last start was one; of those that no longer count there is nothing to take back."""
        if not self.parts:
            return
        part, starts = self.parts.pop()
        self.used -= 1
        if starts > 1:
            self.parts.append((part, starts - 1))

    def room(self, now: float, within: float) -> int:  # noqa: ARG002  as a spacing has it
        """Return how many may start now."""
        self._expire(now)
        return max(0, self.count - self.used)

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing of the past counts any more."""
        self._expire(now)
        return not self.parts

    def starts(self, now: float) -> list[tuple[float, int]]:
        """Return until when so many starts were, part by part."""
        self._expire(now)
        return [(min(now, (part + 1) * self.width), starts) for part, starts in self.parts]

    def _ends_at(self, part: int) -> float:
        """Return when the last start of a part is out of the window for sure."""
        return (part + 1 + _PARTS) * self.width

    def _expire(self, now: float) -> None:
        parts = self.parts
        while parts and self._ends_at(parts[0][0]) <= now:
            self.used -= parts.popleft()[1]


class Told(msgspec.Struct, eq=False):
    """What a server said at ``at``: there are ``left`` requests, those in flight not among them, until ``until``.

    ``asking``: that time is over, and nothing is known of the next. ``asked``: how many requests have ended since.
    """

    left: int
    until: float
    at: float
    asking: bool = False
    asked: int = 0


class Quota:
    """The budget of one key, or of one host, over all who ask with it. ``in_flight``: requests that have not ended."""

    def __init__(self, allowances: Iterable[Allowance] = (), in_flight: int = 0) -> None:
        self.in_flight = in_flight
        self.bounds: list[Spacing | Window] = []
        self._told: Told | None = None
        self._last_at = -math.inf
        self._closed = self._closed_until = 0.0
        self.aim(allowances)

    def aim(self, allowances: Iterable[Allowance]) -> None:
        """Have other allowances, of several of one period the strictest. What has been counted counts on."""
        wanted: dict[float, int] = {}
        for allowance in allowances:
            wanted[allowance.period] = min(allowance.count, wanted.get(allowance.period, allowance.count))
        kept = {_period(bound): bound for bound in self.bounds}
        self.bounds = []
        for period, count in sorted(wanted.items()):
            bound = kept.get(period) or (Spacing(count) if period <= SECOND else Window(count, period))
            bound.count = count
            self.bounds.append(bound)

    @property
    def is_lasting(self) -> bool:
        """Tell whether some window is long enough to be kept beyond the process."""
        return any(isinstance(bound, Window) for bound in self.bounds)

    def used(self, now: float) -> list[tuple[float, list[tuple[float, int]]]]:
        """Return the periods of the long windows, each with the times until which so many starts were."""
        windows = [bound for bound in self.bounds if isinstance(bound, Window)]
        return [(window.period, window.starts(now)) for window in windows]

    def recall(self, period: float, starts: Iterable[tuple[float, int]], now: float) -> None:
        """Count starts of an earlier process, in the order of their times. What they are held to, ``aim`` says."""
        window = Window(_UNBOUNDED, period)
        for at, count in starts:
            window.note(min(at, now), count)
        self.bounds.append(window)

    def opens_at(self, now: float) -> float:
        """Return when the next start may be; if that is not later than ``now``, it may be now."""
        at = 0.0 if self._told is None else self._told_opens_at(self._told, now)
        for bound in self.bounds:
            at = max(at, bound.opens_at(now))
        return at

    def take(self, now: float) -> None:
        """Count a start, and a request in flight."""
        self.in_flight += 1
        self._last_at = now
        if self._told is not None:
            self._told.left = max(0, self._told.left - 1)
        self.charge(now)

    def charge(self, now: float) -> None:
        """Count one more request of something that has begun already. Whether there is room for it nobody asked."""
        for bound in self.bounds:
            bound.take(now)
        self._note_closed(now)

    def closed(self, now: float) -> float:
        """Return for how many seconds in all nothing could start so far."""
        return self._closed - max(0.0, self._closed_until - now)

    def give_back(self) -> None:
        """Take it back that the last ``take`` began a request: it was not sent. It ends as any other."""
        if self._told is not None:
            self._told.left += 1
        for bound in self.bounds:
            bound.give_back()

    def done(self, now: float) -> bool:
        """Note that a request has ended, after what its answer ``tell``s; return whether another may start for that."""
        self.in_flight -= 1
        told = self._told
        if told is None or now < told.until or told.left or self.in_flight:
            return False
        # Whoever asked has not been told anything, be it that there was no answer.
        told.left, told.asking = 1, True
        told.asked += 1
        if told.asked >= _MOST_PROBES:
            self._told = None
        return True

    def tell(self, limit: RateLimit, started: float, now: float, *, own: bool = True) -> bool:
        """Have a server say what is left, in an answer to a request that began at ``started``.

        ``own``: that is one of those in flight. Of the others nobody knows whether they are counted already, so they
        are taken to be not. Returns whether something may start that could not before.
        """
        was_closed = self.opens_at(now) > now
        left = max(0, limit.remaining - max(0, self.in_flight - own))
        least = 0.0 if limit.remaining else _LEAST_RESET
        until = now + min(LONGEST_TOLD, max(least, limit.reset))
        told = self._told
        # What was answered at the same time may come in any order; a request that began later knows better.
        if told is None or told.asking or started >= told.at or left < told.left:
            self._told = Told(left, until, now)
            self._closed, self._closed_until = self.closed(now), min(self._closed_until, now)
            self._note_closed(now)
        return was_closed and self.opens_at(now) <= now

    def room(self, now: float, within: float) -> int:
        """Return how many may start within so many seconds, as far as that is known."""
        room = math.inf
        if self._told is not None:
            room = self._told.left if self._told_opens_at(self._told, now) <= now else 0
        for bound in self.bounds:
            room = min(room, bound.room(now, within))
        return _UNBOUNDED if room == math.inf else max(0, int(room))

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing of the past counts any more, so that it need not be kept."""
        past = self._told is None or self._told.until <= now
        return past and not self.in_flight and all(bound.is_idle(now) for bound in self.bounds)

    def _note_closed(self, now: float) -> None:
        at = self.opens_at(now)
        since = max(now, self._closed_until)
        if at > since:
            self._closed += at - since
            self._closed_until = at

    def _told_opens_at(self, told: Told, now: float) -> float:
        if now < told.until:
            return told.until if not told.left else 0.0
        if not told.asking:
            # How much there is from now on the first answer will tell. What was left is there at least.
            told.asking = True
            told.left = max(1, told.left)
        return told.until if told.left else max(told.until, self._last_at + _NEXT_PROBE)


class Rest(Quota):
    """No budget at all, but a time before which nothing starts, in whoever it is charged to."""

    def __init__(self) -> None:
        super().__init__()
        self.until = -math.inf

    def opens_at(self, now: float) -> float:  # noqa: ARG002  as a quota has it
        """Return when the next start may be."""
        return self.until

    def room(self, now: float, within: float) -> int:
        """Return how many may start within so many seconds."""
        return 0 if self.until > now + within else super().room(now, within)


def _period(bound: Spacing | Window) -> float:
    return SECOND if isinstance(bound, Spacing) else bound.period
