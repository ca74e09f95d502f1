"""What several formats need of a record: its body as text, and JSON that can always be written."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Result

_ENCODER = msgspec.json.Encoder(decimal_format="number")


def body_text(body: bytes) -> tuple[str, str]:
    """Return a body as text where it is UTF-8, as base64 where it is not, and which of the two it is."""
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return b64encode(body).decode("ascii"), "base64"


def json_lines(results: Sequence[Result]) -> bytes:
    """Return DESIGN's record of each result as a line of JSON; fields that are null are left out."""
    records = [item if item.body is None else _with_body(item) for item in results]
    try:
        return _ENCODER.encode_lines(records)
    except UnicodeEncodeError:
        return _ENCODER.encode_lines([_writable(msgspec.to_builtins(record)) for record in records])


def json_text(value: Any) -> str:
    """Return any value of a record as JSON."""
    try:
        return _ENCODER.encode(value).decode()
    except UnicodeEncodeError:
        return _ENCODER.encode(_writable(msgspec.to_builtins(value))).decode()


def writable(text: str) -> str:
    """Return a text with each lone surrogate, which UTF-8 can not write, replaced by a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _with_body(result: Result) -> dict[str, Any]:
    record = msgspec.structs.asdict(result)
    record["body"], record["body_encoding"] = body_text(result.body or b"")
    return {name: value for name, value in record.items() if value is not None}


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {_writable(name): _writable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value
