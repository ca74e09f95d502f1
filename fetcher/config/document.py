"""Reads a YAML document as plain data, and keeps in which line everything stood.

It is read from PyYAML's events rather than by its loader, so that every rule is ours:

- A plain scalar means what YAML 1.2 says: ``true`` and ``false`` are the only booleans, ``null`` and ``~``
  are null, ``010`` is ten. ``yes``, ``on``, ``12:30`` and ``2024-01-01`` are text (a setting that is a switch
  takes ``on`` all the same).
- Keys are text as written, and none stands twice. ``<<`` is not known.
- There are no tags but those of YAML itself, and they build nothing but text, numbers, lists and mappings.
- ``${VAR}`` and ``${VAR:default}`` in a value are replaced after parsing, so that what is in the environment
  can not add keys; a plain scalar that is nothing but ``${VAR}`` is then read as a plain scalar. ``$${``
  stands for ``${``.
- Size, depth, nodes, and nodes repeated by aliases are bounded, however the document is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from fetcher.config.problems import MOST_TOLD, ConfigProblems, Problem, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fetcher.config.problems import KeyPath

MAX_BYTES = 64 * 1024 * 1024
MAX_NODES = 1_000_000
MAX_PROBLEMS = 1_000  # in single places; beyond them, reading ends
MAX_ALIASED = 100_000  # nodes that stand in the document once and in the data again
MAX_DEPTH = 100
UNSET = re.compile(r"the variable ([A-Za-z_][A-Za-z0-9_]*) is not set; ")
"""How the sentence begins about a variable that a value names, and that there is not."""
_MAX_DIGITS = 300  # beyond a float, and far below where int() refuses

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, type | tuple[type, ...]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": int,
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": bool,
    f"{_TAG}null": type(None),
}
_WORDS = {"": None, "~": None} | {
    form: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for form in (word, word.capitalize(), word.upper())
}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\})?")


@dataclass
class Document:
    """A document as data, and what is known about each value by its path."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """The line of each value; that of its key where it has one."""
    texts: dict[KeyPath, str] = field(default_factory=dict)
    """How the numbers and booleans were written, for where text is wanted."""
    substituted: dict[KeyPath, str] = field(default_factory=dict)
    """How the values were written that came from the environment."""
    variables: set[str] = field(default_factory=set)
    """The environment variables that the document names."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong in single places. The value of such a path means nothing."""


def parse(text: str, name: str, environ: Mapping[str, str] | None) -> Document:
    """Read a document; ``name`` is what messages call it, and without ``environ`` nothing is substituted.

    Raises ConfigProblems if there is nothing to be read at all; problems of single values are in the answer.
    """
    try:
        encoded = text.encode("utf-8")
        root = _Parser(text).document()
        builder = _Builder(environ)
        if root is not None:
            builder.document.data = builder.build(root, (), root.line)
    except _TooMuchWrongError as error:
        raise ConfigProblems(
            [f"{name}:{line}: {words}" for line, words in error.problems], more=MAX_PROBLEMS + 1 - MOST_TOLD
        ) from None
    except _DocumentError as error:
        raise ConfigProblems([f"{name}:{error.line}: {error}"]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigProblems([f"{name}:{_describe(error, text)}"]) from None
    except yaml.reader.ReaderError as error:
        line = encoded[: error.position].count(b"\n") + 1
        raise ConfigProblems([f"{name}:{line}: not YAML: there is a control character in this line"]) from None
    except UnicodeEncodeError:
        raise ConfigProblems([f"{name}: is not UTF-8"]) from None
    return builder.document


def resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means (YAML 1.2, core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _describe(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return line and sentence of a syntax error, with advice where its words explain nothing."""
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    lines = text.splitlines()
    number = min(mark.line + 1, max(len(lines), 1)) if mark else 1
    sentence = f"{number}: not YAML: {error.problem}"
    if start is not None and error.context and start.line + 1 != number:
        sentence += f", {error.context} that starts in line {start.line + 1}"
    line = lines[number - 1] if lines else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        sentence += "; indent with spaces, not tabs"
    elif "${" in line:
        sentence += "; within { } and [ ], put quotes around ${...}"
    return sentence


class _DocumentError(Exception):
    """The document as a whole can not be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _TooMuchWrongError(Exception):
    """There is so much wrong in single places that it makes no sense to go on; line and sentence of each so far."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@dataclass(slots=True)
class _Node:
    line: int
    tag: str | None


@dataclass(slots=True)
class _Scalar(_Node):
    text: str
    plain: bool


@dataclass(slots=True)
class _Sequence(_Node):
    items: list[_Node] = field(default_factory=list)


@dataclass(slots=True)
class _Mapping(_Node):
    pairs: list[tuple[_Node, _Node]] = field(default_factory=list)


@dataclass(slots=True)
class _Alias(_Node):
    target: _Node


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class _Parser:
    """Events to nodes. An alias is a node that points to another; none can point to what it stands in."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, _Node | None] = {}
        self._nodes = 0

    def document(self) -> _Node | None:
        """Return the root of the only document, or None if there is none."""
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        root = self._node(next(self._events), 0)
        next(self._events)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            line = _line(following)
            raise _DocumentError(line, "a second document starts here; a config is one document, so drop the ---")
        return root

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        line = _line(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _DocumentError(line, f"has more than {MAX_NODES:,} values; put the jobs into a file of their own")
        if depth > MAX_DEPTH:
            raise _DocumentError(line, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        # Every other event that starts a node can have an anchor.
        anchor: str | None = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        node = self._new(event, line, depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str, line: int) -> _Alias:
        if anchor not in self._anchors:
            raise _DocumentError(line, f"there is no &{anchor} above for *{anchor}")
        target = self._anchors[anchor]
        if target is None:
            raise _DocumentError(line, f"*{anchor} stands within &{anchor}, so it would hold itself")
        return _Alias(line, None, target)

    def _new(self, event: yaml.Event, line: int, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return _Scalar(line, event.tag, event.value, plain=event.style in {None, ""})
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = _Sequence(line, event.tag)
            while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
                sequence.items.append(self._node(following, depth + 1))
            return sequence
        mapping = _Mapping(line, getattr(event, "tag", None))
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            key = self._node(following, depth + 1)
            mapping.pairs.append((key, self._node(next(self._events), depth + 1)))
        return mapping


class _Builder:
    """Nodes to data, each value as often as the document means it."""

    def __init__(self, environ: Mapping[str, str] | None) -> None:
        self.document = Document()
        self._environ = environ
        self._aliased = 0

    def build(self, node: _Node, path: KeyPath, line: int, *, aliased: bool = False) -> Any:
        """Return the value of a node, and note what is known about it."""
        if isinstance(node, _Alias):
            node, aliased = node.target, True
        self._aliased += aliased
        if self._aliased > MAX_ALIASED or len(path) > MAX_DEPTH:
            raise _DocumentError(line, f"aliases repeat more than {MAX_ALIASED:,} values; write less with them")
        self.document.lines[path] = line
        if isinstance(node, _Scalar):
            return self._scalar(node, path)
        if isinstance(node, _Sequence):
            self._expect_tag(node, path, "seq")
            return [
                self.build(item, (*path, index), item.line, aliased=aliased) for index, item in enumerate(node.items)
            ]
        self._expect_tag(node, path, "map")
        return self._mapping(node, path, aliased=aliased)

    def _mapping(self, node: _Node, path: KeyPath, *, aliased: bool) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.pairs if isinstance(node, _Mapping) else ():
            name = key.target if isinstance(key, _Alias) else key
            if not isinstance(name, _Scalar):
                self._problem(path, "a key is text, not a list or a mapping", key.line)
                continue
            place = (*path, name.text)
            if name.text in data:
                message = f"is here a second time; it first stands in line {self.document.lines[place]}"
                self._problem(place, message, key.line)
                continue
            data[name.text] = self.build(value, place, key.line, aliased=aliased)
        return data

    def _scalar(self, node: _Scalar, path: KeyPath) -> Any:
        text, plain = node.text, node.plain and node.tag is None
        if self._environ is not None and "${" in text:
            whole = _REFERENCE.fullmatch(text)
            text = self._substitute(text, path)
            plain = plain and whole is not None and whole[1] is not None
        value = resolve(text) if plain else text
        if node.tag not in {None, "!", f"{_TAG}str"}:
            value = self._tagged(node, path, resolve(text))
        if value is not None and not isinstance(value, str):
            self.document.texts[path] = text
        return value

    def _substitute(self, text: str, path: KeyPath) -> str:
        def replacement(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            variable: str | None = match[1]
            if variable is None:
                self._problem(
                    path,
                    "has a ${ that no name follows; write ${NAME}, ${NAME:default}, or $${ for a plain ${",
                )
                return ""
            self.document.variables.add(variable)
            self.document.substituted[path] = text
            if variable not in environ and match[2] is None:
                advice = f"set it, or write ${{{variable}:default}}"
                self._problem(path, f"the variable {variable} is not set; {advice}")
            return environ.get(variable, match[2] or "")

        environ = self._environ or {}
        return _REFERENCE.sub(replacement, text)

    def _tagged(self, node: _Scalar, path: KeyPath, value: Any) -> Any:
        wanted = _SCALAR_TAGS.get(node.tag or "")
        if wanted is None:
            self._refuse_tag(node, path)
        elif not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            self._problem(path, f"is not what its tag !!{(node.tag or '').removeprefix(_TAG)} says: {shown(value)}")
        return value

    def _expect_tag(self, node: _Node, path: KeyPath, expected: str) -> None:
        if node.tag not in {None, "!", _TAG + expected}:
            self._refuse_tag(node, path)

    def _refuse_tag(self, node: _Node, path: KeyPath) -> None:
        tag = (node.tag or "").replace(_TAG, "!!")
        self._problem(path, f"the tag {tag!r} is not allowed here; only !!str, !!int, !!float, !!bool and !!null are")

    def _problem(self, path: KeyPath, message: str, line: int | None = None) -> None:
        self.document.problems.append(Problem(path, message, line))
        if len(self.document.problems) > MAX_PROBLEMS:
            raise _TooMuchWrongError([self._told(problem) for problem in self.document.problems[:MOST_TOLD]])

    def _told(self, problem: Problem) -> tuple[int, str]:
        line = self.document.lines.get(problem.path, 1) if problem.line is None else problem.line
        return line, f"{dotted(problem.path)}: {problem.message}"
