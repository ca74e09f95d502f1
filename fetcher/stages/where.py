"""Only records that fulfil a condition go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fetcher.conditions import Condition, ConditionText
from fetcher.settings import Settings

if TYPE_CHECKING:
    from fetcher.model import Result


class WhereConfig(Settings):
    """Records that do not fulfil a condition are dropped; their jobs count as they ended."""

    type: Literal["where"] = "where"
    expr: ConditionText
    """A condition over the fields of a record, such as `status == 200 and 'html' in content_type`."""

    def build(self) -> WhereStage:
        """Return the stage."""
        return WhereStage(self.expr)


class WhereStage:
    """Drops what does not fulfil the condition."""

    concurrency = 0

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def check(self) -> None:
        """Find nothing: the condition was read with the config."""

    def apply(self, result: Result) -> Result | None:
        """Return the record, or None."""
        return result if self._condition(result) else None
