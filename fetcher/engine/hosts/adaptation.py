"""How much of its limits a host can bear. Pure: time is passed in, in seconds.

Concurrency moves between 1 and what is configured, by additive increase and multiplicative decrease (Chiu and Jain,
1989). At a concurrency of 1 the time between two starts takes over. There are three reasons to slow down:

- The host says so (429). One answer is enough, unless so many others are good at the same time that it must be the
  page's own: then it takes a share of such answers, or several in a row. With Retry-After the host is left alone for as
  long as it asks, which may be enough; it is asked for less if it refuses again as soon as that is over.
- It fails in ways that may mean overload (503, resets, silence), mostly: pages that fail by themselves are no load.
- Its fastest answers have become clearly slower than its fastest ones ever were. Minimums tell queueing from a mix of
  fast and slow pages, as in TCP Vegas (Brakmo and Peterson, 1995). Whether load was the reason is found out by trial:
  if less of it does not help, it was not, and the host gets its concurrency back.

A host that goes on refusing when it is hardly asked any more is hopeless: `fetcher.engine.hosts.breaker` takes over.

In doubt nothing is done: few answers, a host that always was slow, or a busy process of ours are no reason.
"""

from __future__ import annotations

import math

import msgspec

# A decrease shows in answers to requests that began after it. Failures that may have other reasons come in bursts, so
# they count once in so many seconds at most.
_LEAST_ROUND = 0.25
_REVIEW = 0.5
_DECREASE = 0.7
# A step up is a share of the limit, at most so many parts of the ceiling, and at least one request.
_GROWTH = 0.25
_STEPS = 16
_SHORTER = 0.5
# For so long the pace that was too much is not tried again.
_REMEMBERED = 10.0
_SHORTEST_INTERVAL = 0.05
_FIRST_INTERVAL = 0.25
_LONGEST_INTERVAL = 30.0
# Implicit signs count if so many of the latest answers are such, and at least so many.
_MOSTLY = 0.6
_FEWEST = 3
# Refusals are the pages' own if they are at most this share of the latest answers, and less than so many in a row.
_SELDOM = 0.15
_ROW = 3
# Refusals, each of a request of its own, without an answer in between: at the first interval and ever longer ones that
# takes a minute.
_HOPELESS = 8
# What is a clear slow-down: the fastest of so many answers, over so many seconds, took so many times as long as the
# fastest ones at a lower load, and so many seconds longer; and what is a clear relief.
_SAMPLES = 16
_WINDOW = 2.0
_TIMES = 4.0
_LONGER = 0.5
_RELIEF = 0.85
# By this much the baseline rises with every window that is slower, so that a host may change for good.
_DRIFT = 1.02


class Pace(msgspec.Struct, eq=False):
    """How fast one host is asked; each method returns whether that has changed.

    ``ceiling``: the configured concurrency. ``limit``: the concurrency that is allowed now. ``interval``: the least
    seconds between two starts, 0 for none. ``since``: when that was last decreased; answers to requests that began
    before say nothing about it, which goes for a rest, too. ``row``: refusals since the last answer, and which that
    was. ``in_vain``: refusals in a row although the host is hardly asked. ``rested``: it has been left alone since.
    """

    ceiling: int
    limit: float
    interval: float = 0.0
    since: float = -math.inf
    well: int = 0
    badly: int = 0
    refusals: int = 0
    row: tuple[int, int] = (0, 0)
    in_vain: int = 0
    rested: bool = False
    review_at: float = 0.0
    too_much: tuple[float, float] = (math.inf, 0.0)
    too_much_until: float = 0.0
    base: float = math.inf
    low: float = math.inf
    samples: int = 0
    judge_at: float = 0.0
    on_trial: tuple[float, float] | None = None

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight now."""
        return max(1, int(self.limit))

    @property
    def reduced(self) -> bool:
        """Tell whether the host is asked for less than the config allows."""
        return self.limit < self.ceiling or self.interval > 0

    def aim(self, ceiling: int) -> None:
        """Have another ceiling. A limit that was not reduced goes up with it."""
        self.limit = float(ceiling) if self.limit >= self.ceiling else min(self.limit, float(ceiling))
        self.ceiling = ceiling
        if self.on_trial is not None:
            self.on_trial = self.on_trial[0], min(self.on_trial[1], float(ceiling))

    def answered(self, started: float, now: float, latency: float | None) -> bool:
        """Take an answer into account; ``latency`` is None if it does not tell how busy the host is."""
        if started < self.since:
            return False
        self.well += 1
        if latency is not None:
            self.samples += 1
            if latency < self.low:  # noqa: PLR1730  for every answer, and twice as fast as min()
                self.low = latency
        return now >= self.review_at and self._review(now)

    @property
    def hopeless(self) -> bool:
        """Tell whether the host refuses everything, however rarely it is asked."""
        return self.in_vain >= _HOPELESS

    def refused(self, started: float, now: float, in_flight: int, *, first: bool = True, rest: float = 0.0) -> bool:
        """Take into account that the host said it is asked too much, with ``in_flight`` requests under way.

        ``first``: the page has not failed before. ``rest``: for so many seconds it will be left alone, as it asked.
        """
        if started < self.since:
            return False
        in_vain = 0 if self.well else self.in_vain + (self.limit <= 1 or self.rested)
        enough = self.rested and not self.well if rest > 0 else self._refuses(first=first)
        if enough:
            self._ask_less(in_flight, now)
        if rest > 0:
            self._begin(now + rest)
            self.rested = True
        if enough or rest > 0:
            self.in_vain = in_vain
        return enough

    def _refuses(self, *, first: bool) -> bool:
        """Tell whether a refusal is the host's, and not the page's own."""
        self.refusals += 1
        # Pages that were refused before say little when they are again; at the end of a batch they are all there is.
        self.row = ((self.row[0] if self.row[1] == self.well else 0) + first, self.well)
        return self.row[0] >= _ROW or self.refusals > _SELDOM * (self.well + self.refusals)

    def _ask_less(self, in_flight: int, now: float) -> None:
        if self.limit > 1:
            # A limit that was not used up is not what was too much.
            self._slow_down(min(self.limit, max(in_flight, self.limit / 2)), now)
        else:
            self._too_much(now)
            self._begin(now)
        if self.limit <= 1:
            self.interval = min(_LONGEST_INTERVAL, max(_FIRST_INTERVAL, 2 * self.interval))

    def pressed(self, started: float, now: float, in_flight: int) -> bool:
        """Take into account a failure that may be due to load."""
        if started < self.since:
            return False
        self.badly += 1
        if self.limit <= 1 or now < self.since + _LEAST_ROUND or not self._fails_mostly():
            return False
        self._slow_down(min(self.limit, max(in_flight, self.limit / 2)), now)
        return True

    def _fails_mostly(self) -> bool:
        return self.badly >= _FEWEST and self.badly >= _MOSTLY * (self.well + self.badly)

    def _too_much(self, now: float) -> None:
        self.too_much = (self.limit, self.interval)
        self.too_much_until = now + _REMEMBERED

    def _slow_down(self, used: float, now: float) -> None:
        self._too_much(now)
        self.limit = max(1.0, used * _DECREASE)
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Judge the new pace by its own answers alone."""
        self.since = now
        self.well = self.badly = self.refusals = 0
        self.row, self.rested = (0, 0), False
        self.review_at = now + _REVIEW
        self._next_window(now)

    def _review(self, now: float) -> bool:
        self.review_at = now + _REVIEW
        mostly = self._fails_mostly()
        # Older answers count for less and less.
        self.well //= 2
        self.badly //= 2
        self.refusals //= 2
        self.row, self.in_vain, self.rested = (0, self.well), 0, False
        if self.samples >= _SAMPLES and now >= self.judge_at:
            changed = self._judge_latency(now)
            if changed:
                return True
        return self.on_trial is None and not mostly and self._speed_up(now)

    def _speed_up(self, now: float) -> bool:
        """Go one step towards what is configured, unless that is known to be too much."""
        if not self.reduced:
            return False
        barred = self.too_much if now < self.too_much_until else (math.inf, 0.0)
        if self.interval:
            shorter = self.interval * _SHORTER
            if shorter <= barred[1]:
                return False
            self.interval = shorter if shorter >= _SHORTEST_INTERVAL else 0.0
            return True
        step = max(1.0, min(self.limit * _GROWTH, self.ceiling / _STEPS))
        if self.limit + step >= barred[0]:
            return False
        self.limit = min(self.ceiling, self.limit + step)
        return True

    def _judge_latency(self, now: float) -> bool:
        low, trial = self.low, self.on_trial
        self._next_window(now)
        if trial is not None and low > _RELIEF * trial[0]:
            # Less load did not help, so load was not the reason: this is how long the host takes.
            self.on_trial, self.base, self.limit = None, low, trial[1]
            self.too_much_until = 0.0
            return True
        if low < _TIMES * self.base or low < self.base + _LONGER:
            self.on_trial, self.base = None, min(self.base * _DRIFT, low)
            return False
        if self.limit <= 1:
            return False
        self.on_trial = (low, self.limit)
        self._slow_down(self.limit, now)
        return True

    def _next_window(self, now: float) -> None:
        self.low, self.samples, self.judge_at = math.inf, 0, now + _WINDOW
