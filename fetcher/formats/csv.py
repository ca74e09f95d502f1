"""CSV (RFC 4180): a header row, then a row for each record. UTF-8, lines end in CRLF.

- A field that is null is empty; a text that is empty is ``""``, for readers that can tell the two apart.
- ``headers``, ``redirects``, ``extracted`` and ``meta`` are JSON within their cell. Times are ISO 8601 in UTC.
- A body is text where it is UTF-8 without NUL, and base64 where it is not: ``body_encoding`` says which. In other
  texts NUL becomes U+FFFD, as many readers end at it.
- A cell of text that a spreadsheet would take for a formula gets an apostrophe in front (``spreadsheet_safe``), and so
  does one that begins with an apostrophe: who takes one apostrophe off the front of a text has the text again.
- Rows that are appended have the columns of the header that is there, which may be one of an earlier version.
"""

from __future__ import annotations

import csv
import io
import re
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.fields import in_utc, known_columns, reader
from fetcher.formats.compression import Compression, compressed
from fetcher.formats.records import body_text, json_text, writable
from fetcher.model import Result
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fetcher.interfaces import Format

SUFFIXES = (".csv",)
# OWASP, "CSV Injection": what begins a formula in one spreadsheet or another. Some take the full-width forms, too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
_SHOWN = 200
_QUOTED = re.compile(r"[\",;\t\r\n]|^\s|\s$")


def _columns(names: list[str]) -> list[str]:
    """Refuse columns that no record has, that come twice, and bodies that nobody could read back."""
    known_columns(names)
    if "body" in names and "body_encoding" not in names:
        raise PydanticCustomError(
            "column", "has body without body_encoding, which tells text from base64; add it behind body"
        )
    return names


class CsvConfig(Settings):
    """Rows with a header row. Safe to open in a spreadsheet."""

    type: Literal["csv"] = "csv"
    columns: Annotated[list[str], AfterValidator(_columns)] = Field(default=[*Result.__struct_fields__], min_length=1)
    """Which fields of the record, in which order; by default all. A value of `extracted` or `meta` has a column of its
    own as `extracted.price`, `meta.shop`."""
    delimiter: Literal[",", ";", "\t"] = ","
    """What stands between cells."""
    spreadsheet_safe: bool = True
    """Put an apostrophe in front of text that a spreadsheet would take for a formula."""
    compression: Compression = "none"
    """By default, what the suffix of the output's path says: ``.gz`` or ``.zst``."""

    def build(self) -> Format:
        """Return the format."""
        chosen = "columns" in self.model_fields_set
        form = CsvFormat(self.columns, delimiter=self.delimiter, spreadsheet_safe=self.spreadsheet_safe, chosen=chosen)
        return compressed(form, self.compression)


class CsvFormat:
    """Encodes a result as a row of cells. Columns that were ``chosen`` give way to no others."""

    def __init__(
        self, columns: Sequence[str], *, delimiter: str = ",", spreadsheet_safe: bool = True, chosen: bool = False
    ) -> None:
        self._columns = {name: reader(name) for name in columns}
        self._delimiter = delimiter
        self._safe = spreadsheet_safe
        self._chosen = chosen

    def begin(self) -> bytes:
        """Return the header row."""
        return f"{self._delimiter.join(map(self._text, self._columns))}\r\n".encode()

    def follow(self, head: bytes) -> None:
        """Go on with the columns of an output that begins so. Raises ValueError that says why it can not be."""
        if head.startswith(self.begin()):
            return
        columns = _header(head, self._delimiter)
        if self._chosen and columns != [*self._columns]:
            raise ValueError(f"has the columns {_shown(columns)} and not those of 'columns', {_shown(self._columns)}")
        try:
            known_columns(columns)
        except PydanticCustomError as error:
            raise ValueError(f"has a header that no row of these goes with: {error.message()}") from None
        if "body" in columns and "body_encoding" not in columns:
            raise ValueError("has the column body without body_encoding, which tells text from base64")
        self._columns = {name: reader(name) for name in columns}

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return a row for each result."""
        if not results:
            return b""
        # Column by column: most of them are null in all rows, which costs next to nothing so.
        columns = [self._cells(name, results) for name in self._columns]
        join = self._delimiter.join
        return "".join([f"{join(row)}\r\n" for row in zip(*columns, strict=True)]).encode()

    def _cells(self, name: str, results: Sequence[Result]) -> list[str]:
        values: list[Any] = list(map(self._columns[name], results))
        if name == "body":
            values = [None if body is None else _body(body)[0] for body in values]
        elif name == "body_encoding":
            values = [value if r.body is None else _body(r.body)[1] for value, r in zip(values, results, strict=True)]
        return ["" if value is None else self._cell(value) for value in values]

    def _cell(self, value: Any) -> str:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, datetime):
            return in_utc(value).isoformat().replace("+00:00", "Z")
        return self._quoted(json_text(value))

    def _text(self, text: str) -> str:
        text = str(text).replace("\0", "\ufffd")
        if not text.isascii():
            text = writable(text)
        if self._safe and text.startswith(_FORMULA):
            text = f"'{text}"
        return self._quoted(text)

    def _quoted(self, text: str) -> str:
        if text and not _QUOTED.search(text):
            return text
        return '"' + text.replace('"', '""') + '"'


def _header(head: bytes, delimiter: str) -> list[str]:
    """Return the columns of what begins so. Raises ValueError if it does not begin with a whole header row."""
    lines = list(io.StringIO(head.decode("utf-8-sig", "replace"), newline=""))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = next(rows, [])
    except csv.Error as error:
        raise ValueError(f"does not begin with a header row: {error}") from None
    if not columns or not lines[rows.line_num - 1].endswith(("\n", "\r")):
        raise ValueError("does not begin with a whole header row")
    return columns


def _shown(columns: Iterable[str]) -> str:
    text = ",".join(columns)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _body(body: bytes) -> tuple[str, str]:
    return (b64encode(body).decode("ascii"), "base64") if b"\0" in body else body_text(body)
