"""Retry-After: for how many seconds a server asks to be left alone (RFC 9110, section 10.2.3). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST_SKEW = 86_400.0


def parse_retry_after(value: str | None, now: datetime, date: str | None = None) -> float | None:
    """Read a Retry-After header in either of its forms as seconds from ``now``.

    ``date`` is the Date header of the same answer. A server means its own clock, so a time is taken to be relative to
    that, unless it differs from ours by more than a day: then it is no clock, or the answer is a stored one.

    None for what is neither form; never negative, so that a server whose clock is behind does not confuse us.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)  # infinite if it is that long
    when = _parse_date(value)
    if when is None:
        return None
    return max(0.0, (when - server_clock(now, date)).total_seconds())


def server_clock(now: datetime, date: str | None) -> datetime:
    """Return what time it is for a server whose answer has this ``date``; ``now`` if that is no clock."""
    theirs = _parse_date(date or "")
    return theirs if theirs is not None and abs((theirs - now).total_seconds()) <= _MOST_SKEW else now


def _parse_date(value: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when
