"""The fields of a record by name: which there are, which may be left out, and records without those.

Every record keeps what says of which job it is and how that ended: without it, nothing could be accounted for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.errors import suggestion
from fetcher.model import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

FIELDS = tuple(field.name for field in msgspec.structs.fields(Result))
KEPT = frozenset({"schema_version", *(field.name for field in msgspec.structs.fields(Result) if field.required)})
"""The fields that every record has."""
MAPPINGS = ("extracted", "meta")
"""The fields whose values have names of their own, by which they can be columns: ``extracted.price``."""
OPTIONAL = tuple(name for name in FIELDS if name not in KEPT)


def known_field(name: str) -> str:
    """Return a name if a record has such a field. Raises ValueError with the name that may have been meant."""
    if name not in FIELDS:
        raise ValueError(f"a record has no field {name[:60]!r}{suggestion(name, FIELDS)}")
    return name


def _field(name: str) -> str:
    try:
        return known_field(name)
    except ValueError as error:
        raise PydanticCustomError("field", "{words}", {"words": str(error)}) from None


def _droppable(name: str) -> str:
    if _field(name) in KEPT:
        words = f"{name} stays in every record, as do {', '.join(sorted(KEPT - {name}))}"
        raise PydanticCustomError("field", "{words}", {"words": words})
    return name


FieldName = Annotated[str, AfterValidator(_field), Field(json_schema_extra={"enum": list(FIELDS)})]
Droppable = Annotated[str, AfterValidator(_droppable), Field(json_schema_extra={"enum": list(OPTIONAL)})]


def known_column(name: str) -> str:
    """Return a name if it is that of a field, or like ``extracted.x`` or ``meta.x``. Raises ValueError if it is not."""
    field, dot, key = name.partition(".")
    if field in MAPPINGS and dot:
        if not key:
            raise ValueError(f"{name!r} has no name behind the dot; write {field}.name")
        return name
    return known_field(name)


def known_columns(names: Sequence[str]) -> Sequence[str]:
    """Return the names of columns. Raises PydanticCustomError for one that no record has, or that comes twice."""
    for name in names:
        try:
            known_column(name)
        except ValueError as error:
            raise PydanticCustomError("column", "{words}", {"words": str(error)}) from None
    if len(set(names)) < len(names):
        raise PydanticCustomError("column", "has a column twice")
    return names


def reader(name: str) -> Callable[[Result], Any]:
    """Return what reads a column of a record; one of ``extracted.x`` is None where there is no ``x``."""
    field, dot, key = name.partition(".")
    read = attrgetter(field)
    return (lambda result: (read(result) or {}).get(key)) if dot else read


def without(select: Collection[str] | None, drop: Collection[str]) -> Callable[[Result], Result] | None:
    """Return what makes of a record one with only ``select`` and without ``drop``; None if that is the same.

    The record that it is given stays as it is.
    """
    gone: dict[str, Any] = {
        name: None for name in OPTIONAL if name in drop or (select is not None and name not in select)
    }
    return partial(_replaced, gone) if gone else None


def _replaced(gone: dict[str, Any], result: Result) -> Result:
    return msgspec.structs.replace(result, **gone)


def in_utc(moment: datetime) -> datetime:
    """Return a time in UTC; one that has no such, at the ends of the calendar, becomes the nearest that has."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if moment.year == 1 else datetime.max.replace(tzinfo=UTC)
