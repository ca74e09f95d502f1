"""``limits.concurrency: auto``: as many requests in flight as make the batch faster. Pure: time is passed in.

Hill climbing on answers that were asked for, per second. What counts is whether a step was worth it: throughput that
has not grown by a good part of what concurrency has is a plateau, and the step is taken back. It stays there for a
while, then tries again, for the mix of hosts changes as a batch goes on.
"""

from __future__ import annotations

import math

import msgspec

LEAST_AUTO = 10
MOST_AUTO = 1000
BEAT = 1.0
"""Seconds between two samples."""

_START = 20
_STEP = 1.5
# A step has to bring so much of what it would if throughput grew as concurrency does.
_WORTH = 0.3
_HOLD = 15.0
# Only what is used to this share can have been too little.
_USED = 0.9
_BUSY = 0.9
_FAILING = 0.1
_MORE_FAILURES = 0.05
_DECREASE = 0.7
# Samples at one concurrency before it is judged: the first is in part that of the one before.
_SETTLED = 3


class Sample(msgspec.Struct, frozen=True):
    """What happened since the sample before.

    ``good`` and ``bad``: attempts that ended well, and that did not. ``in_flight``: requests under way at its end.
    ``cpu``: the share of one core that this process took.
    """

    good: int
    bad: int
    in_flight: int
    cpu: float


class Growth(msgspec.Struct, eq=False):
    """The controller. ``concurrency`` is how many requests may be in flight now.

    ``tried``: the concurrency before a step that is on trial, 0 if none is. ``rate`` and ``failing``: answers per
    second and share of failures before it. The rest is what was counted since ``began``.
    """

    concurrency: int = _START
    least: int = LEAST_AUTO
    most: int = MOST_AUTO
    tried: int = 0
    rate: float = 0.0
    failing: float = 0.0
    samples: int = 0
    good: int = 0
    bad: int = 0
    began: float = -math.inf
    hold_until: float = 0.0

    def update(self, sample: Sample, now: float) -> int:
        """Take a sample into account and return the concurrency from now on."""
        if self.began == -math.inf or sample.in_flight < _USED * self.concurrency:
            # Hosts, not slots, are what requests wait for; or there are none.
            self._settle(now)
            return self.concurrency
        self.samples += 1
        if self.samples == 1:
            self._settle(now, samples=1)
            return self.concurrency
        self.good += sample.good
        self.bad += sample.bad
        if self.samples >= _SETTLED:
            self._decide(sample.cpu, now)
        return self.concurrency

    def _settle(self, now: float, samples: int = 0) -> None:
        self.samples, self.good, self.bad, self.began = samples, 0, 0, now

    def _decide(self, cpu: float, now: float) -> None:
        if not self.good + self.bad:
            # Answers take longer than a few samples; throughput is not known yet.
            return
        rate = self.good / max(BEAT, now - self.began)
        failing = self.bad / (self.good + self.bad)
        if self.tried > self.concurrency:
            self._judge_fall(rate, failing, now)
        elif self.tried:
            self._judge_rise(rate, failing, now)
        elif self._worse(failing) and self.rate:
            self._fall(rate)
        else:
            self.rate, self.failing = rate, failing
        if not self.tried and now >= self.hold_until and cpu < _BUSY and self.concurrency < self.most:
            self.tried = self.concurrency
            self.concurrency = min(self.most, math.ceil(self.concurrency * _STEP))
        self._settle(now)

    def _worse(self, failing: float) -> bool:
        return failing > max(_FAILING, self.failing + _MORE_FAILURES)

    def _judge_rise(self, rate: float, failing: float, now: float) -> None:
        """Keep a step up, or take it back."""
        before, self.tried = self.tried, 0
        worth = 1 + _WORTH * (self.concurrency / before - 1)
        if self._worse(failing) or rate < self.rate * worth:
            self.concurrency = before
            self.hold_until = now + _HOLD
            return
        self.rate, self.failing = rate, failing

    def _fall(self, rate: float) -> None:
        """Ask for less, because more fails than before, and see whether that costs anything."""
        self.rate, self.tried = rate, self.concurrency
        self.concurrency = max(self.least, int(self.concurrency * _DECREASE))
        if self.tried == self.concurrency:
            self.tried = 0

    def _judge_fall(self, rate: float, failing: float, now: float) -> None:
        """Go on down while that costs nothing; take it back if it does, for then load is not why jobs fail."""
        before, self.tried = self.tried, 0
        self.hold_until = now + _HOLD
        share = self.concurrency / before
        if rate < self.rate * (1 - _WORTH * (1 - share)):
            self.concurrency, self.failing = before, failing
        elif self._worse(failing):
            self._fall(rate)
        else:
            self.rate, self.failing = rate, failing
