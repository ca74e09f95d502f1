"""What bounds the throughput: where the slots of engines are, and if they are not in flight, why not. Pure.

An engine may have so many requests in flight; each of those is a slot. At any moment a slot is either with a request,
which is at some phase, or it is idle, and something keeps it so. Many looks at that are the waiting times, and what
most of the time goes to is what bounds the throughput:

- What is idle while jobs wait goes to what holds these jobs back: their hosts, the slots of the service, the sinks.
  What is idle while none wait goes to who should bring them: the queue, the sources.
- A request that resolves, connects, shakes hands or waits for robots.txt goes to that. One that has waited for its
  origin for longer than ``USUAL`` goes to the origin. One that has not is as it should be: it goes to what keeps others
  from being in flight beside it, which is the concurrency if all slots are taken.
- While this process is out of breath, requests wait for it and not for what they seem to wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.advice import ADVICE, USUAL, Bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WINDOW = 30.0
"""Seconds of looks that are told of."""
_BUCKET = 1.0
# Whom something concerns is named for so many, and kept for a few more, as the order may change within the window.
_MOST_NAMED = 3
_MOST_KEPT = 16
# From the one share of a core on the process begins to be short of breath, at the other it is out of it.
_SHORT_OF_BREATH, _OUT_OF_BREATH = 0.7, 0.95
# How often a request waits for the loop, and by how many seconds a timer is late when nothing is the matter.
_WAITS = 2
_RESOLUTION = 0.001


_OF_PHASE = {
    "robots.txt": Bound.ROBOTS,
    "proxy": Bound.PROXY,
    "dns": Bound.DNS,
    "connect": Bound.CONNECT,
    "tls": Bound.TLS,
    "first byte": Bound.ORIGIN,
    "body": Bound.TRANSFER,
}
_USUALLY_SHORT = frozenset({Bound.ORIGIN, Bound.TRANSFER})
_HOSTS_OWN = frozenset({Bound.ROBOTS})


class AtWork(msgspec.Struct, frozen=True):
    """A request in flight: the phase it is at, for how many seconds, and whom it asks."""

    phase: str
    seconds: float
    host: str


class HeldBack(msgspec.Struct, frozen=True):
    """So many jobs wait for a host, and why they may not start."""

    why: Bound
    host: str
    jobs: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Where the slots of one engine were at one moment.

    ``allowed``: requests that it may have in flight. ``startable``: jobs that wait and whose hosts would allow them to
    start. ``held_back``: of other jobs that wait, why. ``waits_for_service``: workers wait for the slots that engines
    share. ``full``: the sinks that workers wait for, None if they do not. ``queued``: jobs that wait to be leased,
    ``delayed`` if all of those wait for their time. ``reading``: the sources are not at their end. ``strain``: how much
    of what requests seem to wait for is this process (0 to 1).
    """

    batch: str = ""
    allowed: int
    at_work: Sequence[AtWork] = ()
    startable: int = 0
    held_back: Sequence[HeldBack] = ()
    waits_for_service: bool = False
    full: Sequence[str] | None = None
    queued: int = 0
    delayed: bool = False
    reading: bool = False
    strain: float = 0.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that bounds the throughput. ``share``: of all waiting, 0 to 1. ``details``: whom it concerns most."""

    bound: Bound
    share: float
    explanation: str
    advice: str
    details: list[str]


Cause = tuple[Bound, str]
"""What is waited for, and the host, sink or batch that it is about."""


def strain(cpu: float, late: float, took: float) -> float:
    """Return which share of what requests wait for is the process itself.

    ``cpu``: which share of a core it took; ``late``: for how many seconds its timers were late on average; ``took``:
    for how many seconds requests are in flight on average. What arrives for a request waits about as long as a timer
    is late, and so does the request when its slot is free.
    """
    busy = min(1.0, max(0.0, (cpu - _SHORT_OF_BREATH) / (_OUT_OF_BREATH - _SHORT_OF_BREATH)))
    delayed = _WAITS * max(0.0, late - _RESOLUTION)
    return max(busy, min(1.0, delayed / took) if took > 0 else 0.0)


def attribute(sample: Sample) -> dict[Cause, float]:
    """Return how many slots each cause had at that moment. Slots for which there is nothing to do are not counted."""
    found: dict[Cause, float] = {}
    idle = max(0, sample.allowed - len(sample.at_work))
    _add(found, _of_idle(sample, idle))
    usual: dict[Cause, float] = {}
    for request in sample.at_work:
        bound = _OF_PHASE.get(request.phase, Bound.ORIGIN)
        cause = (bound, request.host)
        is_usual = bound in _USUALLY_SHORT and request.seconds < USUAL
        ours = 0.0 if bound in _HOSTS_OWN else sample.strain
        _add(usual if is_usual else found, {cause: 1.0 - ours})
        _add(found, {(Bound.CPU, ""): ours})
    _add(found, _of_usual(sample, usual, idle))
    return {cause: slots for cause, slots in found.items() if slots > 0}


def _of_idle(sample: Sample, idle: int) -> dict[Cause, float]:
    """Return what keeps slots from being in flight."""
    if not idle:
        return {}
    if sample.full is not None:
        return _spread(idle, {(Bound.SINK, name): 1 for name in sample.full or ["the queue"]})
    startable = min(idle, sample.startable)
    # A slot and a job that have not come together are about to, if nobody else has that slot.
    starting = (Bound.SERVICE if sample.waits_for_service else Bound.CPU, "")
    found: dict[Cause, float] = {starting: startable} if startable else {}
    idle -= startable
    held = sum(one.jobs for one in sample.held_back)
    # As long as the queue has jobs, the hosts that hold jobs back keep all that is idle from having one.
    by_hosts = (idle if sample.queued else min(idle, held)) if held else 0
    _add(found, _spread(by_hosts, {(one.why, one.host): min(one.jobs, idle) for one in sample.held_back}))
    return _add(found, _without_jobs(sample, idle - by_hosts))


def _without_jobs(sample: Sample, idle: int) -> dict[Cause, float]:
    """Return who should bring jobs. At the end of a batch that is nobody."""
    if sample.queued and idle:
        if sample.delayed:
            return {(Bound.RETRIES, sample.batch): idle}
        # What takes jobs out of the queue is this process, too.
        return {(Bound.QUEUE, sample.batch): idle * (1 - sample.strain), (Bound.CPU, ""): idle * sample.strain}
    return {(Bound.SOURCE, sample.batch): idle} if sample.reading and idle else {}


def _of_usual(sample: Sample, usual: Mapping[Cause, float], idle: int) -> Mapping[Cause, float]:
    """Return what requests are due to that are as they should be: what keeps others from being made beside them."""
    slots = sum(usual.values())
    if idle:
        others = _of_idle(sample, idle)
        return _spread(slots, others) if others else usual
    own: dict[Cause, float] = {(Bound.CONCURRENCY, sample.batch): slots}
    if sample.startable:
        return own
    if not sample.held_back:
        return own if sample.queued else usual
    # The hosts have as much as all slots together: it takes more of both.
    by_hosts = _spread(slots / 2, {(one.why, one.host): one.jobs for one in sample.held_back})
    return _add(by_hosts, {(Bound.CONCURRENCY, sample.batch): slots / 2})


def _spread(slots: float, weights: Mapping[Cause, float]) -> dict[Cause, float]:
    total = sum(weights.values())
    return {cause: slots * weight / total for cause, weight in weights.items()} if slots and total else {}


def _add(found: dict[Cause, float], more: Mapping[Cause, float]) -> dict[Cause, float]:
    for cause, slots in more.items():
        found[cause] = found.get(cause, 0.0) + slots
    return found


class Looks:
    """What was seen of late, in a memory that does not grow with hosts or looks. Pure: time is passed in.

    An infinite ``window`` is all the time.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._buckets: deque[tuple[float, dict[Cause, float]]] = deque()
        self._began: float | None = None

    def add(self, samples: Iterable[Sample], now: float) -> None:
        """Take a look at all engines into account."""
        self._began = now if self._began is None else self._began
        if not self._buckets or now - self._buckets[-1][0] >= _BUCKET:
            self._next(now)
        for sample in samples:
            _add(self._buckets[-1][1], attribute(sample))
        while self._buckets[0][0] < now - self._window:
            self._buckets.popleft()

    def seconds(self, now: float) -> float:
        """Return over which time there were looks."""
        return 0.0 if self._began is None else min(self._window, now - self._began)

    def findings(self) -> list[Finding]:
        """Return what bounds the throughput, the largest share first. The shares add up to 1, or there are none."""
        total: dict[Cause, float] = {}
        for _, bucket in self._buckets:
            _add(total, bucket)
        return findings(total)

    def _next(self, now: float) -> None:
        """Begin another second; of the one before, keep whom it concerned most."""
        before: dict[Cause, float] = {}
        if self._buckets:
            at, bucket = self._buckets.pop()
            before = _trimmed(bucket)
            if self._window < inf:
                self._buckets.append((at, before))
                before = {}
        self._buckets.append((now, before))


def _trimmed(causes: Mapping[Cause, float]) -> dict[Cause, float]:
    kept: dict[Cause, float] = {}
    named: dict[Bound, int] = {}
    for (bound, who), slots in sorted(causes.items(), key=lambda item: -item[1]):
        named[bound] = named.get(bound, 0) + 1
        _add(kept, {(bound, who if named[bound] <= _MOST_KEPT else ""): slots})
    return kept


def findings(causes: Mapping[Cause, float]) -> list[Finding]:
    """Return what slots were with, the largest share first."""
    total = sum(causes.values())
    if not total:
        return []
    by_bound: dict[Bound, dict[str, float]] = {}
    for (bound, who), slots in causes.items():
        of_bound = by_bound.setdefault(bound, {})
        of_bound[who] = of_bound.get(who, 0.0) + slots
    found = [
        Finding(bound, sum(whom.values()) / total, *ADVICE[bound], _named(whom)) for bound, whom in by_bound.items()
    ]
    return sorted(found, key=lambda one: -one.share)


def _named(whom: Mapping[str, float]) -> list[str]:
    most = sorted((item for item in whom.items() if item[0]), key=lambda item: -item[1])[:_MOST_NAMED]
    total = sum(whom.values())
    return [f"{who} ({slots / total:.0%})" for who, slots in most]


def verdict(found: Sequence[Finding]) -> str:
    """Say in one sentence what bounds the throughput."""
    if not found:
        return "Nothing is being fetched."
    first = found[0]
    whom = f", most of all by {first.details[0].rpartition(' (')[0]}" if first.details else ""
    return f"The throughput is bound by {first.bound} ({first.share:.0%}){whom}."
