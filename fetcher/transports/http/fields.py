"""Header fields that a request has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import FRAMING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header


def merged(headers: Sequence[Header], defaults: Sequence[Header]) -> list[Header]:
    """Return ``headers``, and those of the defaults that they do not name. Raises FetchError for framing."""
    given = {name.lower() for name, _ in headers}
    # Intake refuses these; a job that comes from elsewhere must not be able to send a second request in its own.
    if not given.isdisjoint(FRAMING):
        framing = ", ".join(sorted(given & FRAMING))
        raise FetchError(ErrorKind.INVALID_ROW, f"header {framing} belongs to the connection", sent=False)
    return [*headers, *((name, value) for name, value in defaults if name.lower() not in given)]
