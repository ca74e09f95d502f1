"""JSON Lines: one record a line, UTF-8, fields that are null left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fetcher.formats.compression import Compression, compressed
from fetcher.formats.records import json_lines
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

SUFFIXES = (".jsonl", ".ndjson")


class JsonlConfig(Settings):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"
    compression: Compression = "none"
    """By default, what the suffix of the output's path says: ``.gz`` or ``.zst``."""

    def build(self) -> Format:
        """Return the format."""
        return compressed(JsonlFormat(), self.compression)


class JsonlFormat:
    """Encodes a result as DESIGN's record; a body is text where it is UTF-8, and base64 where it is not."""

    def begin(self) -> bytes:
        """Return nothing: the format has no header."""
        return b""

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return a line for each result."""
        return json_lines(results)
