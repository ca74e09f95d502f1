"""What CSS selectors find in a page, within bounds of time and size, whoever wrote the page.

A parser of HTML takes time by the square of how deep elements are nested, and of how many attributes one has, and while
it does nothing else in this process happens. So a page that could be like that is read in a process of its own, which
is ended when it has had its time. Run as a program, this is that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import msgspec
import re2

TIME = 10
"""Seconds for one page."""
_SMALL = 64 * 1024  # characters, with which nothing takes long
_ELEMENTS = 20_000
_ATTRIBUTES = 8_000
_SEPARATORS = " \t\n\f\r/\"'"
_MOST = 64 * 1024 * 1024  # characters that are found in a page; elements in elements have the same text
# A script or a style sheet, which is text as far as the parser is concerned, behind a start tag that leaves no doubt.
_TEXT = re2.compile(r"""(?i)^(script|style)(\s+[a-z:-]+(=("[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+))?)*\s*>""")
_START_TAG = 2_000


class Rule(msgspec.Struct, frozen=True):
    """What to look for: a selector, the attribute that is wanted instead of the text, and whether all or the first."""

    name: str
    selector: str
    attr: str | None = None
    all: bool = False


class Task(msgspec.Struct):
    """A page and what is wanted of it."""

    text: str
    rules: list[Rule]


def find(text: str, rules: list[Rule], lexbor: Any) -> dict[str, Any]:
    """Return a value for each rule. Raises ValueError for a page that takes too long, or in which there is too much."""
    return found(text, rules, lexbor) if is_quick(text) else _apart(Task(text, rules))


def is_quick(text: str) -> bool:
    """Tell whether a page can be parsed at once: it is small, or has neither many elements nor many attributes."""
    if len(text) <= _SMALL:
        return True
    if text.count("<") > _ELEMENTS:
        return False
    return not any(_has_many_attributes(piece) for piece in text.split("<"))


def _has_many_attributes(piece: str) -> bool:
    """Tell whether what follows a ``<`` could be a tag with many attributes. Where that tag ends is not easily told."""
    if len(piece) < _ATTRIBUTES or sum(map(piece.count, _SEPARATORS)) < _ATTRIBUTES:
        return False
    return _TEXT.search(piece[:_START_TAG]) is None


def found(text: str, rules: list[Rule], lexbor: Any) -> dict[str, Any]:
    """Return a value for each rule, in this process."""
    page = lexbor.LexborHTMLParser(text)
    room = _Room()
    return {rule.name: _found(page, rule, room) for rule in rules}


class _Room:
    """How many characters may still be found."""

    def __init__(self) -> None:
        self._left = _MOST

    def take(self, value: str | None) -> str | None:
        self._left -= len(value or "")
        if self._left < 0:
            raise ValueError(f"more than {_MOST} characters are found: elements in elements have the same text")
        return value


def _found(page: Any, rule: Rule, room: _Room) -> Any:
    if rule.all:
        values = [room.take(_value(node, rule)) for node in page.css(rule.selector)]
        return [value for value in values if value is not None]
    node = page.css_first(rule.selector)
    return None if node is None else room.take(_value(node, rule))


def _value(node: Any, rule: Rule) -> str | None:
    if rule.attr is not None:
        value: str | None = node.attributes.get(rule.attr)
        return value
    text: str = node.text(deep=True, separator="", strip=False)
    return " ".join(text.split())


def _apart(task: Task) -> dict[str, Any]:
    # As a file, for it needs nothing of the package; and with -P, or select.py beside it would be taken for Python's.
    command = [sys.executable, "-P", __file__]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(  # noqa: S603  ourselves
            command, input=msgspec.json.encode(task), capture_output=True, env=environment, timeout=TIME, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"the page takes longer than {TIME} s to be parsed: it is nested too deeply, or has too many attributes"
        ) from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise ValueError(f"the page can not be parsed: {reason or f'exit {done.returncode}'}")
    values: dict[str, Any] = msgspec.json.decode(done.stdout)
    return values


def main() -> None:
    """Read a task from stdin and write what is found to stdout."""
    from selectolax import lexbor  # noqa: PLC0415  optional

    if sys.platform != "win32":
        import resource  # noqa: PLC0415  not on Windows

        # For the case that nobody is left to end this process.
        resource.setrlimit(resource.RLIMIT_CPU, (2 * TIME, 2 * TIME))
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(found(task.text, task.rules, lexbor)))


if __name__ == "__main__":
    main()
