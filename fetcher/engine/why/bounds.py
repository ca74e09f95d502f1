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
- Engines that share the slots of a service have no more idle ones, all together, than there are free. So one that has
  to wait does not count for more than one that is at work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fetcher.engine.why.advice import ADVICE, OF_SERVICE, USUAL, Bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WINDOW = 10.0
"""Seconds of looks that are told of."""
# Looks may be rare if they take long; so many of the last are told of, however old.
_LEAST_LOOKS = 8
# Whom something concerns is named for so many, and kept for a few more, as the order may change within the window.
_MOST_NAMED = 3
_MOST_KEPT = 16
# A sum of looks is cut down to those when it has so many causes.
_MOST_CAUSES = 512
# For so many seconds a queue that has just been opened need not have brought jobs yet.
_OPENING = 2.0
# From the one share of a core on the process begins to be short of breath, at the other it is out of it.
_SHORT_OF_BREATH, _OUT_OF_BREATH = 0.7, 0.95
# How often a request waits for the loop, and by how many seconds a timer is late when nothing is the matter.
_WAITS = 2
_RESOLUTION = 0.001


_OF_PHASE = {
    "robots.txt": Bound.ROBOTS,
    "token": Bound.TOKEN,
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
    """So many jobs wait for a host, and why they may not start. ``by_service``: its config says so, and no batch's."""

    why: Bound
    host: str
    jobs: int
    by_service: bool = False


class Service(msgspec.Struct, frozen=True):
    """The slots that engines share: how many there are, and how many of them are free."""

    allowed: int
    free: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Where the slots of one engine were at one moment.

    ``since``: when it was first looked at. ``service``: the slots that it shares with others, None if it is alone.
    ``allowed``: requests that it may have in flight. ``startable``: jobs that wait and whose hosts would allow them to
    start. ``held_back``: of other jobs that wait, why. ``waits_for_service``: workers wait for the slots that engines
    share. ``full``: the sinks that workers wait for, None if they do not. ``queued``: jobs that wait to be leased,
    ``delayed`` if all of those wait for their time. ``reading``: the sources are not at their end. ``strain``: how much
    of what requests seem to wait for is this process (0 to 1).
    """

    batch: str = ""
    since: float = -inf
    allowed: int
    service: Service | None = None
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


class Cause(NamedTuple):
    """What is waited for, and the host, sink or batch that it is about.

    ``by_service``: the config of the service says so, and not that of a batch.
    """

    bound: Bound
    whom: str = ""
    by_service: bool = False


def strain(cpu: float, late: float, took: float) -> float:
    """Return which share of what requests wait for is the process itself.

    ``cpu``: which share of a core it took; ``late``: for how many seconds its timers were late on average; ``took``:
    for how many seconds requests are in flight on average. What arrives for a request waits about as long as a timer
    is late, and so does the request when its slot is free.
    """
    busy = min(1.0, max(0.0, (cpu - _SHORT_OF_BREATH) / (_OUT_OF_BREATH - _SHORT_OF_BREATH)))
    delayed = _WAITS * max(0.0, late - _RESOLUTION)
    return max(busy, min(1.0, delayed / took) if took > 0 else 0.0)


def attribute(samples: Sequence[Sample], now: float = 0.0) -> list[dict[Cause, float]]:
    """Return how many slots of each engine each cause had at that moment, in the order of the samples.

    Slots for which there is nothing to do are not counted.
    """
    idle = [_of_idle(sample, max(0, sample.allowed - len(sample.at_work))) for sample in samples]
    shared = [(sample.service.free, of) for sample, of in zip(samples, idle, strict=True) if sample.service]
    wanted = sum(sum(of.values()) for _, of in shared)
    free = max((free for free, _ in shared), default=0)
    part = min(1.0, free / wanted) if wanted else 1.0
    return [
        _attribute(sample, of, part if sample.service else 1.0, now) for sample, of in zip(samples, idle, strict=True)
    ]


def _attribute(sample: Sample, idle: Mapping[Cause, float], part: float, now: float) -> dict[Cause, float]:
    """Return the same of one engine; ``part``: how many of its idle slots it may have, from 0 to 1."""
    found = {cause: slots * part for cause, slots in idle.items()}
    usual: dict[Cause, float] = {}
    for request in sample.at_work:
        bound = _OF_PHASE.get(request.phase, Bound.ORIGIN)
        cause = Cause(bound, request.host)
        is_usual = bound in _USUALLY_SHORT and request.seconds < USUAL
        ours = 0.0 if bound in _HOSTS_OWN else sample.strain
        _add(usual if is_usual else found, {cause: 1.0 - ours})
        _add(found, {Cause(Bound.CPU): ours})
    _add(found, _of_usual(sample, usual, idle))
    # That a queue brings nothing yet while it is being opened does not mean that it is slow.
    is_opening = now - sample.since < _OPENING
    return {
        cause: slots for cause, slots in found.items() if slots > 0 and not (is_opening and cause.bound is Bound.QUEUE)
    }


def _of_idle(sample: Sample, idle: int) -> dict[Cause, float]:
    """Return what keeps slots from being in flight."""
    if not idle:
        return {}
    if sample.full is not None:
        return _spread(idle, {Cause(Bound.SINK, name): 1 for name in sample.full or ["the queue"]})
    startable = min(idle, sample.startable)
    # A slot and a job that have not come together are about to, if nobody else has that slot.
    starting = Cause(Bound.SERVICE if _has_none_free(sample) else Bound.CPU)
    found: dict[Cause, float] = {starting: startable} if startable else {}
    idle -= startable
    held = sum(one.jobs for one in sample.held_back)
    # As long as the queue has jobs, the hosts that hold jobs back keep what is idle from having them, too.
    by_hosts = min(idle, max(held, sample.queued)) if held else 0
    _add(found, _spread(by_hosts, _hosts(sample, idle)))
    return _add(found, _without_jobs(sample, idle - by_hosts, 0 if held else sample.queued))


def _without_jobs(sample: Sample, idle: int, queued: int) -> dict[Cause, float]:
    """Return who should bring jobs. At the end of a batch that is nobody."""
    found: dict[Cause, float] = {}
    queued = min(idle, queued)
    if queued and sample.delayed:
        found[Cause(Bound.RETRIES, sample.batch)] = queued
    elif queued:
        # What takes jobs out of the queue is this process, too.
        found[Cause(Bound.QUEUE, sample.batch)] = queued * (1 - sample.strain)
        found[Cause(Bound.CPU)] = queued * sample.strain
    if sample.reading and idle > queued:
        found[Cause(Bound.SOURCE, sample.batch)] = idle - queued
    return found


def _of_usual(sample: Sample, usual: Mapping[Cause, float], idle: Mapping[Cause, float]) -> Mapping[Cause, float]:
    """Return what requests are due to that are as they should be: what keeps others from being made beside them."""
    slots = sum(usual.values())
    if len(sample.at_work) < sample.allowed:
        return _spread(slots, idle) if idle else usual
    most = _most(sample)
    if sample.startable:
        return {most: slots}
    if not sample.held_back:
        return {most: slots} if sample.queued else usual
    # The hosts have as much as all slots together: it takes more of both.
    return _add(_spread(slots / 2, _hosts(sample, inf)), {most: slots / 2})


def _has_none_free(sample: Sample) -> bool:
    return sample.waits_for_service or (sample.service is not None and not sample.service.free)


def _most(sample: Sample) -> Cause:
    """Return who says how many requests an engine may have in flight: the service, unless its batch has less."""
    service = sample.service
    if service is not None and sample.allowed >= service.allowed:
        return Cause(Bound.SERVICE)
    return Cause(Bound.CONCURRENCY, sample.batch)


def _hosts(sample: Sample, most: float) -> dict[Cause, float]:
    """Return what holds jobs back, weighed by how many, each of them by ``most`` at most."""
    return {Cause(one.why, one.host, one.by_service): min(one.jobs, most) for one in sample.held_back}


def _spread(slots: float, weights: Mapping[Cause, float]) -> dict[Cause, float]:
    total = sum(weights.values())
    return {cause: slots * weight / total for cause, weight in weights.items()} if slots and total else {}


def _add(found: dict[Cause, float], more: Mapping[Cause, float]) -> dict[Cause, float]:
    for cause, slots in more.items():
        found[cause] = found.get(cause, 0.0) + slots
    return found


Seen = tuple[str, float]
"""An engine that was looked at: its batch, and since when it is."""


class Looks:
    """What was seen of late, in a memory that does not grow with hosts. Pure: time is passed in.

    Every look counts the same, however many requests were in flight. Of engines that the last look did not find nothing
    is told. An infinite ``window`` is all the time, whoever has ended meanwhile.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._looks: deque[tuple[float, dict[Seen, dict[Cause, float]]]] = deque()
        self._total: dict[Cause, float] = {}
        self._began: float | None = None

    def add(self, samples: Sequence[Sample], now: float) -> None:
        """Take a look at all engines into account."""
        self._began = now if self._began is None else self._began
        seen: dict[Seen, dict[Cause, float]] = {}
        for sample, causes in zip(samples, attribute(samples, now), strict=True):
            _add(seen.setdefault((sample.batch, sample.since), {}), _trimmed(causes))
        if self._window == inf:
            self._total = _bounded(_add(self._total, _shares(seen.values())))
            return
        self._looks.append((now, seen))
        while len(self._looks) > _LEAST_LOOKS and self._looks[0][0] < now - self._window:
            self._looks.popleft()

    def seconds(self, now: float) -> float:
        """Return over which time there were looks."""
        if self._window == inf:
            return 0.0 if self._began is None else now - self._began
        return next((now - at for at, seen in self._looks if self._present(seen)), 0.0)

    def findings(self) -> list[Finding]:
        """Return what bounds the throughput, the largest share first. The shares add up to 1, or there are none."""
        total = dict(self._total)
        for _, seen in self._looks:
            _add(total, _shares(self._present(seen)))
        return findings(total)

    def _present(self, seen: Mapping[Seen, dict[Cause, float]]) -> list[dict[Cause, float]]:
        """Return what was seen of engines that have not ended since."""
        last = self._looks[-1][1]
        return [causes for engine, causes in seen.items() if engine in last]


def _shares(causes: Iterable[Mapping[Cause, float]]) -> dict[Cause, float]:
    """Return the sum, as shares that add up to 1, or nothing."""
    total: dict[Cause, float] = {}
    for one in causes:
        _add(total, one)
    return _spread(1.0, total)


def _bounded(causes: dict[Cause, float]) -> dict[Cause, float]:
    return _trimmed(causes) if len(causes) > _MOST_CAUSES else causes


def _trimmed(causes: Mapping[Cause, float]) -> dict[Cause, float]:
    """Keep whom it concerns most; of the others, how many slots there are."""
    kept: dict[Cause, float] = {}
    named: dict[Bound, int] = {}
    for cause, slots in sorted(causes.items(), key=lambda item: -item[1]):
        named[cause.bound] = named.get(cause.bound, 0) + 1
        _add(kept, {cause if named[cause.bound] <= _MOST_KEPT else cause._replace(whom=""): slots})
    return kept


def findings(causes: Mapping[Cause, float]) -> list[Finding]:
    """Return what slots were with, the largest share first."""
    total = sum(causes.values())
    if not total:
        return []
    by_bound: dict[Bound, dict[Cause, float]] = {}
    for cause, slots in causes.items():
        by_bound.setdefault(cause.bound, {})[cause] = slots
    found = [_finding(bound, of_bound, total) for bound, of_bound in by_bound.items()]
    return sorted(found, key=lambda one: -one.share)


def _finding(bound: Bound, causes: Mapping[Cause, float], total: float) -> Finding:
    slots = sum(causes.values())
    whom: dict[str, float] = {}
    for cause, of_cause in causes.items():
        whom[cause.whom] = whom.get(cause.whom, 0.0) + of_cause
    by_service = sum(of_cause for cause, of_cause in causes.items() if cause.by_service)
    explanation, advice = ADVICE[bound]
    if by_service > slots / 2:
        advice = OF_SERVICE.get(bound, advice)
    return Finding(bound, slots / total, explanation, advice, _named(whom))


def _named(whom: Mapping[str, float]) -> list[str]:
    most = sorted((item for item in whom.items() if item[0]), key=lambda item: -item[1])[:_MOST_NAMED]
    total = sum(whom.values())
    return [f"{who} ({slots / total:.0%})" for who, slots in most]


def verdict(found: Sequence[Finding], engines: int = 0) -> str:
    """Say in one sentence what bounds the throughput of so many engines."""
    if not found:
        return "Nothing was seen yet that bounds the throughput." if engines else "Nothing is being fetched."
    first = found[0]
    whom = f", most of all by {first.details[0].rpartition(' (')[0]}" if first.details else ""
    return f"The throughput is bound by {first.bound} ({first.share:.0%}){whom}."
