"""What the metrics count: results as they are acknowledged, and what engines count for themselves. Pure.

Whatever the number of hosts, batches, sinks and kinds: there is a bounded number of each label. Counters go on over
the end of batches, and of an engine that counts from 0 again when its batch is resumed.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol

import msgspec

from fetcher.errors import ErrorKind
from fetcher.histogram import middle_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fetcher.model import Outcome, Result

PHASES = ("queue", "dns", "connect", "tls", "first_byte", "total")
OTHER = "other"
MOST_SINKS = 50
_LONGEST_LABEL = 100
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of buckets, in seconds."""
_KINDS = frozenset(kind.value for kind in ErrorKind)
_CLASSES = frozenset("12345")


class Histogram:
    """Durations by bucket, the last one for those beyond all bounds, and their sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATIONS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(DURATIONS, seconds)] += 1
        self.total += seconds

    def merge(self, fine: Mapping[int, int], total: float) -> None:
        """Add a histogram of `fetcher.histogram`, and the sum of what it counts."""
        for bucket, count in fine.items():
            self.counts[bisect_left(DURATIONS, middle_of(bucket))] += count
        self.total += total


class Requests:
    """Jobs that have ended, all batches together."""

    def __init__(self) -> None:
        self._ended: dict[tuple[Outcome, int | None, ErrorKind | None], int] = {}
        self.phases = {phase: Histogram() for phase in PHASES}
        self.bytes = 0

    def observe(self, results: Sequence[Result]) -> None:
        """Count results."""
        ended = self._ended
        queue, dns, connect, tls, first_byte, total = self.phases.values()
        for result in results:
            key = (result.outcome, result.status, result.error_kind)
            ended[key] = ended.get(key, 0) + 1
            if result.total_s is not None:
                total.add(result.total_s)
            if result.first_byte_s is not None:
                first_byte.add(result.first_byte_s)
            if result.queue_s is not None:
                queue.add(result.queue_s)
            if result.connect_s is not None:
                connect.add(result.connect_s)
                if result.dns_s is not None:
                    dns.add(result.dns_s)
                if result.tls_s is not None:
                    tls.add(result.tls_s)
            if result.wire_size is not None:
                self.bytes += result.wire_size

    def ended(self) -> dict[tuple[str, str, str], int]:
        """Return how many have ended by outcome, status class and error kind; what there is none of is ``""``."""
        found: dict[tuple[str, str, str], int] = {}
        for (outcome, status, kind), count in self._ended.items():
            key = outcome.value, _status_class(status), _kind(kind)
            found[key] = found.get(key, 0) + count
        return found


def _status_class(status: int | None) -> str:
    if status is None:
        return ""
    first = str(status)[:1]
    return f"{first}xx" if first in _CLASSES else OTHER


def _kind(kind: str | None) -> str:
    if kind is None:
        return ""
    return str(kind) if kind in _KINDS else OTHER


class Written(Protocol):
    """What a sink counts for itself (`fetcher.pipeline.outlet.Outlet`)."""

    title: str
    errors: int
    dead_letters: int
    flushes: dict[int, int]
    flush_s: float


class SinkCounts(msgspec.Struct):
    """What sinks of one name have come to."""

    flushes: Histogram = msgspec.field(default_factory=Histogram)
    errors: int = 0


class Counts(msgspec.Struct):
    """What engines count for themselves, added up. ``retries``: by the reason, an error kind or a status class.

    ``postponed``: how many times jobs could not begin.
    """

    retries: dict[str, int] = {}
    sinks: dict[str, SinkCounts] = {}
    dead_letters: int = 0
    postponed: int = 0

    def copy(self) -> Counts:
        """Return a copy that can be added to."""
        counts = Counts(dict(self.retries), {}, self.dead_letters, self.postponed)
        for title, sink in self.sinks.items():
            copied = counts.sinks[title] = SinkCounts(errors=sink.errors)
            copied.flushes.counts = list(sink.flushes.counts)
            copied.flushes.total = sink.flushes.total
        return counts

    def add(self, retries: Mapping[str, int], sinks: Iterable[Written], names: Names) -> None:
        """Add what one engine counts."""
        for reason, count in retries.items():
            label = reason if reason in _KINDS or _is_class(reason) else OTHER
            self.retries[label] = self.retries.get(label, 0) + count
        for sink in sinks:
            label = names.label(sink.title)
            counts = self.sinks.get(label)
            if counts is None:
                counts = self.sinks[label] = SinkCounts()
            counts.errors += sink.errors
            counts.flushes.merge(sink.flushes, sink.flush_s)
            self.dead_letters += sink.dead_letters


def _is_class(reason: str) -> bool:
    return reason[1:] == "xx" and reason[:1] in _CLASSES


class Names:
    """Labels for names that users choose: as many as ``most``, the first who come; `OTHER` for the rest."""

    def __init__(self, most: int = MOST_SINKS) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, name: str) -> str:
        """Return the label of a name, always the same."""
        name = name[:_LONGEST_LABEL]
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name
