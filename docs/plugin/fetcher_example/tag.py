"""A stage that marks records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from fetcher.settings import Settings

if TYPE_CHECKING:
    from fetcher.model import Result


class TagConfig(Settings):
    """Records get a tag in their meta."""

    type: Literal["tag"] = "tag"
    tag: str
    """The tag."""

    def build(self) -> TagStage:
        """Return the stage."""
        return TagStage(self.tag)


class TagStage:
    """Adds the tag."""

    concurrency = 0

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def check(self) -> None:
        """Find nothing: it needs nothing."""

    def apply(self, result: Result) -> Result:
        """Return a copy with the tag: the given record must not be changed."""
        return msgspec.structs.replace(result, meta=(result.meta or {}) | {"tag": self._tag})
