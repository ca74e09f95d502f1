"""Tables that forget: bounded in entries, the oldest leaves first."""

from __future__ import annotations

from typing import TypeVar

TABLE_SIZE = 1024

_K = TypeVar("_K")
_V = TypeVar("_V")


def remember(table: dict[_K, _V], key: _K, value: _V, size: int = TABLE_SIZE) -> None:
    """Put `value` into `table`; the oldest entry leaves a full one."""
    if key not in table and len(table) >= size:
        del table[next(iter(table))]
    table[key] = value
