"""When a schedule is due. Pure: times are epoch seconds, and the time of day is passed in.

A time of a cron expression that a change of clocks leaves out comes right after the gap; one that there is twice counts
once. What is to be done every so many minutes or hours goes on through both, as Debian's cron has it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.service.settings import ScheduleSettings

LATE = 60.0
"""A time that was more than so many seconds ago is one at which the service was not there."""
WRONG_CLOCK = 86_400.0
"""A last time further ahead than that was noted by a clock that was wrong."""
_FIELDS = 5
_LONGEST = 200
# From how long ago on to look for the latest time: hardly anybody wants more than the last few.
_SPANS = (3600.0, 2 * 86_400.0, 40 * 86_400.0, 400 * 86_400.0)
_PARTS = {"day-of-month": "day of the month", "day-of-week": "day of the week"}


class Timetable(Protocol):
    """The times of a schedule."""

    def after(self, moment: float) -> float | None:
        """Return the first time after another, None if there is none."""

    def latest(self, since: float, now: float) -> float | None:
        """Return the last time after ``since`` that is not after ``now``, None if there is none."""


class Cron:
    """The times of a cron expression by the clock of a time zone. Raises ValueError, which says what is wrong."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        # Of UTC it is known that no clock there is ever changed.
        self._zone: tzinfo = UTC if zone.upper() in {"UTC", "ETC/UTC"} else ZoneInfo(zone)
        self._expression = expression
        _check(expression)

    def after(self, moment: float) -> float | None:
        """Return the first time after another, None if there is none within 50 years."""
        return next(self._times(moment), None)

    def latest(self, since: float, now: float) -> float | None:
        """Return the last time after ``since`` that is not after ``now``, None if there is none."""
        first = self.after(since)
        if first is None or first > now:
            return None
        for span in (*_SPANS, math.inf):
            start = max(since, now - span)
            found = list(takewhile(lambda time: time <= now, self._times(start)))
            if found:
                return found[-1]
        return first

    def _times(self, moment: float) -> Iterator[float]:
        for found in CronSim(self._expression, datetime.fromtimestamp(moment, self._zone)):
            time = found.timestamp()
            # In an hour that there is twice, what is found may lie in the first one again.
            if time > moment:
                yield time


class Interval:
    """A time every so many seconds, counted from the one before."""

    def __init__(self, every: float) -> None:
        self._every = every

    def after(self, moment: float) -> float | None:
        """Return the time that comes next if ``moment`` was one."""
        return moment + self._every

    def latest(self, since: float, now: float) -> float | None:
        """Return the last time after ``since`` that is not after ``now``, None if there is none."""
        count = math.floor((now - since) / self._every)
        return since + count * self._every if count > 0 else None


def timetable(schedule: ScheduleSettings) -> Timetable:
    """Return the times of a schedule."""
    if schedule.every is not None:
        return Interval(schedule.every)
    return _cron(schedule.cron or "", schedule.timezone)


@lru_cache(maxsize=1000)
def _cron(expression: str, zone: str) -> Cron:
    return Cron(expression, zone)


def rule(schedule: ScheduleSettings) -> str:
    """Return what the times of a schedule follow from. With another rule, times in the past mean nothing."""
    return f"every {schedule.every:g} s" if schedule.every is not None else f"{schedule.cron} {schedule.timezone}"


def beginning(schedule: ScheduleSettings, now: float, last: float | None = None) -> float:
    """Return what is taken for the last time where a schedule is new, or has another rule: then it had a ``last`` one.

    A cron's times count from now on. That of an interval is counted from the last time, or is now.
    """
    if schedule.every is None:
        return now
    return math.floor(now) - schedule.every if last is None else last


def is_possible(last: float, now: float) -> bool:
    """Tell whether a last time can be believed. Clocks may be set back; but one that is far ahead was wrong before."""
    return last <= now + WRONG_CLOCK


class Decision(NamedTuple):
    """What is to be done about a time: run the batch, leave it out, or wait for the one before to end.

    ``cancel``: wait as well, but have it end.
    """

    at: float
    what: Literal["run", "skip", "wait", "cancel"]
    reason: str = ""


def decide(
    schedule: ScheduleSettings, last: float, now: float, *, busy: bool, was_there: bool = False
) -> Decision | None:
    """Say what is to be done now, None if nothing is due.

    ``last`` is the time that was decided on before, ``busy`` tells whether its batch has not ended, ``was_there`` that
    the service has been waiting since the time came. Of several times that have passed only the latest counts, and none
    comes twice, even if the clock is set back.
    """
    at = timetable(schedule).latest(last, now)
    if at is None:
        return None
    if schedule.missed == "skip" and not was_there and now - at > LATE:
        return Decision(at, "skip", "the service was not there at the time")
    if not busy:
        return Decision(at, "run")
    if schedule.overlap == "skip":
        return Decision(at, "skip", "the batch before has not ended")
    return Decision(at, "wait" if schedule.overlap == "queue" else "cancel")


def _check(expression: str) -> None:
    """Raise ValueError for what is no cron expression."""
    if len(expression) > _LONGEST or len(expression.split()) != _FIELDS:
        message = "should be five fields: minute, hour, day of the month, month, day of the week, as in '30 4 * * 1-5'"
        raise ValueError(message)
    try:
        first = next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except (CronSimError, AssertionError, ValueError) as error:
        part = re.sub(r"^Bad ", "", str(error)) if isinstance(error, CronSimError) else "expression"
        raise ValueError(f"has a {_PARTS.get(part, part)} that can not be: {expression!r}") from None
    if first is None:
        raise ValueError(f"names times that never come: {expression!r}")
