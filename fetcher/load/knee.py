"""The search for the knee: the smallest concurrency within 5 % of the best throughput that is acceptable.

Pure: from the trials so far follows the next concurrency to try, or the answer. First concurrency doubles
until throughput no longer grows, or errors or latency are no longer acceptable; then what lies around the
knee is halved (geometrically) until its two sides are within 10 % of each other. What noise could have
decided is tried again, and the median counts.
"""

from __future__ import annotations

import math
from statistics import fmean, median
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITHIN = 0.95
_GROWS = 1.05
_CLOSE = 1.1
_REPEATS = 5
_SURE = 3  # so many trials have a median that one bad moment does not move
# How far trials of one concurrency lie apart (relative standard deviation): what is assumed before there are
# repeats to learn it from, and how many repeats that assumption weighs as much as.
_NOISE = 0.03
_NOISE_WEIGHT = 2
_DEVIATIONS = 2.5


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is acceptable, and how far the search may go."""

    max_error_rate: float = 0.01
    max_p99: float | None = None
    max_concurrency: int = 1024
    max_trials: int = 40


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What one concurrency gave: requests that went well per second, share of the others, p99 in seconds."""

    concurrency: int
    throughput: float
    error_rate: float = 0.0
    p99: float | None = None
    cpu_share: float = 0.0


class Try(msgspec.Struct, frozen=True):
    """Try this concurrency next, because."""

    concurrency: int
    why: str


class Verdict(msgspec.Struct, frozen=True):
    """The end of a search: the knee, or None if nothing is acceptable, and why it ended."""

    knee: int | None
    why: str


class Level(msgspec.Struct, frozen=True):
    """All trials of one concurrency as one: their medians."""

    concurrency: int
    throughput: float
    error_rate: float
    p99: float | None
    trials: int
    cpu_share: float

    def objection(self, goal: Goal) -> str | None:
        """Say what makes this level unacceptable, if anything."""
        if self.error_rate > goal.max_error_rate:
            return f"{self.error_rate:.1%} errors, more than {goal.max_error_rate:.1%}"
        if goal.max_p99 is not None and (self.p99 is None or self.p99 > goal.max_p99):
            found = "no answer" if self.p99 is None else f"p99 {self.p99:.3g} s"
            return f"{found}, more than {goal.max_p99:.3g} s"
        return None


def levels_of(trials: Sequence[Trial]) -> list[Level]:
    """Sum up trials by concurrency, in its order."""
    by_concurrency: dict[int, list[Trial]] = {}
    for trial in trials:
        by_concurrency.setdefault(trial.concurrency, []).append(trial)
    return [_level(concurrency, by_concurrency[concurrency]) for concurrency in sorted(by_concurrency)]


def _level(concurrency: int, trials: list[Trial]) -> Level:
    latencies = [trial.p99 for trial in trials if trial.p99 is not None]
    return Level(
        concurrency,
        median(trial.throughput for trial in trials),
        median(trial.error_rate for trial in trials),
        median(latencies) if latencies else None,
        len(trials),
        median(trial.cpu_share for trial in trials),
    )


def next_step(trials: Sequence[Trial], goal: Goal) -> Try | Verdict:
    """Return what to try next, or the answer."""
    levels = levels_of(trials)
    if len(trials) >= goal.max_trials:
        return Verdict(_knee_so_far(levels, goal), f"stopped after {goal.max_trials} trials")
    growth = _grow(levels, goal)
    if isinstance(growth, Try):
        return growth
    acceptable = _acceptable(levels, goal)
    if not acceptable:
        return Verdict(None, f"even concurrency {levels[0].concurrency} gives {levels[0].objection(goal)}")
    return (
        _seek_border(levels, acceptable, goal)
        or _seek_knee(acceptable, noise_of(trials))
        or _verdict(acceptable, growth)
    )


def _grow(levels: list[Level], goal: Goal) -> Try | str:
    """Return the next of 1, 2, 4, 8, ... as long as that pays, or why it does not."""
    known = {level.concurrency: level for level in levels}
    best = 0.0
    concurrency = 1
    while True:
        level = known.get(concurrency)
        if level is None:
            return Try(concurrency, "throughput still grows" if best else "the start")
        objection = level.objection(goal)
        flat = bool(best) and level.throughput < best * _GROWS
        if (objection or flat) and level.trials < _SURE:
            return Try(concurrency, "to be sure that this is no chance")
        if objection:
            return f"concurrency {concurrency:,} gives {objection}"
        if flat:
            return f"concurrency {concurrency:,} gives no more than less does"
        if concurrency >= goal.max_concurrency:
            return f"throughput still grew at {concurrency:,}, the most that may be tried"
        best = max(best, level.throughput)
        concurrency = min(concurrency * 2, goal.max_concurrency)


def _acceptable(levels: list[Level], goal: Goal) -> list[Level]:
    """Return the levels below the first that is not acceptable."""
    for index, level in enumerate(levels):
        if level.objection(goal):
            return levels[:index]
    return levels


def _seek_border(levels: list[Level], acceptable: list[Level], goal: Goal) -> Try | None:
    """Halve what lies between the last acceptable level and the first that is not: the best may be there."""
    if len(acceptable) == len(levels):
        return None
    border = levels[len(acceptable)]
    if border.trials < _SURE and border.concurrency < goal.max_concurrency:
        return Try(border.concurrency, "to be sure that this is no chance")
    between = _between(acceptable[-1].concurrency, border.concurrency)
    return None if between is None else Try(between, "where it stops to be acceptable")


def _best(acceptable: list[Level]) -> float:
    """Return the best throughput: the median of those near the highest, which is high by chance too."""
    highest = max(level.throughput for level in acceptable)
    return median(level.throughput for level in acceptable if level.throughput >= highest * _WITHIN)


def _split(acceptable: list[Level]) -> tuple[Level | None, Level, float]:
    """Return the level below the knee, the knee, and the throughput that a knee needs."""
    enough = _best(acceptable) * _WITHIN
    index = next(index for index, level in enumerate(acceptable) if level.throughput >= enough)
    return (acceptable[index - 1] if index else None), acceptable[index], enough


def _seek_knee(acceptable: list[Level], noise: float) -> Try | None:
    """Halve what lies between the knee and the level below it, once it is clear on which side each is."""
    below, knee, enough = _split(acceptable)
    for level in (knee, below):
        if level is not None and level.trials < _REPEATS and _doubtful(level, enough, noise):
            return Try(level.concurrency, "so near that noise could decide")
    between = None if below is None else _between(below.concurrency, knee.concurrency)
    return None if between is None else Try(between, "between the two sides of the knee")


def _doubtful(level: Level, enough: float, noise: float) -> bool:
    error = _DEVIATIONS * noise / math.sqrt(level.trials)
    return enough > 0 and abs(level.throughput / enough - 1) < error


def noise_of(trials: Sequence[Trial]) -> float:
    """Return how far trials of one concurrency lie apart, as a share of their throughput."""
    by_concurrency: dict[int, list[float]] = {}
    for trial in trials:
        by_concurrency.setdefault(trial.concurrency, []).append(trial.throughput)
    squares, freedom = _NOISE**2 * _NOISE_WEIGHT, float(_NOISE_WEIGHT)
    for values in by_concurrency.values():
        middle = fmean(values)
        if middle > 0:
            squares += sum((value / middle - 1) ** 2 for value in values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom)


def _between(low: int, high: int) -> int | None:
    """Return the geometric middle; None if the two are near enough."""
    if high - low <= 1 or high <= low * _CLOSE:
        return None
    return min(max(round(math.sqrt(low * high)), low + 1), high - 1)


def _verdict(acceptable: list[Level], ended: str) -> Verdict:
    _, knee, enough = _split(acceptable)
    if not enough:
        return Verdict(None, "nothing went well at any concurrency")
    return Verdict(knee.concurrency, ended)


def _knee_so_far(levels: list[Level], goal: Goal) -> int | None:
    acceptable = _acceptable(levels, goal)
    return _verdict(acceptable, "").knee if acceptable else None
