"""Texts with places that a row fills: ``https://api.example/{city}``, ``{row.name}``. Pure.

A place is the name of a column in braces, with or without ``row.`` before it; a name that is no plain word is written
``{row.first name}``. ``{{`` and ``}}`` are braces. A template is read once and then filled for each row.

What fills a place is data, never syntax. A URL percent-encodes it, wherever in a URL it stands, so that no value can
begin another parameter, segment, or host; a segment of a path can not become ``.``, ``..`` or nothing. A place that is
all there is of a value (``{"id": "{id}"}``) keeps the type that the row has, where the target knows types.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import MAX_DEPTH, RowError, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Row = Mapping[str, Any]
    Write = Callable[[str, str], str]

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_WORD = re.compile(r"\w[\w-]*")
_ROW = "row."
_URL = re.compile(r"([^:/?#]*)://([^/?#]*)([^?#]*)((?:\?[^#]*)?)(?:#.*)?", re.DOTALL)
_HALF_ESCAPE = re.compile(r"%[0-9A-Fa-f]?\0")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"[\w.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHOWN = 60
# Where a place is, while what stands around it is taken apart. No text of a config has it.
_MARK = "\0"


class Template:
    """A text with places. ``names``: the columns that it needs, in their order; ``text``: as it was written."""

    def __init__(self, text: str) -> None:
        """Read a template. Raises ValueError that says what is wrong with it, where, and what to write."""
        self.text = text
        self.names: list[str] = []
        literals: list[str] = [""]
        if _MARK in text:
            raise ValueError("contains NUL")
        end = 0
        for match in _BRACES.finditer(text):
            literals[-1] += text[end : match.start()]
            end = match.end()
            if match[0] in {"{{", "}}"}:
                literals[-1] += match[0][0]
            else:
                self.names.append(_name(match))
                literals.append("")
        literals[-1] += text[end:]
        self.literals = literals

    @property
    def sole(self) -> str | None:
        """The name of the place that is all of the text, None if there is more to it."""
        return self.names[0] if self.literals == ["", ""] else None

    def filled(self, row: Row, write: Write | None = None) -> str:
        """Return the text for a row, with ``write`` applied to each name and value. Raises RowError."""
        if not self.names:
            return self.literals[0]
        pieces = [self.literals[0]]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            value = text_of(name, valued(row, name))
            pieces += [value if write is None else write(name, value), literal]
        return "".join(pieces)


class UrlTemplate:
    """A URL with places, in whatever part of it."""

    def __init__(self, text: str) -> None:
        """Read a template. Raises ValueError that says what is wrong with it."""
        template = Template(text)
        self.text, self.names = template.text, template.names
        marked = _MARK.join(template.literals)
        if template.sole is not None:
            raise ValueError(f"{text} is a URL that is whole in a column; leave it out, and set column to its name")
        if (parts := _URL.fullmatch(marked)) is None:
            raise ValueError("has no scheme; write https:// before it, and :// outside of all places")
        if _HALF_ESCAPE.search(marked):
            raise ValueError("has a % just before a place; write %25 for one that is meant as such")
        user, at, place = parts[2].rpartition("@")
        host, colon, port = place.rpartition(":") if ":" in place else (place, "", "")
        names = iter(self.names)
        self._parts = [
            _Part(f"{parts[1]}://", names, _scheme, sample="http"),
            _Part(f"{user}{at}", names, _escaped),
            _Part(f"{host}{colon}", names, _host),
            _Part(port, names, _host, sample="1"),
            *(_Part(segment, names, _escaped, is_segment=True) for segment in _segments(parts[3])),
            _Part(parts[4], names, _escaped),
        ]
        self.scheme = None if _MARK in parts[1] else parts[1].lower()

    def filled(self, row: Row) -> str:
        """Return the URL for a row, without a fragment. Raises RowError."""
        return "".join([part.filled(row) for part in self._parts])

    def sample(self) -> str:
        """Return a URL as some row could make it."""
        return "".join([part.sample() for part in self._parts])


class _Part:
    """What of a URL is written in the same way: the scheme, a user, the host, a segment of the path, the query."""

    def __init__(
        self, marked: str, names: Iterator[str], write: Write, *, is_segment: bool = False, sample: str = "a"
    ) -> None:
        first, *self._literals = marked.split(_MARK)
        self._first = first
        self._names = [next(names) for _ in self._literals]
        self._write = write
        self._is_segment = is_segment
        self._sample = sample

    def sample(self) -> str:
        return self._sample.join([self._first, *self._literals])

    def filled(self, row: Row) -> str:
        if not self._names:
            return self._first
        pieces = [self._first]
        for name, literal in zip(self._names, self._literals, strict=True):
            pieces += [self._write(name, text_of(name, valued(row, name))), literal]
        text = "".join(pieces)
        if self._is_segment and self._is_another_path(text):
            raise _wrong(f"{self._names[0]!r} makes a segment of the path {text!r}, which means another path")
        return text

    def _is_another_path(self, text: str) -> bool:
        """Tell whether a segment is none by its name: servers take what is behind ``;`` for parameters of it."""
        name = text if ";" in self._first else text.partition(";")[0]
        return unquote(name).removeprefix("/") in {"", ".", ".."}


class DataTemplate:
    """A value of JSON in whose texts there are places; names of fields are taken as they are.

    A text that is one place keeps the type that the row has, unless ``as_text``.
    """

    def __init__(self, value: Any, *, as_text: bool = False) -> None:
        """Read a template. Raises ValueError that says where something is wrong with it."""
        self.names: list[str] = []
        self._as_text = as_text
        self._value = self._read(value, "", 0)

    def filled(self, row: Row) -> Any:
        """Return the value for a row, which is a new one each time. Raises RowError."""
        return self._filled(self._value, row)

    def _read(self, value: Any, where: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {name: self._read(item, f"{where}{name}.", depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._read(item, f"{where}{index}.", depth + 1) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            template = Template(value)
        except ValueError as error:
            raise ValueError(f"{where.removesuffix('.')}: {error}" if where else str(error)) from None
        self.names += template.names
        return template if template.names else template.literals[0]

    def _filled(self, value: Any, row: Row) -> Any:
        if isinstance(value, Template):
            if self._as_text or value.sole is None:
                return value.filled(row)
            return native(value.sole, valued(row, value.sole))
        if isinstance(value, dict):
            return {name: self._filled(item, row) for name, item in value.items()}
        return [self._filled(item, row) for item in value] if isinstance(value, list) else value


def valued(row: Row, name: str) -> Any:
    """Return what a row has in a column. Raises RowError if it has no such column."""
    try:
        return row[name]
    except KeyError:
        raise _wrong(f"has no {name!r}; it has {', '.join(map(str, row)) or 'nothing'}") from None


def text_of(name: str, value: Any) -> str:
    """Return a value as text. Raises RowError for null, and for what is no text."""
    if isinstance(value, str):
        return check_text(repr(name), value)
    if value is None:
        raise _wrong(f"{name!r} is null, where text is needed")
    if isinstance(value, bool):
        return "true" if value else "false"
    plain = native(name, value)
    if isinstance(plain, list | dict):
        raise _wrong(f"{name!r} is {'a list' if isinstance(plain, list) else 'an object'}, where text is needed")
    return str(plain)


def native(name: str, value: Any) -> Any:
    """Return a value in the types of JSON: times and the like as text. Raises RowError for what is binary."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        raise _wrong(f"{name!r} is binary, which has no place in a text")
    try:
        return msgspec.to_builtins(value, enc_hook=str, str_keys=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _wrong(f"{name!r} can not be written as JSON: {error}") from error


def one_line(name: str, value: str) -> str:
    """Return a value that ends no line and controls nothing: of what is sent to a socket. Raises RowError."""
    if _CONTROL.search(value):
        raise _wrong(f"{name!r} has a line end or another control character, which would be taken for a command")
    return value


def _name(match: re.Match[str]) -> str:
    """Return the name of a column. Raises ValueError for a brace that is no place."""
    where = f"at character {match.start() + 1}"  # not the text itself, which may hold a password
    inner = match[1]
    if inner is None:
        raise ValueError(f"the '{match[0]}' {where} has no partner; a brace that is meant as such is written twice")
    name = inner.removeprefix(_ROW)
    if not name.strip() or (name == inner and not _WORD.fullmatch(name)):
        advice = f"write {{row.{name}}} for the column of that name, or" if name.strip() else "write {name}, or"
        raise ValueError(f"'{match[0]}' {where} is no place; {advice} {{{{ and }}}} for braces that are meant as such")
    return name


def _segments(path: str) -> list[str]:
    """Return the segments of a path, each with the slash before it."""
    return re.findall(r"/[^/]*|^[^/]+", path)


def _escaped(name: str, value: str) -> str:  # noqa: ARG001  as the others
    return quote(value, safe="")


def _scheme(name: str, value: str) -> str:
    if not _SCHEME.fullmatch(value):
        raise _wrong(f"{name!r} is no scheme: {value[:_SHOWN]!r}")
    return value


def _host(name: str, value: str) -> str:
    if not _HOST.fullmatch(value):
        raise _wrong(f"{name!r} has what no host or port has: {value[:_SHOWN]!r}")
    return value


def _wrong(message: str) -> RowError:
    return RowError(ErrorKind.INVALID_ROW, message)
