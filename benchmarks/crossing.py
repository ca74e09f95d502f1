"""Where blocking in threads and waiting for many at once cross, from what a request costs each of them.

Whoever has ``slots`` requests in flight gets at most ``slots`` answers in the time that one takes, and at most
as many as its CPU time allows. Nothing here is measured, and nothing waits.
"""

from __future__ import annotations

from typing import NamedTuple


class Way(NamedTuple):
    """A way to wait: so many requests at a time, each of which takes so much CPU time (in seconds)."""

    slots: int
    cpu: float

    def rate(self, latency: float) -> float:
        """Return the requests per second that it can do at best where answers take ``latency`` seconds."""
        return min(self.slots / (latency + self.cpu), 1 / self.cpu)


def latency_of(threads: Way, many: Way) -> float | None:
    """Return the latency (in seconds) above which ``many`` is the faster; 0 if it always is, None if never."""
    if many.cpu <= threads.cpu:
        return 0.0
    if many.slots <= threads.slots:
        return None
    # Threads only wait by then, and the others still have their hands full.
    return threads.slots * many.cpu - threads.cpu


def concurrency_of(threads: Way, many: Way, latency: float) -> int | None:
    """Return how many the other has to have in flight at a latency to be as fast; None if no number will do."""
    rate = threads.rate(latency)
    return None if rate > 1 / many.cpu else max(1, round(rate * (latency + many.cpu)))


def threads_for(threads: Way, many: Way, latency: float) -> int | None:
    """Return how many threads are as fast as ``many`` at a latency; None if no number is."""
    rate = many.rate(latency)
    return None if rate > 1 / threads.cpu else max(1, round(rate * (latency + threads.cpu)))


def where_lines_cross(xs: list[float], first: list[float], second: list[float]) -> float | None:
    """Return the x at which the second line rises above the first for good; None if it ends below.

    Lies between two measured points by straight lines; 0 if the second is above from the start.
    """
    above = [two > one for one, two in zip(first, second, strict=True)]
    if not above or not above[-1]:
        return None
    at = len(above) - above[::-1].index(False) if False in above else 0
    if at == 0:
        return 0.0
    before, after = first[at - 1] - second[at - 1], second[at] - first[at]
    return xs[at - 1] + (xs[at] - xs[at - 1]) * before / (before + after)
