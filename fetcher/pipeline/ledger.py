"""Which sink has which records durably, and what may be acknowledged because all of them have it. Pure.

Results travel as units, numbered from 1 on. A sink may write several of them at once, and then it has a mark only
after the last: it can be cut back to there, and to nowhere in between. So jobs are acknowledged up to a unit after
which every sink has a mark, and the marks of that very moment go with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from fetcher.interfaces import Lease
from fetcher.model import Result

if TYPE_CHECKING:
    from collections.abc import Iterable


class Unit(msgspec.Struct):
    """Results that are acknowledged together, as they are counted; ``weight`` is about how many bytes they are."""

    leases: list[Lease]
    results: list[Result]
    weight: int
    filtered: int = 0
    number: int = 0


class Point(msgspec.Struct):
    """After the unit ``number``, a sink had all records up to there, these marks, and so many dead letters."""

    number: int
    marks: Mapping[str, str]
    dead_letters: int = 0


class Settlement(msgspec.Struct):
    """What may be acknowledged now, and what is to be committed with it; ``dead_letters`` are totals by sink."""

    units: list[Unit]
    marks: dict[str, str]
    dead_letters: dict[str, int]


class Ledger:
    """Units that are not acknowledged, and the points that sinks have reached. ``count`` and ``weight`` are of those.

    ``last`` is the number of the last unit that was entered.
    """

    def __init__(self, outlets: Iterable[str]) -> None:
        self._reached: dict[str, deque[Point]] = {key: deque([Point(0, {})]) for key in outlets}
        self._units: deque[Unit] = deque()
        self.last = 0
        self.count = self.weight = 0

    def __len__(self) -> int:
        return len(self._units)

    def enter(self, unit: Unit) -> int:
        """Take a new unit and return its number."""
        self.last += 1
        unit.number = self.last
        self._units.append(unit)
        self.count += len(unit.leases)
        self.weight += unit.weight
        return self.last

    def reach(self, outlet: str, point: Point) -> None:
        """Note that a sink has everything up to a point."""
        self._reached[outlet].append(point)

    def settle(self) -> Settlement | None:
        """Take out what every sink has, None if that is nothing."""
        number = self._common()
        if not self._units or number < self._units[0].number:
            return None
        found = Settlement([], {}, {})
        while self._units and self._units[0].number <= number:
            unit = self._units.popleft()
            self.count -= len(unit.leases)
            self.weight -= unit.weight
            found.units.append(unit)
        for outlet, points in self._reached.items():
            while len(points) > 1 and points[1].number <= number:
                points.popleft()
            found.marks.update(points[0].marks)
            found.dead_letters[outlet] = points[0].dead_letters
        return found

    def _common(self) -> int:
        """Return the last unit after which every sink can be cut back; what has no marks need not be."""
        number = min((points[-1].number for points in self._reached.values()), default=self.last)
        while True:
            lower = min((_at_most(points, number) for points in self._reached.values()), default=number)
            if lower == number:
                return number
            number = lower


def _at_most(points: deque[Point], number: int) -> int:
    """Return the last unit up to ``number`` after which a sink can be cut back, 0 if it is before all that is held."""
    if not points[-1].marks:
        return number
    return next((point.number for point in reversed(points) if point.number <= number), 0)
