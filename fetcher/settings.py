"""What the sections of a config are made of: the strict base class, human units, and what all transports share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A section of a config. Unknown keys are refused; values do not change once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True)


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1}
_BYTES |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}
_BYTES |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _quantity(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    """Read ``10s`` or ``32MiB``; None if it is neither."""
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()]


def parse_duration(value: object) -> object:
    """Turn ``10s``, ``250ms``, ``5m``, ``1h`` into seconds; a bare number is seconds already."""
    if _is_number(value):
        return value
    seconds = _quantity(value, _SECONDS)
    if seconds is None:
        raise PydanticCustomError("duration", "should be a duration such as 10s, 250ms, 5m or 1h")
    return seconds


def parse_size(value: object) -> object:
    """Turn ``32MiB`` or ``10kB`` into bytes; a bare number is bytes already."""
    if _is_number(value):
        return value
    size = _quantity(value, _BYTES)
    if size is None:
        raise PydanticCustomError("size", "should be a size such as 10MiB, 500kB or 1GiB")
    return int(size)


def parse_rate(value: object) -> object:
    """Turn ``10/s``, ``100/m`` or ``5000/h`` into a number per second; a bare number is per second already."""
    if _is_number(value) or value is None:
        return value
    count, slash, unit = value.partition("/") if isinstance(value, str) else ("", "", "")
    period = _SECONDS.get(unit.strip().lower())
    try:
        if slash and period:
            return float(count) / period
    except ValueError:
        pass
    raise PydanticCustomError("rate", "should be a rate such as 10/s, 100/m or 5000/h")


def _schema(pattern: str, example: str) -> WithJsonSchema:
    schema: dict[str, Any] = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}]}
    return WithJsonSchema({**schema, "examples": [example]})


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, allow_inf_nan=False),
    _schema(r"^\d+(\.\d+)?\s*(ms|s|m|min|h|d)$", "10s"),
]
ByteSize = Annotated[
    int, BeforeValidator(parse_size), Field(ge=0), _schema(r"^\d+(\.\d+)?\s*([kKmMgGtT]?i?[bB])?$", "10MiB")
]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    Field(gt=0, allow_inf_nan=False),
    _schema(r"^\d+(\.\d+)?/(ms|s|m|min|h|d)$", "10/s"),
]


class TimeoutSettings(Settings):
    """How long each phase of one attempt may take."""

    connect: Duration = 10.0
    """Name resolution, TCP and TLS together."""
    read: Duration = 30.0
    """The longest silence while waiting for the head or the body."""
    total: Duration = 60.0
    """One attempt from its start to the last byte, over all redirects."""


class RequestSettings(Settings):
    """What every request of a batch has unless its job says otherwise."""

    method: str = Field(default="GET", pattern=r"^[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*$")
    headers: dict[str, str] = {}
    timeout: TimeoutSettings = TimeoutSettings()
    max_redirects: int = Field(default=5, ge=0, le=100)
    """0 means that redirects are not followed."""


class BodySettings(Settings):
    """What becomes of response bodies."""

    store: Literal["none", "inline"] = "inline"
    """``none`` reads and hashes a body and keeps its size; ``inline`` puts it into the record as well."""
    max_size: ByteSize = 10 * 1024 * 1024
    """Decoded bytes; a longer body is handled as ``overflow`` says."""
    overflow: Literal["truncate", "fail"] = "fail"
    """``truncate`` keeps the first ``max_size`` bytes and marks the record; ``fail`` is kind ``body_too_large``."""
