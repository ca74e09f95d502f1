"""Records with fewer fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fetcher.fields import Droppable, FieldName, without
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Result


class SelectConfig(Settings):
    """Records keep some fields only; those that say which job it is and how it ended stay in any case."""

    type: Literal["select"] = "select"
    fields: list[FieldName] | None = None
    """The fields to keep; by default all."""
    drop: tuple[Droppable, ...] = ()
    """The fields to leave out."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.fields is None and not self.drop:
            raise PydanticCustomError("select", "has neither fields to keep nor fields to drop")
        return self

    def build(self) -> SelectStage:
        """Return the stage."""
        return SelectStage(without(self.fields, self.drop))


class SelectStage:
    """Leaves fields out."""

    concurrency = 0

    def __init__(self, reshape: Callable[[Result], Result] | None) -> None:
        self._reshape = reshape

    def check(self) -> None:
        """Find nothing: the names were looked up with the config."""

    def apply(self, result: Result) -> Result:
        """Return a record without the fields."""
        return result if self._reshape is None else self._reshape(result)
