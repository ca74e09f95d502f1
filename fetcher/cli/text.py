"""Numbers and foreign text as people read them on a terminal."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_MINUTE = 60
_HOUR = 3600


def plain(text: str, width: int = 200) -> str:
    """Return text from a server or a file so that a terminal only shows it: no control character gets through."""
    shown = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def size(count: float) -> str:
    """Write a number of bytes."""
    power = 0
    while count >= _STEP and power < len(_UNITS) - 1:
        count /= _STEP
        power += 1
    return f"{count:.0f} {_UNITS[power]}" if power == 0 else f"{count:.1f} {_UNITS[power]}"


def seconds(value: float | None) -> str:
    """Write a short duration."""
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def clock(value: float | None) -> str:
    """Write a long duration as on a stopwatch."""
    if value is None:
        return "-"
    if value < _MINUTE / 6:
        return f"{value:.1f} s"
    whole = int(value)
    if whole >= _HOUR:
        return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"
    return f"{whole // _MINUTE}:{whole % _MINUTE:02}"


def duration(value: float) -> str:
    """Write a duration that somebody has set, in the largest unit of which it is a whole number: ``10 min``."""
    for size_of_unit, unit in ((_HOUR, "h"), (_MINUTE, "min")):
        if value and value % size_of_unit == 0:
            return f"{value / size_of_unit:g} {unit}"
    return f"{value:g} s"


def counted(count: int, noun: str) -> str:
    """Write how many there are of something: ``1 job``, ``2,000 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
