"""What the end of an attempt says about its host, as opposed to the page that was asked for. Pure.

After redirects it was another host that answered last, or did not. It is that host which is in trouble; the first one
has answered. A refusal is said about both: the requests that were too many came about through jobs of the first, and
nothing but asking that one for less makes them fewer.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from fetcher.errors import ErrorKind

if TYPE_CHECKING:
    from fetcher.engine.retry import Attempt
    from fetcher.model import Job, Result

_TOO_MANY_REQUESTS = 429
_SERVICE_UNAVAILABLE = 503


class Sign(Enum):
    """How a host is, as far as one attempt tells."""

    NOTHING = "nothing"
    """What failed was ours, or a third party's: a proxy, a deadline, a policy."""
    ANSWERED = "answered"
    """The host is there and keeps up. The page may still be a 404, or broken: that is its own matter.

    So may be a 500, 502 or 504. One application behind a host fails while others work, and each such answer is a
    record that somebody wants; to pause the host for them would delay and in the end drop answers that it gives.
    """
    REFUSED = "refused"
    """The host says in so many words that it is asked too much: 429, or any failure with Retry-After."""
    PRESSED = "pressed"
    """The host answers that it can not keep up, without saying why: 503."""
    LOST = "lost"
    """No answer, and too much load may be the reason: the connection timed out, was reset, or fell silent."""
    DOWN = "down"
    """No answer, and load is not the reason: no address, nobody listens, no TLS."""


_SIGNS = {
    ErrorKind.CONNECT_TIMEOUT: Sign.LOST,
    ErrorKind.CONNECTION_RESET: Sign.LOST,
    ErrorKind.SERVER_DISCONNECTED: Sign.LOST,
    ErrorKind.READ_TIMEOUT: Sign.LOST,
    ErrorKind.TLS_TIMEOUT: Sign.LOST,
    ErrorKind.CONNECT_REFUSED: Sign.DOWN,
    ErrorKind.CONNECT_FAILED: Sign.DOWN,
    ErrorKind.DNS_FAILURE: Sign.DOWN,
    ErrorKind.DNS_NOT_FOUND: Sign.DOWN,
    ErrorKind.TLS_EXPIRED: Sign.DOWN,
    ErrorKind.TLS_SELF_SIGNED: Sign.DOWN,
    ErrorKind.TLS_HOSTNAME: Sign.DOWN,
    ErrorKind.TLS_UNTRUSTED: Sign.DOWN,
    ErrorKind.TLS_PROTOCOL: Sign.DOWN,
}
# Whoever caused it has to ask for less.
_LOAD = frozenset({Sign.REFUSED, Sign.PRESSED})
TROUBLE = _LOAD | {Sign.LOST}
# Kinds without a status that only come about once the host has answered something.
_ANSWERS = frozenset(
    {
        ErrorKind.BAD_HTTP,
        ErrorKind.NOT_HTTP,
        ErrorKind.HEADERS_TOO_LARGE,
        ErrorKind.BODY_INCOMPLETE,
        ErrorKind.BODY_TOO_LARGE,
        ErrorKind.BAD_ENCODING,
        ErrorKind.CHECKSUM_MISMATCH,
        ErrorKind.BAD_REDIRECT,
        ErrorKind.TOO_MANY_REDIRECTS,
        ErrorKind.TOO_SLOW,
        ErrorKind.FTP_4XX,
        ErrorKind.FTP_5XX,
        ErrorKind.BAD_ANSWER,
        ErrorKind.UNEXPECTED,
        ErrorKind.BAD_PAGINATION,
    }
)


def sign_of(attempt: Attempt, *, redirected: bool) -> Sign:
    """Return what an attempt that did not end well says about the host that was asked last.

    ``redirected``: say it about the host of the job instead, which had answered with a redirect to that one.
    """
    sign = _last(attempt)
    return Sign.ANSWERED if redirected and sign not in _LOAD else sign


def _last(attempt: Attempt) -> Sign:
    if attempt.kind is ErrorKind.UNEXPECTED:
        return Sign.ANSWERED  # by a status that was well, so that a Retry-After is about what was asked for
    if attempt.status == _TOO_MANY_REQUESTS or attempt.retry_after is not None:
        return Sign.REFUSED
    if attempt.status == _SERVICE_UNAVAILABLE:
        return Sign.PRESSED
    found = _SIGNS.get(attempt.kind, Sign.NOTHING) if attempt.kind is not None else Sign.NOTHING
    if found is Sign.NOTHING and (attempt.status is not None or attempt.kind in _ANSWERS):
        return Sign.ANSWERED
    return found


def last_url(result: Result) -> str | None:
    """Return the URL that redirects have led to, None if there were none."""
    if not result.redirects:
        return None
    # Of one that did not answer only the way there is known.
    return result.final_url or urljoin(result.redirects[-1].url, result.redirects[-1].location)


def asked_last(result: Result, job: Job) -> str:
    """Return the name of the host that was asked last: where redirects have led to."""
    url = last_url(result)
    return job.host if url is None else urlsplit(url).hostname or job.host
