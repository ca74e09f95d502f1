"""Header fields: which a request has, and which of a response can be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fetcher.errors import ErrorKind, FetchError
from fetcher.intake import FRAMING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header

_ESCAPED = re.compile("[\ud800-\udfff]")


def merged(headers: Sequence[Header], defaults: Sequence[Header]) -> list[Header]:
    """Return ``headers``, and those of the defaults that they do not name. Raises FetchError for framing."""
    given = {name.lower() for name, _ in headers}
    # Intake refuses these; a job that comes from elsewhere must not be able to send a second request in its own.
    if not given.isdisjoint(FRAMING):
        framing = ", ".join(sorted(given & FRAMING))
        raise FetchError(ErrorKind.INVALID_ROW, f"header {framing} belongs to the connection", sent=False)
    return [*headers, *((name, value) for name, value in defaults if name.lower() not in given)]


def printable(value: str | None) -> str | None:
    """Return a header value that can be encoded: bytes that are not UTF-8 become ISO-8859-1."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("latin-1") if _ESCAPED.search(value) else value
