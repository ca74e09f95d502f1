"""Whether a job is tried again, and when. A pure decision: time and chance are passed in."""

from __future__ import annotations

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
    ErrorKind.BODY_INCOMPLETE,
    ErrorKind.FTP_4XX,
    ErrorKind.READ_TIMEOUT,
    ErrorKind.TOTAL_TIMEOUT,
)

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
    """One attempt that did not end well. ``number`` counts from 1; ``age`` is in seconds since the first began.

    ``postpone``: it could not even begin, and may in so many seconds (`fetcher.engine.postponing`).
    """

    number: int
    age: float
    method: str
    status: int | None = None
    kind: ErrorKind | None = None
    sent: bool = True
    retry_after: float | None = None
    postpone: float | None = None


class Retry(msgspec.Struct, frozen=True):
    """Try again after ``delay`` seconds."""

    delay: float


def host_rest(policy: RetrySettings, attempt: Attempt) -> float | None:
    """Return for how many seconds the whole host asked to be left alone, whether or not this job is tried again."""
    # An answer that was not the one that was expected is about what was asked for, as in 202: not ready yet.
    return None if attempt.kind is ErrorKind.UNEXPECTED else _least(policy, attempt)


def _least(policy: RetrySettings, attempt: Attempt) -> float | None:
    """Return the seconds before which this job is not to be tried again."""
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
    chance, least = random(), _least(policy, attempt) or 0.0
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
    if attempt.kind is ErrorKind.UNEXPECTED:
        return False  # its status was well, whatever that is
    return attempt.status is not None and attempt.status in policy.statuses
