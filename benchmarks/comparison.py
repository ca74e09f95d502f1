"""Contenders beside each other at the same task: the table, and the ratios to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Check, Table
from benchmarks.measure import Spread, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measure import Race, Round, Sample

_MIB = 2**20


def ratio(rounds: Sequence[Round], label: str, baseline: str) -> Spread:
    """Return how much faster than the baseline a contender was, round by round."""
    return spread([each[label].rate / each[baseline].rate for each in rounds])


def at_least(race: Race, label: str, other: str, bound: float) -> list[Check]:
    """Check that one was so many times as fast as another; nothing is said if either did not take part."""
    if not {label, other} <= race.rounds[0].keys():
        return []
    measured = ratio(race.rounds, label, other)
    text = f"{label}: at least {bound:g} times the rate of {other}"
    return [Check(text, f"{shown(measured, '.2f')} times", measured.median >= bound)]


def table(title: str, race: Race, baseline: str) -> Table:
    """Draw up every contender, the fastest first, and at the end those who did not take part, with the reason."""
    columns = [
        "contender",
        "requests/s",
        f"x {baseline}",
        "us CPU/request",
        "peak RSS MiB",
        "process s",
        "origin CPU",
        "requests",
    ]
    labels = sorted(race.rounds[0], key=lambda label: -_median_rate(race, label))
    rows = [_row(race.rounds, label, baseline) for label in labels]
    rows += [[label, why, *[""] * (len(columns) - 2)] for label, why in (race.unable | race.broken).items()]
    return Table(title, columns, rows)


def _row(rounds: Sequence[Round], label: str, baseline: str) -> list[str]:
    return [
        label,
        spread_of(rounds, label, lambda sample: sample.rate, ",.0f"),
        shown(ratio(rounds, label, baseline), ".2f") if baseline in rounds[0] else "",
        spread_of(rounds, label, lambda sample: sample.cpu_us, ",.0f"),
        spread_of(rounds, label, lambda sample: sample.fetched.max_rss / _MIB, ",.0f"),
        spread_of(rounds, label, lambda sample: sample.process_s, ".2f"),
        spread_of(rounds, label, _origin_share, ".0%"),
        f"{rounds[0][label].fetched.count:,}",
    ]


def _median_rate(race: Race, label: str) -> float:
    return spread([each[label].rate for each in race.rounds]).median


def spread_of(rounds: Sequence[Round], label: str, figure: Callable[[Sample], float], form: str) -> str:
    """Write a figure of a contender over all rounds."""
    return shown(spread([figure(each[label]) for each in rounds]), form)


def shown(value: Spread, form: str) -> str:
    """Write the median, and lowest and highest if they differ."""
    low, middle, high = (format(number, form) for number in (value.low, value.median, value.high))
    return middle if low == high else f"{middle} ({low} - {high})"


def _origin_share(sample: Sample) -> float:
    """Return how busy the origin was while requests were made: near 1 it is what is measured."""
    return float("nan") if sample.origin_cpu_s is None else sample.origin_cpu_s / sample.fetched.seconds
