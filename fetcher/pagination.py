"""Which page comes after an answer."""

from __future__ import annotations

from fetcher.settings import Settings


class PaginationSettings(Settings):
    """How the next page of an answer is found."""
