"""What happened of late, all batches together: rates, latency, failures. Of a bounded size. Pure: time is passed in."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from fetcher.model import Outcome
from fetcher.pipeline.tally import Tally
from fetcher.service.models import FailureView, Latency
from fetcher.service.observing.views import latency, shown_message, shown_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fetcher.model import Result

WINDOW = 10.0
"""Over so many seconds rates are measured."""
_MINUTE = 60.0
_SLICE = 10.0
_SLICES = int(_MINUTE / _SLICE)
_MOST_FAILURES = 50


class Rate:
    """How fast a count grows, per second, over the last `WINDOW`. ``update`` about once a second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def update(self, count: float, now: float) -> None:
        """Take the count of this moment into account."""
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()  # it began anew
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:  # noqa: PLR2004  a rate takes two
            self._seen.popleft()

    @property
    def value(self) -> float:
        """The rate; 0 until it can be told."""
        (first, before), (last, after) = (self._seen[0], self._seen[-1]) if self._seen else ((0.0, 0.0), (0.0, 0.0))
        return (after - before) / (last - first) if last > first else 0.0


class Failure(msgspec.Struct, frozen=True):
    """What is kept of the result of a job that failed: not its body."""

    at: datetime | None
    batch: str
    url: str
    kind: str
    message: str | None
    status: int | None
    attempts: int


class Recent:
    """Is told of results as they are acknowledged; ``tick`` once a second.

    ``ids``: of batches by name, as results know but the name of theirs. Counts are from the start of the service.
    """

    def __init__(self, now: float) -> None:
        self.ids: Mapping[str, str] = {}
        self._slices: deque[Tally] = deque([Tally()], maxlen=_SLICES)
        self._next_slice = now + _SLICE
        self._before: dict[Outcome, int] = {}
        self._wire_before = 0
        self._failures: deque[Failure] = deque(maxlen=_MOST_FAILURES)
        self._rates = Rate(), Rate()
        self.tick(now)

    def observe(self, results: Sequence[Result]) -> None:
        """Count results that were acknowledged."""
        self._slices[-1].add(results)
        for result in results:
            if result.outcome is Outcome.FAILED:
                self._failures.append(
                    Failure(
                        result.finished_at,
                        self.ids.get(result.batch, result.batch),
                        result.url,
                        str(result.error_kind),
                        result.error_message,
                        result.status,
                        result.attempts,
                    )
                )

    def tick(self, now: float) -> None:
        """Note where the counts are."""
        while now >= self._next_slice:
            self._close_slice()
        ended, wire = self._rates
        ended.update(sum(self.outcomes.values()), now)
        wire.update(self.wire_bytes, now)

    def _close_slice(self) -> None:
        closed = self._slices[-1]
        self._before = _sum(self._before, closed.outcomes)
        self._wire_before += closed.wire_bytes
        self._slices.append(Tally())
        self._next_slice += _SLICE

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """Jobs that have ended, by outcome."""
        return _sum(self._before, self._slices[-1].outcomes)

    @property
    def wire_bytes(self) -> int:
        """Bytes received."""
        return self._wire_before + self._slices[-1].wire_bytes

    @property
    def rate(self) -> float:
        """Jobs that ended per second."""
        return self._rates[0].value

    @property
    def wire_rate(self) -> float:
        """Bytes received per second."""
        return self._rates[1].value

    @property
    def latency(self) -> Latency:
        """Of the last minute."""
        return latency(*(part.latency for part in self._slices))

    def failures(self) -> list[FailureView]:
        """Return the latest failures, the last one first."""
        return [_failure_view(failure) for failure in reversed(self._failures)]


def _sum(first: Mapping[Outcome, int], second: Mapping[Outcome, int]) -> dict[Outcome, int]:
    return {outcome: first.get(outcome, 0) + second.get(outcome, 0) for outcome in Outcome}


def _failure_view(failure: Failure) -> FailureView:
    return FailureView(
        at=failure.at or datetime.now(UTC),
        batch=failure.batch,
        url=shown_url(failure.url),
        kind=failure.kind,
        message=shown_message(failure.message),
        status=failure.status,
        attempts=failure.attempts,
    )
