"""Going on with a download where it stopped: pure decisions about ranges (RFC 9110, sections 13.1.5 and 14).

Two halves make a body only if both are of one version. So a partial body is only kept together with a validator that
changes with every byte, is only continued under ``If-Range``, and what answers has to begin where it was asked to. Nor
do two halves belong together of which only one is known to come from the server.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fetcher.model import Header
    from fetcher.transports.http.exchange import Answer, Hop

OK = 200
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)", re.IGNORECASE)
# Of the characters that a tag may have, those that are read and written alike everywhere.
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]*"')
# A date counts to the second. How much earlier than the answer it has to be so that nothing can have changed
# unseen: a minute also covers two clocks that do not agree.
_SETTLED = 60.0
_OWN_RANGES = frozenset({"range", "if-range"})


class Partial(msgspec.Struct):
    """The beginning of a body: ``size`` bytes of ``url``, ``total`` if that is known, of the version ``validator``.

    ``verified`` is False if whoever sent it may have been anybody; so is one that was kept before this was noted.
    """

    url: str
    validator: str
    total: int | None = None
    size: int = 0
    verified: bool = False

    def resume_at(self) -> int:
        """Return the offset to go on at: where it stopped, or the last byte again if there may be no more.

        A range that begins behind the end is answered by 416, which does not say whether the version is still the
        same; the last byte is answered like any other.
        """
        return self.size if self.total is not None and self.size < self.total else self.size - 1


def may_resume(hop: Hop) -> bool:
    """Tell whether this is a request whose answer can come in parts, and in which nobody else asks for some."""
    return hop.method == "GET" and hop.body is None and not any(name.lower() in _OWN_RANGES for name, _ in hop.headers)


def range_headers(partial: Partial) -> list[Header]:
    """Return what asks for the rest, or for all of it if it has changed."""
    return [("Range", f"bytes={partial.resume_at()}-"), ("If-Range", partial.validator)]


def beginning(answer: Answer, url: str, *, verified: bool) -> Partial | None:
    """Return what is to be kept of a whole answer that breaks off, or None if it could not be gone on with."""
    fields = answer.fields
    unranged = fields.get("Accept-Ranges", "").lower() == "none"
    if answer.status != OK or unranged or fields.get("Content-Encoding") is not None:
        return None
    validator = _validator(fields)
    return None if validator is None else Partial(url, validator, _length(fields), verified=verified)


def continued(answer: Answer, partial: Partial) -> Partial | None:
    """Return what a 206 goes on with, its total made known; None if it is not what was asked for."""
    fields = answer.fields
    found = _CONTENT_RANGE.fullmatch(fields.get("Content-Range", "").strip())
    if found is None or fields.get("Content-Encoding") is not None:
        return None
    first, last, total = int(found[1]), int(found[2]), int(found[3]) if found[3] else None
    known = partial.total if partial.total is not None else total
    # Without a total nothing would tell whether the end of this part is that of the body.
    if known is None or first != partial.resume_at() or not first <= last < known or total not in {None, known}:
        return None
    length = _length(fields)
    if _changed(fields, partial.validator) or (length is not None and length != last - first + 1):
        return None
    return Partial(partial.url, partial.validator, known, partial.resume_at(), partial.verified)


def _changed(fields: Mapping[str, str], validator: str) -> bool:
    """Tell whether an answer says that it is of another version; what ignores ``If-Range`` may still say so.

    Of a body that has a date for its validator there was no tag, so one with any tag is another.
    """
    tag, modified = fields.get("ETag"), fields.get("Last-Modified")
    if tag is not None and tag.strip() != validator:
        return True
    dated = not validator.startswith('"')
    return dated and modified is not None and modified.strip() != validator


def _validator(fields: Mapping[str, str]) -> str | None:
    """Return what If-Range may be: a strong entity tag, or without any tag a date that is one (section 13.1.5)."""
    tag = fields.get("ETag")
    if tag is not None:
        return tag.strip() if _STRONG_TAG.fullmatch(tag.strip()) else None
    modified, answered = fields.get("Last-Modified", ""), fields.get("Date", "")
    changed_at, now = _date(modified), _date(answered)
    settled = changed_at is not None and now is not None and (now - changed_at).total_seconds() >= _SETTLED
    return modified.strip() if settled and modified.isascii() else None


def _date(value: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # Without a zone it is no HTTP date, and could not be compared with one.
    return when if when.tzinfo is not None else None


def _length(fields: Mapping[str, str]) -> int | None:
    value = fields.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None  # noqa: PLR2004
