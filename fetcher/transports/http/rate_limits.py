"""What an answer says is left of a budget: the ``RateLimit`` field and its forerunners. Pure.

    RateLimit: "default";r=50;t=30                           draft-ietf-httpapi-ratelimit-headers
    RateLimit: limit=100, remaining=50, reset=30             the same, as it was in its version 7
    RateLimit-Remaining: 50  RateLimit-Reset: 30             and before that
    X-RateLimit-Remaining: 50  X-RateLimit-Reset: 1767225600 as many servers have it; X-Rate-Limit-*, too

What makes no sense is no news. Of several policies the strictest counts: the one of which the least is left.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fetcher.model import RateLimit
from fetcher.retry_after import server_clock
from fetcher.transports.http.wire import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fetcher.model import Header

LONGEST = 86_400.0
"""No reset is later than in so many seconds, whatever a server says."""
_PLAIN = ("RateLimit", "X-RateLimit", "X-Rate-Limit")
# From here on a number of seconds is a time since 1970, and from there on it is in milliseconds.
_EPOCH, _EPOCH_MILLISECONDS = 1e9, 1e12
_NAMES = frozenset({"ratelimit", "x-ratelimit-remaining", "ratelimit-remaining", "x-rate-limit-remaining"})
_MOST_ITEMS = 32
# What is said takes less than a hundred bytes; what is longer is not meant to be read.
_LONGEST_FIELD = 1024
# Nothing in it is gone back over (``*+``), or a hostile answer would take time in the square of its length.
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_ITEM = re.compile(
    rf'\s*+({_QUOTED}|[A-Za-z*][^\s,;="]*+)\s*+((?:;[^,;"]*+(?:{_QUOTED}\s*+)?+)*+)(?:,|$)',
)
_PARAMETER = re.compile(r";\s*([a-z*][a-z0-9_.*-]*)=([0-9]{1,15})(?![0-9.])")
_PAIR = re.compile(r"(?:^|,)\s*(remaining|reset)\s*=\s*([0-9]{1,15})\s*(?=,|$)")
_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{0,9})?)\s*(?:[,;].*)?")


def rate_limit(headers: Sequence[Header], fields: Mapping[str, str]) -> RateLimit | None:
    """Return what is left, None if the answer does not say so. ``fields`` finds headers by their names."""
    # Asked of every answer, most of which have none: the fields of our own parser are found without a call for each.
    if _NAMES.isdisjoint(fields) if type(fields) is Fields else not any(map(fields.get, _NAMES)):
        return None
    return _strictest([*_policies(headers), *_plain(fields, datetime.now(UTC))])


def _strictest(found: Sequence[tuple[int, float]]) -> RateLimit | None:
    if not found:
        return None
    remaining, reset = min(found, key=lambda one: (one[0], -one[1]))
    return RateLimit(remaining, min(LONGEST, max(0.0, reset)))


def _policies(headers: Sequence[Header]) -> Iterator[tuple[int, float]]:
    """Yield what the field ``RateLimit`` says of each policy."""
    text = _combined(headers, "ratelimit")
    if not text:
        return
    pairs = dict(_PAIR.findall(text))
    if "remaining" in pairs and "reset" in pairs:
        yield int(pairs["remaining"]), float(pairs["reset"])
    windows = {name: parameters.get("w") for name, parameters in _items(_combined(headers, "ratelimit-policy"))}
    for name, parameters in _items(text):
        # A policy that does not say when it begins anew does so within its window.
        reset = parameters.get("t", windows.get(name))
        if "r" in parameters and reset is not None:
            yield parameters["r"], float(reset)


def _plain(fields: Mapping[str, str], now: datetime) -> Iterator[tuple[int, float]]:
    """Yield what is said by two fields, one for each number."""
    for name in _PLAIN:
        remaining = _number(fields.get(f"{name}-Remaining"))
        reset = _number(fields.get(f"{name}-Reset"))
        if remaining is not None and reset is not None:
            yield int(remaining), _seconds(reset, now, fields.get("Date"))


def _seconds(reset: float, now: datetime, date: str | None) -> float:
    """Return in how many seconds a reset is that may be a time since 1970, by the clock of the server."""
    if reset < _EPOCH:
        return reset
    return reset / (1000 if reset >= _EPOCH_MILLISECONDS else 1) - server_clock(now, date).timestamp()


def _combined(headers: Sequence[Header], wanted: str) -> str:
    """Return the lines of a field as one list (RFC 9110, section 5.3); nothing if that is too long."""
    text = ",".join(value for name, value in headers if name.lower() == wanted)
    return text if len(text) <= _LONGEST_FIELD else ""


def _items(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the items of a list with their whole numbers (RFC 9651, section 3.1); none behind what is none."""
    at = 0
    for _ in range(_MOST_ITEMS):
        match = _ITEM.match(text, at)
        if match is None or match.end() == at:
            return
        yield match[1].strip('"'), {name: int(value) for name, value in _PARAMETER.findall(match[2])}
        at = match.end()


def _number(text: str | None) -> float | None:
    match = None if text is None or len(text) > _LONGEST_FIELD else _NUMBER.fullmatch(text)
    return None if match is None else float(match[1])
