"""Where a redirect leads, and what is sent there (RFC 9110, section 15.4).

Only a 3xx status with a Location is one. A page that refreshes itself (``Refresh``, ``<meta http-equiv>``) is a page.

A user and password in a Location are dropped: who answers does not decide as whom we speak. A ``Referer`` is never
added. What belongs to an origin is taken off on the way to another and is not put on again on the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import mask_userinfo, may_have_userinfo
from fetcher.references import OF_ORIGIN, BadReferenceError, is_private, origin_of, private_names, resolved, shown
from fetcher.transports.http.exchange import Hop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header
    from fetcher.settings import RequestSettings

REDIRECTS = frozenset({301, 302, 303, 307, 308})
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
    return RedirectPolicy(request.max_redirects, private_names(request), request.downgrade == "follow")


def follow(hop: Hop, status: int, location: str, policy: RedirectPolicy = _USUAL) -> RedirectedHop:
    """Return the hop that a redirect asks for. Raises FetchError if it leads nowhere that may be fetched."""
    target = _target(hop.url, status, location)
    if not policy.downgrade and hop.url.startswith("https:") and not target.startswith("https:"):
        named = shown(location)[:200]
        message = f"points from https to {named!r}, which request.downgrade: refuse does not allow"
        raise FetchError(ErrorKind.BAD_REDIRECT, message, status=status)
    method, body, headers, upload = hop.method, hop.body, hop.headers, hop.upload
    if (status == _SEE_OTHER and method != "HEAD") or (status in _TURN_POST_INTO_GET and method == "POST"):
        method, body, upload = "GET", None, None
        headers = [header for header in headers if header[0].lower() not in _OF_BODY]
    if origin_of(target) != origin_of(hop.url):
        headers = [header for header in headers if not is_private(header, policy.private)]
    first = hop.first if isinstance(hop, RedirectedHop) else hop.url
    return RedirectedHop(method, target, headers, body, hop.timeout, hop.lane, upload, first=first)


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


def _target(base: str, status: int, location: str) -> str:
    try:
        return resolved(base, location, "a redirect").url
    except BadReferenceError as error:
        raise FetchError(ErrorKind.BAD_REDIRECT, str(error), status=status) from None
