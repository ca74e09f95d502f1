"""What became of a batch, in numbers that do not grow with it. Kept with the queue's marks, across resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from fetcher.errors import BAD_INPUT, NOT_HAD
from fetcher.histogram import bucket_of, quantile
from fetcher.model import Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.errors import ErrorKind


class Limit(Protocol):
    """How many jobs of a batch may fail before all of it counts as failed."""

    def exceeded(self, failed: int, total: int) -> bool:
        """Return whether more failed than may."""
        ...


class Kind(msgspec.Struct):
    """How often an error kind occurred, and one job to look at."""

    count: int
    example_url: str
    example_message: str


class Tally(msgspec.Struct):
    """Counts of results, and a histogram of ``total_s`` of those that got a response.

    ``filtered`` counts those whose record a stage has dropped; they are among the outcomes all the same.
    ``dead_letters`` counts, by sink, records that it did not take though jobs did not wait for it. ``cut`` counts
    listings that have more than ``max_pages`` pages (0: nobody looks).
    """

    outcomes: dict[Outcome, int] = {}
    status_classes: dict[str, int] = {}
    kinds: dict[str, Kind] = {}
    retries: int = 0
    body_bytes: int = 0
    wire_bytes: int = 0
    elapsed: float = 0.0
    latency: dict[int, int] = {}
    filtered: int = 0
    dead_letters: dict[str, int] = {}
    cut: int = 0
    max_pages: int = 0

    @property
    def total(self) -> int:
        """Results counted."""
        return sum(self.outcomes.values())

    @property
    def missed(self) -> int:
        """Jobs whose answer nobody has got: those that failed, and those that were skipped though they were wanted."""
        return self.outcomes.get(Outcome.FAILED, 0) + sum(map(self.count, NOT_HAD))

    @property
    def all_unusable(self) -> bool:
        """Tell whether there were rows, and none of them could be a job."""
        skipped = self.outcomes.get(Outcome.SKIPPED, 0)
        return 0 < skipped == self.total == sum(map(self.count, BAD_INPUT))

    def exceeds(self, limit: Limit, jobs: int) -> bool:
        """Tell whether a batch of so many jobs is to count as failed: for what was missed, or for its input."""
        return limit.exceeded(self.missed, jobs) or self.all_unusable

    def count(self, kind: ErrorKind) -> int:
        """Return how many jobs ended with an error kind."""
        found = self.kinds.get(kind)
        return found.count if found is not None else 0

    def add(self, results: Sequence[Result]) -> None:
        """Count results."""
        for result in results:
            outcome = result.outcome
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
            if result.attempts > 1:
                self.retries += result.attempts - 1
            if result.error_kind is not None:
                self._add_kind(result)
            if result.status is not None:
                status_class = f"{result.status // 100}xx"
                self.status_classes[status_class] = self.status_classes.get(status_class, 0) + 1
                self._add_response(result)
            elif result.final_url is not None:
                # An answer, but not of http.
                self._add_response(result)
            if result.has_more and result.page == self.max_pages:
                self.cut += 1

    def _add_response(self, result: Result) -> None:
        self.body_bytes += result.body_size or 0
        self.wire_bytes += result.wire_size or 0
        bucket = bucket_of(result.total_s or 0.0)
        self.latency[bucket] = self.latency.get(bucket, 0) + 1

    def _add_kind(self, result: Result) -> None:
        kind = self.kinds.get(str(result.error_kind))
        if kind is None:
            self.kinds[str(result.error_kind)] = Kind(1, result.url, result.error_message or "")
        else:
            kind.count += 1

    def quantile(self, q: float) -> float | None:
        """Return the latency in seconds below which the share ``q`` of responses lies, or None without any."""
        return quantile(self.latency, q)

    def dump(self) -> str:
        """Return the tally as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def load(cls, text: str | None) -> Tally:
        """Return the tally that ``dump`` wrote, or an empty one."""
        return msgspec.json.decode(text, type=cls) if text else cls()
