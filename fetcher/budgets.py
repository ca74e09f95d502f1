"""Budgets: how many requests may begin in any window of a second, a minute, an hour or a day, as a config says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALLOWANCE = re.compile(r"\s*([1-9][0-9]{0,8})\s*/\s*(s|m|min|h|d)\s*", re.IGNORECASE)
_SHOWN = 60
_FEW = 3
_PERIODS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_UNITS = {1.0: "s", 60.0: "m", 3600.0: "h", 86_400.0: "d"}


@dataclass(frozen=True)
class Allowance:
    """``count`` requests in any ``period`` of so many seconds, wherever that begins."""

    count: int
    period: float

    def __str__(self) -> str:
        return f"{self.count}/{_UNITS.get(self.period, f'{self.period:g} s')}"


@dataclass(frozen=True)
class BudgetRule:
    """What requests to some hosts have to keep to together.

    ``identity`` says whose budget it is, and nothing about the secret that it was made of: rules of the same one share
    it. ``hosts`` are names or patterns, for any port; ``some_ports`` of those that are meant for certain ports alone.
    """

    identity: str
    hosts: Sequence[str]
    some_ports: Sequence[str] = ()
    budget: tuple[Allowance, ...] = ()


def parse_budget(value: Any) -> tuple[Allowance, ...]:
    """Read a list of texts such as ``10/s``, or a single one."""
    texts = value if isinstance(value, list | tuple) else [value]
    found = [text if isinstance(text, Allowance) else _parsed(text) for text in texts]
    if wrong := [text for text, allowance in zip(texts, found, strict=True) if allowance is None]:
        named = " and ".join(map(_shown, wrong[:_FEW]))
        words = "budgets are whole numbers of requests over s, m, h or d, such as [10/s, 600/m, 50000/d]"
        raise PydanticCustomError("budget", "{words}", {"words": f"has {named}; {words}"})
    return tuple(allowance for allowance in found if allowance is not None)


def _parsed(text: object) -> Allowance | None:
    match = _ALLOWANCE.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else Allowance(int(match[1]), _PERIODS[match[2].lower()])


def _shown(value: object) -> str:
    """Return what was written, or what kind of thing it is."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    return "nothing" if value is None else repr(value if not isinstance(value, str) else value[:_SHOWN])


_TEXT = {"type": "string", "pattern": r"^\s*[1-9][0-9]{0,8}\s*/\s*(s|m|min|h|d)\s*$"}
Budget = Annotated[
    tuple[Allowance, ...],
    BeforeValidator(parse_budget),
    PlainSerializer(lambda budget: [str(allowance) for allowance in budget], return_type=list[str]),
    WithJsonSchema({"anyOf": [{"type": "array", "items": _TEXT}, _TEXT], "examples": [["10/s", "600/m", "50000/d"]]}),
]
"""Allowances that all hold at once."""
