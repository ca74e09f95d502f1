"""Contenders beside each other at the same task: the table, and the ratios to one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Table
from benchmarks.measure import Spread, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measure import Round, Sample

_MIB = 2**20


def ratio(rounds: Sequence[Round], label: str, baseline: str) -> Spread:
    """Return how much faster than the baseline a contender was, round by round."""
    return spread([each[label].rate / each[baseline].rate for each in rounds])


def table(title: str, rounds: Sequence[Round], baseline: str) -> Table:
    """Draw up every contender of some rounds."""
    columns = [
        "contender",
        "requests/s",
        "us CPU/request",
        "peak RSS MiB",
        "process s",
        "origin CPU",
        f"x {baseline}",
    ]
    rows = [
        [
            label,
            spread_of(rounds, label, lambda sample: sample.rate, ",.0f"),
            spread_of(rounds, label, lambda sample: sample.cpu_us, ".1f"),
            spread_of(rounds, label, lambda sample: sample.fetched.max_rss / _MIB, ".0f"),
            spread_of(rounds, label, lambda sample: sample.process_s, ".2f"),
            spread_of(rounds, label, _origin_share, ".0%"),
            shown(ratio(rounds, label, baseline), ".2f"),
        ]
        for label in rounds[0]
    ]
    return Table(title, columns, rows)


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
