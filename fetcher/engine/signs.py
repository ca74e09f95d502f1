"""What the end of an attempt says about its host, as opposed to the page that was asked for. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from fetcher.errors import ErrorKind

if TYPE_CHECKING:
    from fetcher.engine.retry import Attempt

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
    """The host says in so many words that it is asked too much: 429, or any answer with Retry-After."""
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
    }
)


def sign_of(attempt: Attempt, *, redirected: bool) -> Sign:
    """Return what an attempt that did not end well says about the host of its job.

    ``redirected``: the host had answered with a redirect, so whatever failed after that is somebody else's.
    """
    if redirected:
        return Sign.ANSWERED
    if attempt.status == _TOO_MANY_REQUESTS or attempt.retry_after is not None:
        return Sign.REFUSED
    if attempt.status == _SERVICE_UNAVAILABLE:
        return Sign.PRESSED
    found = _SIGNS.get(attempt.kind, Sign.NOTHING) if attempt.kind is not None else Sign.NOTHING
    if found is Sign.NOTHING and (attempt.status is not None or attempt.kind in _ANSWERS):
        return Sign.ANSWERED
    return found
