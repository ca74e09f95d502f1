"""A host on a clock of its own, asked as a Pace allows, as fast as that is."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fetcher.engine.hosts.signs import Sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.engine.hosts.adaptation import Pace


@dataclass
class Asked:
    """How a host was asked: (time, concurrency) at every change, and what came of the requests, by second."""

    limits: list[tuple[float, int]] = field(default_factory=list)
    signs: Counter[tuple[int, Sign]] = field(default_factory=Counter)

    def count(self, sign: Sign, since: float = 0.0, until: float = float("inf")) -> int:
        return sum(n for (second, kind), n in self.signs.items() if kind is sign and since <= second < until)

    def share(self, sign: Sign, since: float = 0.0) -> float:
        return self.count(sign, since) / max(1, sum(self.count(kind, since) for kind in Sign))

    def at(self, now: float) -> int:
        return [limit for when, limit in self.limits if when <= now][-1]


def ask(pace: Pace, host: Callable[[float, int], tuple[Sign, float]], seconds: float) -> Asked:
    """Ask for so many seconds; there is always another job.

    ``host`` is told the time and how many requests it has at work, this one included, and says how it answers and
    after how many seconds.
    """
    asked, ends, now, free_at, order, at_work = Asked([(0.0, pace.concurrency)]), [], 0.0, 0.0, 0, 0
    while now < seconds:
        while len(ends) < pace.concurrency and free_at <= now:
            sign, latency = host(now, at_work + 1)
            at_work += sign is Sign.ANSWERED
            order += 1
            heapq.heappush(ends, (now + latency, order, now, sign))
            free_at = now + pace.interval
        if not ends or (len(ends) < pace.concurrency and free_at < ends[0][0]):
            now = free_at
            continue
        in_flight = len(ends)
        now, _, started, sign = heapq.heappop(ends)
        asked.signs[int(now), sign] += 1
        at_work -= sign is Sign.ANSWERED
        interval = pace.interval
        if sign is Sign.ANSWERED:
            changed = pace.answered(started, now, now - started)
        elif sign is Sign.REFUSED:
            changed = pace.refused(started, now, in_flight)
        else:
            changed = pace.pressed(started, now, in_flight)
        if pace.interval > interval:
            free_at = max(free_at, now + pace.interval)
        if changed:
            asked.limits.append((now, pace.concurrency))
    return asked
