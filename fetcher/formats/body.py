"""Bodies alone, as they came: what a program reads that wants the answer and no record of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Result


class BodyFormatConfig(Settings):
    """The bodies alone, one after another; of records without a body there is nothing."""

    type: Literal["body"] = "body"

    def build(self) -> BodyFormat:
        """Return the format."""
        return BodyFormat()


class BodyFormat:
    """Writes the bytes of bodies that are in records."""

    def begin(self) -> bytes:
        """Return nothing: the format has no header."""
        return b""

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return the bodies, one after another."""
        return b"".join(result.body or b"" for result in results)
