"""Whether a job is tried again, and when. A pure decision: time and chance are passed in."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec
from pydantic import Field

from fetcher.errors import ErrorKind
from fetcher.model import IDEMPOTENT
from fetcher.settings import Duration, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

TRANSIENT = (
    ErrorKind.DNS_FAILURE,
    ErrorKind.CONNECT_REFUSED,
    ErrorKind.CONNECT_TIMEOUT,
    ErrorKind.CONNECT_FAILED,
    ErrorKind.CONNECTION_RESET,
    ErrorKind.SERVER_DISCONNECTED,
    ErrorKind.TLS_TIMEOUT,
    ErrorKind.PROXY_UNREACHABLE,
    ErrorKind.PROXY_REFUSED,
    ErrorKind.AUTH_FAILED,
    ErrorKind.BODY_INCOMPLETE,
    ErrorKind.READ_TIMEOUT,
    ErrorKind.TOTAL_TIMEOUT,
)

_MOST_SKEW = 86_400.0
# How much thinner retries are spread that a host has no budget for.
_SPREAD = 8


class RetrySettings(Settings):
    """Which failures are tried again, how often, and for how long."""

    attempts: int = Field(default=4, ge=1, le=100)
    """Tries of one job, the first included; 1 means no retries."""
    backoff: Duration = 0.5
    """The first delay is drawn from 0 to this, the second from 0 to twice this, and so on (full jitter)."""
    max_backoff: Duration = 30.0
    """No drawn delay is longer."""
    statuses: frozenset[int] = frozenset({429, 500, 502, 503, 504})
    """Response statuses that are tried again."""
    errors: frozenset[ErrorKind] = frozenset(TRANSIENT)
    """Error kinds that are tried again."""
    methods: frozenset[str] = IDEMPOTENT
    """Methods that may be sent again after bytes of the request had left."""
    max_retry_after: Duration = 120.0
    """A Retry-After of a server is followed up to this; a longer one is cut to it."""
    deadline: Duration = 300.0
    """A job that has not ended this long after its first attempt began is not tried again."""


class Attempt(msgspec.Struct, frozen=True):
    """One attempt that did not end well. ``number`` counts from 1; ``age`` is in seconds since the first began."""

    number: int
    age: float
    method: str
    status: int | None = None
    kind: ErrorKind | None = None
    sent: bool = True
    retry_after: float | None = None


class Retry(msgspec.Struct, frozen=True):
    """Try again after ``delay`` seconds."""

    delay: float


def host_rest(policy: RetrySettings, attempt: Attempt) -> float | None:
    """Return for how many seconds the whole host asked to be left alone, whether or not this job is tried again."""
    return None if attempt.retry_after is None else min(attempt.retry_after, policy.max_retry_after)


def decide(
    policy: RetrySettings, attempt: Attempt, random: Callable[[], float], *, spread: bool = False
) -> Retry | None:
    """Return in how many seconds to try again, or None if the attempt was the last.

    The delay is "full jitter": uniform between 0 and an exponentially growing bound, which spreads out jobs that
    failed together (Brooker, "Exponential Backoff And Jitter", 2015). A Retry-After is the least that is waited.

    ``spread``: the host is being asked for too many retries, so the delay is drawn from a bound several times as long.
    That alone never takes a job past its deadline.
    """
    if attempt.number >= policy.attempts or not _retryable(policy, attempt):
        return None
    # 2**n with a large n would overflow a float long before it matters.
    bound = min(policy.max_backoff, policy.backoff * 2 ** min(attempt.number - 1, 30))
    chance, least = random(), host_rest(policy, attempt) or 0.0
    delay = bound * chance + least
    if attempt.age + delay > policy.deadline:
        return None
    if spread:
        longer = min(policy.max_backoff, bound * _SPREAD) * chance + least
        delay = max(delay, min(longer, policy.deadline - attempt.age))
    return Retry(delay)


def _retryable(policy: RetrySettings, attempt: Attempt) -> bool:
    if attempt.sent and attempt.method not in policy.methods:
        return False
    if attempt.kind is not None and attempt.kind in policy.errors:
        return True
    return attempt.status is not None and attempt.status in policy.statuses


def parse_retry_after(value: str | None, now: datetime, date: str | None = None) -> float | None:
    """Read a Retry-After header in either form (RFC 9110, section 10.2.3) as seconds from ``now``.

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
    theirs = _parse_date(date or "")
    sane = theirs is not None and abs((theirs - now).total_seconds()) <= _MOST_SKEW
    return max(0.0, (when - (theirs if theirs is not None and sane else now)).total_seconds())


def _parse_date(value: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when
