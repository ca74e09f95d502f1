"""JSON Lines: one record a line, UTF-8, fields that are null left out."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Result

SUFFIXES = (".jsonl", ".ndjson")


class JsonlConfig(Settings):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"

    def build(self) -> JsonlFormat:
        """Return the format."""
        return JsonlFormat()


class JsonlFormat:
    """Encodes a result as DESIGN's record; a body is text where it is UTF-8, and base64 where it is not."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(decimal_format="number")

    def begin(self) -> bytes:
        """Return nothing: the format has no header."""
        return b""

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return a line for each result."""
        records = [item if item.body is None else _with_body(item) for item in results]
        try:
            return self._encoder.encode_lines(records)
        except UnicodeEncodeError:
            return self._encoder.encode_lines([_writable(msgspec.to_builtins(record)) for record in records])


def _with_body(result: Result) -> dict[str, Any]:
    record = msgspec.structs.asdict(result)
    body = result.body or b""
    try:
        record["body"], record["body_encoding"] = body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        record["body"], record["body_encoding"] = b64encode(body).decode("ascii"), "base64"
    return {name: value for name, value in record.items() if value is not None}


def _writable(value: Any) -> Any:
    """Return a value with each lone surrogate, which UTF-8 can not write, replaced by a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(name): _writable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value
