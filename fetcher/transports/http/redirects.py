"""Where a redirect leads, and what is sent there (RFC 9110, section 15.4)."""

from __future__ import annotations

import string
from urllib.parse import quote

from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.intake import make_job, mask_userinfo
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.fields import printable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER = 303
# Before RFC 7231 these were read as 303 by most clients when they answered a POST; servers count on it.
_TURN_POST_INTO_GET = frozenset({301, 302})
# What tells an origin who we are is not told to another; nor is the name that the first one was called by.
_OF_ORIGIN = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
# Describes a body; goes when the body goes.
_OF_BODY = frozenset({"content-type", "content-encoding", "content-language", "content-location"})
_KEPT = string.punctuation


def follow(hop: Hop, status: int, location: str) -> Hop:
    """Return the hop that a redirect asks for. Raises FetchError if it leads nowhere that can be fetched."""
    target = _target(hop.url, status, location)
    method, body, headers = hop.method, hop.body, hop.headers
    if (status == _SEE_OTHER and method != "HEAD") or (status in _TURN_POST_INTO_GET and method == "POST"):
        method, body = "GET", None
        headers = [header for header in headers if header[0].lower() not in _OF_BODY]
    if _origin(target) != _origin(hop.url):
        headers = [header for header in headers if header[0].lower() not in _OF_ORIGIN]
    return Hop(method, target, headers, body, hop.timeout, hop.lane)


def shown_location(location: str) -> str:
    """Return a Location as it may stand in a record: printable, and without a user and password."""
    return mask_userinfo(printable(location) or "")


def _target(base: str, status: int, location: str) -> str:
    shown = shown_location(location)[:200]
    try:
        joined = str(URL(base, encoded=True).join(_reference(location)))
    except ValueError as error:
        # The message may quote the URL, and with it a password.
        reason = "is not a URL" if "@" in location else str(error)
        message = f"points to {shown!r}: {reason}"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status) from error
    checked = make_job("", joined)
    if checked.rejected is not None:
        message = f"points to {shown!r}: {checked.rejected.message}"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status)
    return checked.url


def _reference(location: str) -> URL:
    """Read a Location, byte for byte where that is possible.

    Whatever is no ASCII character is percent-encoded: bytes that are not UTF-8 as they are, and text (an IRI)
    by yarl, which knows what IDNA makes of a host.
    """
    location = location.strip()
    raw = location.encode("utf-8", "surrogateescape")
    if location.isascii() or printable(location) != location:
        return URL(quote(raw, safe=_KEPT), encoded=True)
    return URL(location)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parsed = URL(url, encoded=True)
    return parsed.scheme, (parsed.raw_host or "").lower(), parsed.port
