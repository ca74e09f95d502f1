"""Where a redirect leads, and what is sent there (RFC 9110, section 15.4)."""

from __future__ import annotations

from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.intake import make_job
from fetcher.transports.http.exchange import Hop

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER = 303
# Before RFC 7231 these were read as 303 by most clients when they answered a POST; servers count on it.
_TURN_POST_INTO_GET = frozenset({301, 302})
# What tells an origin who we are is not told to another.
_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})
# Describes a body; goes when the body goes.
_OF_BODY = frozenset({"content-type", "content-encoding", "content-language", "content-location"})


def follow(hop: Hop, status: int, location: str) -> Hop:
    """Return the hop that a redirect asks for. Raises FetchError if it leads nowhere that can be fetched."""
    target = _target(hop.url, status, location)
    method, body, headers = hop.method, hop.body, hop.headers
    if (status == _SEE_OTHER and method != "HEAD") or (status in _TURN_POST_INTO_GET and method == "POST"):
        method, body = "GET", None
        headers = [header for header in headers if header[0].lower() not in _OF_BODY]
    if _origin(target) != _origin(hop.url):
        headers = [header for header in headers if header[0].lower() not in _PRIVATE | {"host"}]
    return Hop(method, target, headers, body, hop.timeout)


def _target(base: str, status: int, location: str) -> str:
    try:
        joined = str(URL(base, encoded=True).join(URL(location.strip())))
    except ValueError as error:
        raise FetchError(ErrorKind.BAD_REDIRECT, f"points to {location[:200]!r}: {error}", status=status) from error
    checked = make_job("", joined)
    if checked.rejected is not None:
        message = f"points to {location[:200]!r}: {checked.rejected.message}"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status)
    return checked.url


def _origin(url: str) -> URL:
    return URL(url, encoded=True).origin()
