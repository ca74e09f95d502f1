"""Bodies as text, whatever charset they came in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fetcher.answers.contents import body_of, text_of
from fetcher.settings import Settings

if TYPE_CHECKING:
    from fetcher.model import Result


class DecodeConfig(Settings):
    """``extracted`` gets the body as ``text``, its ``charset``, and ``lossy`` if something could not be read.

    Which charset it is, a byte order mark says, or the Content-Type, or the page itself.
    """

    type: Literal["decode"] = "decode"
    keep_body: bool = True
    """Whether the record keeps the bytes, too."""

    def build(self) -> DecodeStage:
        """Return the stage."""
        return DecodeStage(keep_body=self.keep_body)


class DecodeStage:
    """Reads bodies as text."""

    concurrency = 0

    def __init__(self, *, keep_body: bool = True) -> None:
        self._keep_body = keep_body

    def check(self) -> None:
        """Find nothing: all it needs is there."""

    def apply(self, result: Result) -> Result:
        """Return the record with the text of its body, or as it is if it has none."""
        body = body_of(result)
        if body is None:
            return result
        text = text_of(body, result.content_type)
        found: dict[str, Any] = {"text": text.text, "charset": text.charset}
        if text.lossy:
            found["lossy"] = True
        changed = msgspec.structs.replace(result, extracted=(result.extracted or {}) | found)
        if not self._keep_body:
            changed.body = None
        return changed
