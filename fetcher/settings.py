"""What the sections of a config are made of: the strict base class, human units, and what all transports share."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from fetcher.files import open_regular
from fetcher.naming import NameTemplate


class Settings(BaseModel):
    """A section of a config. Unknown keys are refused; values do not change once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True)


MOST_PARTS = 1000
"""How many sources, stages or sinks a config has at most."""


def _few(value: object) -> object:
    # pydantic looks at the length of a list behind its items, each of which may be wrong.
    if isinstance(value, list | tuple) and len(value) > MOST_PARTS:
        message = "has {count} items, and at most {most} are taken; many URLs go into a file, or the jobs of one source"
        raise PydanticCustomError("too_many", message, {"count": len(value), "most": MOST_PARTS})
    return value


FEW = BeforeValidator(_few)
"""Marks a list of parts, of which there are a few: one with more than ``MOST_PARTS`` is refused unseen."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1}
_BYTES |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}
_BYTES |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PER_SECOND = re.compile(r"\s*/\s*s\s*$")
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


def parse_speed(value: object) -> object:
    """Turn ``1KiB/s`` into bytes per second; a size alone is per second, too."""
    try:
        return parse_size(_PER_SECOND.sub("", value) if isinstance(value, str) else value)
    except PydanticCustomError:
        raise PydanticCustomError("speed", "should be bytes per second such as 1KiB/s or 2MB/s") from None


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


def _field_name(value: str) -> str:
    """Refuse what no header is called (RFC 9110, section 5.1)."""
    if not _FIELD_NAME.fullmatch(value):
        raise PydanticCustomError("field_name", "should be the name of a header such as x-api-key")
    return value


def switch(on: str, off: str) -> BeforeValidator:
    """Return what takes true and false for the two words that they mean here."""

    def word(value: object) -> object:
        return (on if value else off) if isinstance(value, bool) else value

    return BeforeValidator(word, json_schema_input_type=Literal[on, off] | bool)


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
ByteSpeed = Annotated[
    int,
    BeforeValidator(parse_speed),
    Field(ge=0),
    _schema(r"^\d+(\.\d+)?\s*([kKmMgGtT]?i?[bB])?(\s*/\s*s)?$", "1KiB/s"),
]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    Field(gt=0, allow_inf_nan=False),
    _schema(r"^\d+(\.\d+)?/(ms|s|m|min|h|d)$", "10/s"),
]

_HIDDEN: dict[str, Any] = {"type": "string", "format": "password", "writeOnly": True}
_ELSEWHERE: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "string"}, "env": {"type": "string"}},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
    "writeOnly": True,
}

_LARGEST_SECRET = 64 * 1024

# Says what is wrong with where a secret is kept ("file" or "env", and its name), None if nothing is.
SecretObjection = Callable[[str, str], str | None]
_objection: ContextVar[SecretObjection | None] = ContextVar("objection", default=None)


@contextmanager
def secrets_checked(objection: SecretObjection) -> Iterator[None]:
    """Have every secret that is kept elsewhere read only if there is no objection to its place."""
    token = _objection.set(objection)
    try:
        yield
    finally:
        _objection.reset(token)


def _check_place(kind: str, name: str) -> None:
    objection = _objection.get()
    words = None if objection is None else objection(kind, name)
    if words is not None:
        raise PydanticCustomError("secret", "{words}", {"words": words})


def _content(path: str) -> str:
    """Return what is in the file of a secret. Raises OSError, and ValueError if it is not UTF-8.

    Where places are checked it is a regular file: a service does not wait for whoever may write to a pipe. On a command
    line it may be one, such as ``<(pass show token)``.
    """
    is_checked = _objection.get() is not None
    with os.fdopen(open_regular(path), encoding="utf-8") if is_checked else Path(path).open(encoding="utf-8") as file:
        text = file.read(_LARGEST_SECRET + 1)
    if len(text) > _LARGEST_SECRET:
        raise OSError(errno.EFBIG, f"it is larger than {_LARGEST_SECRET // 1024} KiB")
    return text


def read_secret(value: object) -> object:
    """Return a secret that is written as ``{file: path}`` or ``{env: NAME}``, without the line end of a file."""
    if not isinstance(value, dict):
        return value
    match value:
        case {"file": str(path), **rest} if not rest:
            _check_place("file", path)
            try:
                secret = _content(path).rstrip("\r\n")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                words = f"its file {path[:200]!r} can not be read: {reason}"
                raise PydanticCustomError("secret", "{words}", {"words": words}) from None
        case {"env": str(name), **rest} if not rest:
            _check_place("env", name)
            secret = os.environ.get(name, "")
            if not secret:
                words = f"the environment variable {name[:200]} is {'empty' if name in os.environ else 'not set'}"
                raise PydanticCustomError("secret", "{words}", {"words": words})
        case _:
            raise PydanticCustomError("secret", "should be a text, {file: path} or {env: NAME}")
    if not secret:
        raise PydanticCustomError("secret", "is empty where it is kept")
    return secret


Secret = Annotated[SecretStr, BeforeValidator(read_secret), WithJsonSchema({"anyOf": [_HIDDEN, _ELSEWHERE]})]
"""What no message, record or log may show. Kept in a file or in the environment, it is in no config either."""


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
    min_rate: ByteSpeed = 100
    """The fewest bytes per second, on average over ``min_rate_span``, at which a body may come; 0 is no such limit."""
    min_rate_span: Annotated[Duration, Field(gt=0)] = 30.0
    """A body that came more slowly for this long is given up (kind ``too_slow``)."""
    max_redirects: int = Field(default=5, ge=0, le=100)
    """0 means that redirects are not followed."""
    downgrade: Literal["follow", "refuse"] = "follow"
    """What becomes of a redirect from https to http. Credentials are never sent over it."""
    upload_dir: str = "."
    """The folder of files that jobs send (``multipart``): relative paths are from here, and none leads out of it."""
    secret_headers: list[Annotated[str, AfterValidator(_field_name)]] = []
    """Headers that a redirect to another origin takes off, as it does with Authorization and Cookie."""


class BodySettings(Settings):
    """What becomes of response bodies."""

    store: Literal["none", "inline", "file"] = "inline"
    """``none`` reads and hashes a body and keeps its size; ``inline`` puts it into the record as well; ``file`` writes
    that of a 2xx answer to a file of its own, which the record names, and keeps no other."""
    max_size: ByteSize = 10 * 1024 * 1024
    """Decoded bytes; a longer body is handled as ``overflow`` says."""
    overflow: Literal["truncate", "fail"] = "fail"
    """``truncate`` keeps the first ``max_size`` bytes and marks the record; ``fail`` is kind ``body_too_large``."""
    path: str = "out/bodies/{sha256:2}/{sha256}"
    """Where a ``file`` is: relative to the working folder, with {sha256}, {batch}, {job_id}, {host}, {path} and {ext}.
    {sha256:2} is the beginning of it. By default a body that comes twice is stored once."""
    inline_max: ByteSize = 0
    """With ``file``: bodies of up to so many bytes go into the record instead."""
    range: Annotated[Literal["none", "resume"], switch("resume", "none")] = "none"
    """With ``file``: ``resume`` goes on with an interrupted download where it stopped, if the server can."""
    durability: Literal["flush", "fsync"] = "flush"
    """With ``file``: ``flush`` survives the end of the process; ``fsync`` the end of the machine, at a cost."""
    work: str = ""
    """Where a ``file`` is while it arrives, on the same file system as ``path``; by default ``.partial/<name of the
    batch>`` in the folder that all of them have in common."""

    @field_validator("path")
    @classmethod
    def _usable(cls, value: str) -> str:
        NameTemplate(value).check_unique()
        return value
