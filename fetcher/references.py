"""Where a reference that a server gives leads, be it a Location or a link, and what may be sent there.

What is named by a server is http or https, and is checked as every URL of an input is (`fetcher.jobs.intake`). A user
and password in it are dropped: who answers does not decide as whom we speak. What belongs to an origin is not told to
another (RFC 6454; RFC 9110, section 15.4).
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING
from urllib.parse import quote

from yarl import URL

from fetcher.jobs.intake import check_host, make_job, mask_userinfo, may_have_userinfo

if TYPE_CHECKING:
    from fetcher.model import Header, Job
    from fetcher.settings import RequestSettings

OF_ORIGIN = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
"""What tells an origin who we are is not told to another; nor is the name that the first one was called by."""
FOLLOWED = frozenset({"http", "https"})
"""The schemes of what a server may name. What else can be fetched is never asked for by one."""
_KEPT = string.punctuation
_ESCAPED = re.compile("[\ud800-\udfff]")
_SHOWN = 200


class BadReferenceError(ValueError):
    """A reference leads nowhere that may be fetched; the message may stand in a record."""


def resolved(base: str, reference: str, what: str = "a reference") -> Job:
    """Return a job for where a reference leads from ``base``, with nothing but its URL and host.

    What is not UTF-8 in it stands as surrogate escapes. Raises BadReferenceError; ``what`` it is stands in the message.
    """
    why = ""
    try:
        checked = make_job("", str(URL(base, encoded=True).join(_parsed(reference))))
    except ValueError as error:
        # The message may quote the URL, and with it a password.
        why = "is not a URL" if may_have_userinfo(reference) else str(error)
    else:
        scheme = checked.url.partition(":")[0]
        if checked.rejected is not None:
            why = checked.rejected.message
        elif scheme not in FOLLOWED:
            why = f"{what} to {scheme}: is not followed"
    if why:
        raise BadReferenceError(f"points to {shown(reference)[:_SHOWN]!r}: {why}")
    checked.headers = []
    return checked


def shown(reference: str) -> str:
    """Return a reference as it may stand in a record: printable, and without a user and password."""
    return mask_userinfo(printable(reference) or "")


def printable(value: str | None) -> str | None:
    """Return a header value that can be encoded: bytes that are not UTF-8 become ISO-8859-1."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("latin-1") if _ESCAPED.search(value) else value


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port, in which two URLs are of one origin (RFC 6454)."""
    parsed = URL(url, encoded=True)
    return parsed.scheme, (parsed.raw_host or "").lower(), parsed.port


def private_names(request: RequestSettings) -> frozenset[str]:
    """Return the headers, in lower case, that only the origin gets for which they were meant."""
    return OF_ORIGIN | {name.lower() for name in request.secret_headers}


def is_private(header: Header, names: frozenset[str]) -> bool:
    """Tell whether a header is for the origin alone for which it was meant."""
    name, value = header
    name = name.lower()
    # A Referer is the user's own; it may go on, but not with a password (RFC 9110, section 10.1.3).
    return name in names or (name == "referer" and mask_userinfo(value) != value)


def _parsed(reference: str) -> URL:
    """Read a reference, byte for byte where that is possible.

    Whatever is no ASCII character is percent-encoded: bytes that are not UTF-8 as they are, and text (an IRI)
    by yarl, which knows what IDNA makes of a host. Raises ValueError.
    """
    reference = reference.strip()
    raw = reference.encode("utf-8", "surrogateescape")
    by_bytes = reference.isascii() or printable(reference) != reference
    found = URL(quote(raw, safe=_KEPT), encoded=True) if by_bytes else URL(reference)
    if found.scheme in FOLLOWED and not found.raw_host:
        # It would be joined as a path if the base has the same scheme (RFC 3986, section 5.2.2: not strictly).
        raise ValueError("has no host")
    if found.raw_host:
        # Joining loses the brackets of what is no IPv6 address, and with them that it was none.
        check_host(found.raw_host, reference)
    return found
