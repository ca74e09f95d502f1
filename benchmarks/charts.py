"""What a chart shows, whoever draws it: ``pages.py`` with plotly, ``plots.py`` with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from benchmarks.measure import Spread, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Race, Sample


class Point(msgspec.Struct):
    """A figure over the runs at ``x``."""

    x: float
    y: Spread


class Series(msgspec.Struct):
    """A line, or in a bar chart a bar with its only point."""

    name: str
    points: list[Point]


class Chart(msgspec.Struct):
    """``lines`` have logarithmic axes, that of y if ``log_y``; of ``bars`` the longest comes first.

    ``name`` is that of a file. ``markers`` are lines at an x, with what is written there.
    """

    name: str
    title: str
    kind: Literal["bars", "lines"]
    y: str
    series: list[Series]
    x: str = ""
    markers: dict[str, float] = {}
    log_y: bool = True


def bars(name: str, title: str, race: Race) -> Chart:
    """Draw up the rates of everyone in a race."""
    series = [Series(label, [Point(0.0, over(race, label, lambda sample: sample.rate))]) for label in race.rounds[0]]
    series.sort(key=lambda each: -each.points[0].y.median)
    return Chart(name, title, "bars", "requests/s", series)


def over(race: Race, label: str, figure: Callable[[Sample], float]) -> Spread:
    """Sum up a figure of one contender over all rounds."""
    return spread([figure(each[label]) for each in race.rounds])
