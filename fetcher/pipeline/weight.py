"""How much memory results take, by what can be large in them: bodies, headers, what inputs and stages bring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fetcher.model import Result

_ITEM = 16  # bytes, about, of what is neither text nor nested


def weight_of(result: Result) -> int:
    """Return about how many bytes a result takes. What all of them have is not counted."""
    weight = 0 if result.body is None else len(result.body)
    for _, value in result.headers or ():
        weight += len(value) + _ITEM
    if result.meta:
        weight += _weight(result.meta)
    if result.extracted:
        weight += _weight(result.extracted)
    return weight


def added(records: Iterable[Result], results: Iterable[Result]) -> int:
    """Return how many bytes records take beside the results that they were made of, and are held with."""
    bodies = {id(result.body) for result in results}
    weight = 0
    for record in records:
        if record.body is not None and id(record.body) not in bodies:
            weight += len(record.body)
        if record.extracted:
            weight += _weight(record.extracted)
    return weight


def _weight(fields: dict[str, Any]) -> int:
    weight = 0
    for value in fields.values():
        if isinstance(value, str | bytes):
            weight += len(value)
        elif isinstance(value, dict | list | tuple):
            weight += len(msgspec.json.encode(value, enc_hook=str))
        else:
            weight += _ITEM
    return weight
