"""What a table has to hold of a record: ``fetcher.sinks.columns`` seen from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.sinks.columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fetcher.model import Result


def expected(result: Result, text: Callable[[str], str]) -> dict[str, Any]:
    """Return a record by column, JSON as values; ``text`` says what becomes of texts."""
    found = {}
    for column in COLUMNS:
        value = getattr(result, column.name)
        if column.kind == "json":
            value = _changed(text, msgspec.to_builtins(value))
        elif column.kind == "text" and value is not None:
            value = text(str(value))
        found[column.name] = value
    return found


def _changed(text: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(name): _changed(text, item) for name, item in value.items()}
    return [_changed(text, item) for item in value] if isinstance(value, list | tuple) else value


def stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row by column, JSON as values."""
    json_columns = {column.name for column in COLUMNS if column.kind == "json"}
    return {
        name: json.loads(value) if name in json_columns and value is not None else value for name, value in row.items()
    }
