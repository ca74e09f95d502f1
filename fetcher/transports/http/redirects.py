"""Where a redirect leads, and what is sent there (RFC 9110, section 15.4).

Only a 3xx status with a Location is one. A page that refreshes itself (``Refresh``, ``<meta http-equiv>``) is a page.

A user and password in a Location are dropped: who answers does not decide as whom we speak. A ``Referer`` is never
added. What belongs to an origin is taken off on the way to another and is not put on again on the way back.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.intake import check_host, make_job, mask_userinfo, may_have_userinfo
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.fields import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header
    from fetcher.settings import RequestSettings

REDIRECTS = frozenset({301, 302, 303, 307, 308})
OF_ORIGIN = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
"""What tells an origin who we are is not told to another; nor is the name that the first one was called by."""
_SEE_OTHER = 303
# Before RFC 7231 these were read as 303 by most clients when they answered a POST; servers count on it.
_TURN_POST_INTO_GET = frozenset({301, 302})
# Describes a body; goes when the body goes.
_OF_BODY = frozenset(
    {
        "content-type",
        "content-encoding",
        "content-language",
        "content-location",
        "content-digest",
        "repr-digest",
        "digest",
        "last-modified",
    }
)
_KEPT = string.punctuation
# What else can be fetched is never asked for by a server.
_SCHEMES = frozenset({"http", "https"})


class RedirectedHop(Hop, kw_only=True):
    """A hop that an answer asked for. ``first`` is the URL of the job's own, the one before all redirects."""

    first: str


class RedirectPolicy(msgspec.Struct, frozen=True):
    """How far redirects are followed: ``most`` hops of one fetch, and from https to http if ``downgrade`` is True.

    ``private`` are the headers, in lower case, that only the origin gets for which they were meant.
    """

    most: int = 5
    private: frozenset[str] = OF_ORIGIN
    downgrade: bool = True


_USUAL = RedirectPolicy()


def redirect_policy(request: RequestSettings) -> RedirectPolicy:
    """Return the policy that the section ``request`` of a config asks for."""
    secret = frozenset(name.lower() for name in request.secret_headers)
    return RedirectPolicy(request.max_redirects, OF_ORIGIN | secret, request.downgrade == "follow")


def follow(hop: Hop, status: int, location: str, policy: RedirectPolicy = _USUAL) -> RedirectedHop:
    """Return the hop that a redirect asks for. Raises FetchError if it leads nowhere that may be fetched."""
    target = _target(hop.url, status, location)
    if not policy.downgrade and hop.url.startswith("https:") and not target.startswith("https:"):
        shown = shown_location(location)[:200]
        message = f"points from https to {shown!r}, which request.downgrade: refuse does not allow"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status)
    method, body, headers = hop.method, hop.body, hop.headers
    if (status == _SEE_OTHER and method != "HEAD") or (status in _TURN_POST_INTO_GET and method == "POST"):
        method, body = "GET", None
        headers = [header for header in headers if header[0].lower() not in _OF_BODY]
    if origin_of(target) != origin_of(hop.url):
        headers = [header for header in headers if not _is_private(header, policy)]
    first = hop.first if isinstance(hop, RedirectedHop) else hop.url
    return RedirectedHop(method, target, headers, body, hop.timeout, hop.lane, first=first)


def shown_location(location: str) -> str:
    """Return a Location as it may stand in a record: printable, and without a user and password."""
    return mask_userinfo(printable(location) or "")


def shown_headers(headers: list[Header]) -> list[Header]:
    """Return response headers as they may stand in a record: a Location without a user and password."""
    if not any(name.lower() == "location" and may_have_userinfo(value) for name, value in headers):
        return headers
    return [(name, mask_userinfo(value) if name.lower() == "location" else value) for name, value in headers]


def location_of(headers: Sequence[Header], status: int) -> str:
    """Return the Location as text, with what is not UTF-8 as surrogate escapes.

    Raises FetchError if there are several that differ: another client would go elsewhere.
    """
    found = {value for name, value in headers if name.lower() == "location"}
    if len(found) != 1:
        raise FetchError(ErrorKind.BAD_REDIRECT, "points to several places at once", status=status)
    return found.pop().encode("latin-1").decode("utf-8", "surrogateescape")


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port, in which two URLs are of one origin (RFC 6454)."""
    parsed = URL(url, encoded=True)
    return parsed.scheme, (parsed.raw_host or "").lower(), parsed.port


def _is_private(header: Header, policy: RedirectPolicy) -> bool:
    name, value = header
    name = name.lower()
    # A Referer is the user's own; it may go on, but not with a password (RFC 9110, section 10.1.3).
    return name in policy.private or (name == "referer" and mask_userinfo(value) != value)


def _target(base: str, status: int, location: str) -> str:
    shown = shown_location(location)[:200]
    try:
        joined = str(URL(base, encoded=True).join(_reference(location)))
    except ValueError as error:
        # The message may quote the URL, and with it a password.
        reason = "is not a URL" if may_have_userinfo(location) else str(error)
        message = f"points to {shown!r}: {reason}"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status) from None
    checked = make_job("", joined)
    scheme = checked.url.partition(":")[0]
    reason = f"a redirect to {scheme}: is not followed" if scheme not in _SCHEMES else ""
    if checked.rejected is not None:
        reason = checked.rejected.message
    if reason:
        raise FetchError(ErrorKind.BAD_REDIRECT, f"points to {shown!r}: {reason}", status=status)
    return checked.url


def _reference(location: str) -> URL:
    """Read a Location, byte for byte where that is possible.

    Whatever is no ASCII character is percent-encoded: bytes that are not UTF-8 as they are, and text (an IRI)
    by yarl, which knows what IDNA makes of a host. Raises ValueError.
    """
    location = location.strip()
    raw = location.encode("utf-8", "surrogateescape")
    by_bytes = location.isascii() or printable(location) != location
    reference = URL(quote(raw, safe=_KEPT), encoded=True) if by_bytes else URL(location)
    if reference.scheme in _SCHEMES and not reference.raw_host:
        # It would be joined as a path if the base has the same scheme (RFC 3986, section 5.2.2: not strictly).
        raise ValueError("has no host")
    if reference.raw_host:
        # Joining loses the brackets of what is no IPv6 address, and with them that it was none.
        check_host(reference.raw_host, location)
    return reference
