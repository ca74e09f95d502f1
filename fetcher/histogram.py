"""A histogram of durations whose buckets grow by 2 %, so that a quantile read from it is off by 1 % at most.

It is a plain mapping from bucket to count: small, mergeable, and JSON as it stands.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_GROWTH = math.log(1.02)
_SHORTEST = 1e-6


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration; what is shorter than a microsecond counts as one."""
    return math.floor(math.log(max(seconds, _SHORTEST)) / _GROWTH)


def middle_of(bucket: float) -> float:
    """Return the duration in seconds that stands for a bucket."""
    return math.exp((bucket + 0.5) * _GROWTH)


def quantile(buckets: Mapping[int, int], q: float) -> float | None:
    """Return the duration in seconds below which the share ``q`` of the counted lies, or None without any."""
    wanted = q * sum(buckets.values())
    reached = 0
    for bucket in sorted(buckets):
        reached += buckets[bucket]
        if reached >= wanted:
            return middle_of(bucket)
    return None


def merged(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add histograms up."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total
