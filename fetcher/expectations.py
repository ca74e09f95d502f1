"""What an answer has to be to count as ``ok``."""

from __future__ import annotations

from fetcher.settings import Settings


class ExpectSettings(Settings):
    """What an answer has to be to count as ``ok``."""
