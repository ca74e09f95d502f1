"""Links in the header of an answer (RFC 8288, section 3): read as appendix B.2 says, and no more leniently.

What is skipped is what the RFC says is to be: all of a parameter ``rel``, or ``anchor``, but the first, and parameters
that nobody knows. A field that breaks off where a link should begin has no links from there on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACE = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"[ \t,]*")
_TARGET = re.compile(r"<([^>]*)>")
_NAME = re.compile(r"[^ \t=;,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_PLAIN = re.compile(r"[^;,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Link(NamedTuple):
    """A link: where it leads, its relations in lower case, and what it is a link of (None: the answer itself).

    ``target`` and ``anchor`` are references as they are written.
    """

    target: str
    relations: frozenset[str]
    anchor: str | None = None


class Links(NamedTuple):
    """The links of a field, and what of it could not be read."""

    found: list[Link]
    rest: str = ""


def parse_links(field: str) -> Links:
    """Return the links of a header field ``Link``, whose value may be that of several such fields joined by commas."""
    found: list[Link] = []
    place = 0
    while True:
        # Elements of a list may be empty (RFC 9110, section 5.6.1).
        place = _past(_BETWEEN, field, place)
        target = _TARGET.match(field, place)
        if target is None:
            return Links(found, field[place:])
        parameters, place = _parameters(field, target.end())
        found.append(_link(target[1].strip(), parameters))
        if place < len(field) and field[place] != ",":
            return Links(found, field[place:])


def _link(target: str, parameters: list[tuple[str, str]]) -> Link:
    first: dict[str, str] = {}
    for name, value in parameters:
        first.setdefault(name, value)
    return Link(target, frozenset(first.get("rel", "").lower().split()), first.get("anchor"))


def _parameters(field: str, place: int) -> tuple[list[tuple[str, str]], int]:
    """Return the parameters that begin at a place (appendix B.3), and the place behind them."""
    found = []
    place = _past(_SPACE, field, place)
    while field.startswith(";", place):
        place = _past(_SPACE, field, place + 1)
        name = _NAME.match(field, place)
        end = place if name is None else name.end()
        written, place = field[place:end], _past(_SPACE, field, end)
        value = ""
        if field.startswith("=", place):
            value, place = _value(field, _past(_SPACE, field, place + 1))
        if written:
            found.append((written.lower(), value))
        place = _past(_SPACE, field, place)
    return found, place


def _value(field: str, place: int) -> tuple[str, int]:
    """Return a value, quoted (appendix B.4) or not, and the place behind it."""
    quoted = _QUOTED.match(field, place)
    if quoted is not None:
        return _ESCAPE.sub(r"\1", quoted[1]), quoted.end()
    end = _past(_PLAIN, field, place)
    return field[place:end].strip(" \t"), end


def _past(pattern: re.Pattern[str], field: str, place: int) -> int:
    match = pattern.match(field, place)
    return place if match is None else match.end()


def links_of(headers: list[tuple[str, str]]) -> Iterator[Links]:
    """Yield the links of each field ``Link`` of an answer, with what is not UTF-8 as surrogate escapes."""
    for name, value in headers:
        if name.lower() == "link":
            yield parse_links(value.encode("latin-1", "replace").decode("utf-8", "surrogateescape"))
