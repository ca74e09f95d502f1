"""Puts numbers into a config file and leaves every other byte of it alone.

The file is not written anew from its data, for no YAML library gives back comments, quotes and spacing in
all cases. Its nodes say where in the text each value stands; there it is replaced, or a key is put in. Then
the new text is read again: if anything else than the wanted values has changed, it is not written.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fetcher.config.document import parse
from fetcher.config.problems import dotted
from fetcher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMENT_LINE = re.compile(r"[ \t]*(#.*)?")


class _Unclear(Exception):  # noqa: N818  caught here
    """This place can not be changed without changing another."""


def amend_file(path: Path, values: Mapping[tuple[str, ...], int]) -> None:
    """Put values into a config file, in one step. Raises ConfigError that says what to do by hand instead."""
    path = path.resolve()
    try:
        text = path.read_bytes().decode("utf-8")
        amended = amend(text, values, str(path))
        if amended != text:
            _replace(path, amended)
    except OSError as error:
        raise ConfigError(f"{path}: can not be written: {error.strerror}; {_by_hand(values)}") from None


def amend(text: str, values: Mapping[tuple[str, ...], int], name: str) -> str:
    """Return the text of a config with values put in, by their paths."""
    amended = text
    try:
        for path, value in values.items():
            amended = _put(amended, path, value)
        expected = parse(text, name, None).data
        for path, value in values.items():
            _set(expected, path, value)
        unchanged = parse(amended, name, None).data == expected
    except (_Unclear, yaml.YAMLError, AttributeError, TypeError):
        unchanged = False
    if not unchanged:
        raise ConfigError(f"{name}: is written in a way that can not be changed safely; {_by_hand(values)}")
    return amended


def _by_hand(values: Mapping[tuple[str, ...], int]) -> str:
    return "set " + " and ".join(f"{dotted(path)}: {value}" for path, value in values.items()) + " yourself"


def _set(data: Any, path: tuple[str, ...], value: int) -> None:
    for key in path[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
    data[path[-1]] = value


def _put(text: str, path: tuple[str, ...], value: int) -> str:
    """Replace the value at a path, or put in what is missing of the path."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    after = 0
    for depth, key in enumerate(path):
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            return _insert(text, node, after, path[depth:], value)
        after, node = pair[0].end_mark.index, pair[1]
        if node.start_mark.index < after:
            raise _Unclear  # an alias: the node stands elsewhere, and means something there too
        if isinstance(node, yaml.ScalarNode):
            return _replace_scalar(text, node, after, path[depth + 1 :], value)
    raise _Unclear


def _replace_scalar(text: str, node: yaml.ScalarNode, after: int, rest: tuple[str, ...], value: int) -> str:
    """Replace a number, or a section without content by one with it."""
    start, end = node.start_mark.index, node.end_mark.index
    if "${" in node.value or text[start : start + 1] in {"!", "&"}:
        raise _Unclear
    if start == end:
        # Nothing is written there: it belongs right behind the colon, whatever comment follows.
        start = end = text.index(":", after) + 1
        return f"{text[:start]} {_flow(rest, value)}{text[end:]}"
    return text[:start] + _flow(rest, value) + text[end:]


def _flow(path: tuple[str, ...], value: int) -> str:
    return f"{{{path[0]}: {_flow(path[1:], value)}}}" if path else str(value)


def _insert(text: str, node: yaml.MappingNode, after: int, path: tuple[str, ...], value: int) -> str:
    """Put a key into a mapping: last in the document; first in a nested one, whose own key ends at ``after``."""
    if not isinstance(node, yaml.MappingNode):
        raise _Unclear
    start = node.start_mark.index
    entry = f"{path[0]}: {_flow(path[1:], value)}"
    if node.flow_style:
        at = text.index("{", start) + 1
        return f"{text[:at]}{entry}{', ' if node.value else ''}{text[at:]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    if node.start_mark.column == 0:
        return _append(text, entry, newline)
    first = node.value[0][0].start_mark
    indent = text[first.index - first.column : first.index]
    # Above the comments that stand before the first key, for they are about that.
    at = text.index("\n", after) + 1
    return f"{text[:at]}{indent}{entry}{newline}{text[at:]}"


def _append(text: str, entry: str, newline: str) -> str:
    """Put a section at the end, before what ends the document if that is written out."""
    lines = text.splitlines(keepends=True)
    end = len(lines)
    while end and (_COMMENT_LINE.fullmatch(lines[end - 1].rstrip("\r\n")) or lines[end - 1].strip() == "..."):
        end -= 1
    if not any(line.strip() == "..." for line in lines[end:]):
        end = len(lines)
    before, after = "".join(lines[:end]), "".join(lines[end:])
    gap = "" if not before or before.endswith("\n") else newline
    return f"{before}{gap}{entry}{newline}{after}"


def _replace(path: Path, text: str) -> None:
    """Write a file beside it and put that in its place, so that no moment has half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except OSError:
        with suppress(OSError):
            Path(name).unlink()
        raise
