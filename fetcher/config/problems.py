"""What is wrong with a config, in our words: one line each, with where it stands and what to do.

pydantic finds most problems, but its sentences speak of classes and show inputs. Here they are turned into
ours. The JSON Schema of the model says which keys there are (for suggestions) and what is secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fetcher.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

KeyPath = tuple[str | int, ...]
MOST_TOLD = 50
"""Problems of one config that are told; of the others, how many there are."""
_SHOWN = 60
_MANY = 8
_MAX_BITS = 200
_FEW = 3
_DEPTH = 3
_PARTS = {("queue",)}
_SYNONYMS = {
    # Of a sitemap, which may be either.
    "url": "location",
    "path": "location",
    # Schemes that share a section with another.
    "ws": "websocket",
    "wss": "websocket",
    "ftps": "ftp",
}


class ConfigProblems(ConfigError):  # noqa: N818  it is more than one
    """Everything that is wrong with a config; ``problems`` has one line for each, up to ``MOST_TOLD``.

    Whoever has a hundred thousand mistakes has made one of them, and the lines of all would be larger than the config.
    """

    def __init__(self, problems: Sequence[str], more: int = 0) -> None:
        """Keep the lines; the message is all of them. ``more`` is how many there are beside these."""
        told = list(problems)
        # A line that says that there is one more could as well be that one.
        if len(told) > MOST_TOLD + 1 or more:
            more += len(told[MOST_TOLD:])
            told = [*told[:MOST_TOLD], f"and {more:,} more"]
        super().__init__("\n".join(told))
        self.problems = told


class Problem(NamedTuple):
    """The path of the value that a problem is about, the sentence, and the line if it is not the path's."""

    path: KeyPath
    message: str
    line: int | None = None


def dotted(path: KeyPath) -> str:
    """Write a path as ``-s`` takes it: ``limits.hosts."api.example.org".rate``."""
    return ".".join(_segment(str(key)) for key in path)


def _segment(key: str) -> str:
    if not key.isprintable():
        return repr(key)
    return f'"{key}"' if not key or set(key) & set(".=\"' :") else key


def shown(value: object) -> str:  # noqa: PLR0911  a table
    """Describe a value within a sentence: short, on one line, nothing that a terminal would obey."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
        case int() | float():
            # repr of an int refuses thousands of digits.
            short = isinstance(value, float) or value.bit_length() < _MAX_BITS
            return repr(value) if short else "a number that long"
        case list() | tuple() | set() | frozenset():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


def translate(
    errors: Iterable[ErrorDetails],
    data: object,
    schema: Mapping[str, Any],
    substituted: Mapping[KeyPath, str],
) -> list[Problem]:
    """Turn pydantic's errors about ``data`` into problems, each once, in the order in which they were found.

    ``substituted`` has what the file has where a value came from the environment: it is shown in its place.
    """
    found: dict[Problem, None] = {}
    for error in errors:
        path, exact = _settle(error["loc"], data)
        if error["type"] == "extra_forbidden":
            message = _unknown_key(path, data, schema)
        else:
            # What was written in its short form is shown as it was written, not as what it stands for.
            value = shown(error["input"] if exact else _value_at(path, data))
            if any("writeOnly" in node for node in schemas_at(schema, path, data)):
                value = ""
            elif path in substituted:
                value = f"what {substituted[path]} gives"
            message = _sentence(error, value)
        found[Problem(path, message)] = None
    return list(found)


def _settle(loc: KeyPath, data: object) -> tuple[KeyPath, bool]:
    """Cut a location back to what stands in the data; False if there was something to cut.

    What stands in its short form (``queue: memory``) has no keys, though what it was expanded to has. A last
    step that is not in the data is kept: the error is that it is missing.
    """
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    for depth, key in enumerate(loc):
        if isinstance(data, dict) and key not in data:
            return loc[: depth + 1], True
        if not isinstance(data, dict | list) or (isinstance(data, list) and not _is_index(key, data)):
            return loc[:depth], False
        data = _child(data, key)
    return loc, True


def _is_index(key: str | int, items: Sequence[object]) -> bool:
    return isinstance(key, int) and 0 <= key < len(items)


def _child(data: object, key: str | int) -> object:
    if isinstance(data, dict):
        return data.get(key)
    return data[key] if isinstance(data, list) and isinstance(key, int) and _is_index(key, data) else None


def _value_at(path: KeyPath, data: object) -> object:
    for key in path:
        data = _child(data, key)
    return data


def schemas_at(schema: Mapping[str, Any], path: KeyPath, data: object) -> list[dict[str, Any]]:
    """Return the parts of a JSON Schema that apply to the value at a path, as far as the data decide."""
    nodes = _alternatives(schema, schema, data)
    for key in path:
        data = _child(data, key)
        nodes = [
            part for node in nodes for child in _children(node, key) for part in _alternatives(schema, child, data)
        ]
    return nodes


def _children(node: Mapping[str, Any], key: str | int) -> list[Mapping[str, Any]]:
    child = node.get("properties", {}).get(key, node.get("additionalProperties"))
    if isinstance(key, int):
        child = node.get("items")
    return [child] if isinstance(child, dict) else []


def _alternatives(root: Mapping[str, Any], node: Mapping[str, Any], data: object) -> list[dict[str, Any]]:
    """Follow references and unions; of parts told apart by their type, keep the one that the data name."""
    if "$ref" in node:
        target = root["$defs"][node["$ref"].rpartition("/")[2]]
        return _alternatives(root, target, data)
    options = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if options:
        return [part for option in options for part in _alternatives(root, option, data)]
    const = node.get("properties", {}).get("type", {}).get("const")
    named = data.get("type") if isinstance(data, dict) else None
    return [dict(node)] if const is None or named is None or const == named else []


def _unknown_key(path: KeyPath, data: object, schema: Mapping[str, Any]) -> str:
    known = {key for node in schemas_at(schema, path[:-1], data) for key in node.get("properties", {})}
    meant = _SYNONYMS.get(str(path[-1]))
    hint = f"; did you mean {meant!r}?" if meant in known else ""
    hint = hint or _elsewhere(path, schema) or suggestion(path[-1], sorted(known))
    if not hint and known:
        hint = f"; the keys here are {', '.join(sorted(known))}"
    return "unknown key" + hint


def _elsewhere(path: KeyPath, schema: Mapping[str, Any]) -> str:
    """Return where a key belongs that a section has of this very name, if there are not many."""
    if any(isinstance(key, int) for key in path):
        return ""  # that of a part, which is no section
    found = [place for place in _places(schema) if place[-1] == path[-1]]
    words = [dotted(place) if len(place) > 1 else f"{place[0]} at the top level" for place in found]
    return f"; it is {' or '.join(words)}" if 0 < len(words) <= _FEW else ""


def _places(schema: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Yield the paths of all keys of sections, and of sections in them; lists have none."""
    nodes: list[tuple[KeyPath, dict[str, Any]]] = [((), dict(schema))]
    for depth in range(_DEPTH):
        inner = {
            (*path, key): child
            for path, node in nodes
            for part in _alternatives(schema, node, None)
            for key, child in part.get("properties", {}).items()
        }
        yield from inner
        # A part has keys of its own, by its type.
        nodes = [(path, child) for path, child in inner.items() if depth or path not in _PARTS]


def _literal(error: ErrorDetails) -> str:
    names = _names(error)
    if len(names) <= _MANY:
        return f"should be {error['ctx']['expected']}"
    # A long list buries the one name that was meant.
    return "should be " + ("a name from the list" if _near(error) else "one of the names that `fetcher schema` lists")


def _names(error: ErrorDetails) -> list[str]:
    return [name.strip("' ") for name in re.split(",| or ", str(error["ctx"]["expected"]))]


def _near(error: ErrorDetails) -> str:
    return suggestion(error["input"], _names(error)) if error["type"] in {"literal_error", "enum"} else ""


# What a person reads instead of a regular expression; a test sees that each is one of a config.
_IN_WORDS = {
    r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$": "should be module:function, such as my_stages:clean",
    r"^[A-Za-z_][A-Za-z0-9_]{0,49}$": "should be letters, digits and '_' (a letter or '_' first, at most 50)",
    r"^[A-Za-z0-9_-]{1,255}$": "should be letters, digits, '-' and '_' (at most 255)",
    r"^[^\s.*>]+(\.[^\s.*>]+)*$": "should be words with dots between them, such as pages.fetched, and no * or >",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$": (
        "should be letters, digits, '.', '-' and '_' (a letter or digit first, at most 60)"
    ),
    r"^[A-Za-z0-9.:-]{1,253}$": "should be the name or address of a server, such as smtp.example.org",
}


def _pattern(error: ErrorDetails) -> str:
    pattern = error["ctx"]["pattern"]
    return _IN_WORDS.get(pattern, f"should match the pattern {pattern}")


def _bound(words: str, limit: str) -> Callable[[ErrorDetails], str]:
    return lambda error: f"should be {words} {error['ctx'][limit]:g}"


def _length(unit: str) -> Callable[[ErrorDetails], str]:
    def sentence(error: ErrorDetails) -> str:
        context = error["ctx"]
        few = context.get("min_length")
        if few == 1:
            return f"is empty; it needs at least one {unit}"
        bound = f"at least {few}" if few is not None else f"at most {context['max_length']}"
        return f"has the wrong length; it needs {bound} {unit}s"

    return sentence


def _own_words(error: ErrorDetails) -> str:
    return str(error["ctx"]["error"])


_WHOLE = "should be a whole number"
_NUMBER = "should be a number"
_SWITCH = "should be true or false"
_TEXT = "should be text"
_LIST = "should be a list"
_MAPPING = "should be a mapping (key: value)"
# A sentence that starts with "should" gets ", not <value>" behind it, unless the value is a secret.
_SENTENCES: dict[str, str | Callable[[ErrorDetails], str]] = {
    "missing": "is missing",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "should be a smaller number",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "should be a finite number",
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "string_type": _TEXT,
    "string_unicode": "should be text that can be written as UTF-8",
    "string_pattern_mismatch": _pattern,
    "string_too_short": _length("character"),
    "string_too_long": _length("character"),
    "too_short": _length("item"),
    "too_long": _length("item"),
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "literal_error": _literal,
    "enum": _literal,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "value_error": _own_words,
}


def sentence(error: ErrorDetails) -> str:
    """Return our sentence for an error of pydantic about a value that is no secret."""
    return _sentence(error, shown(error["input"]))


def _sentence(error: ErrorDetails, value: str) -> str:
    """Return the sentence for an error; ``value`` is how to show what was there, if it may be shown."""
    known = _SENTENCES.get(error["type"])
    if known is None:
        # Our own PydanticCustomErrors come with our own words.
        known = error["msg"]
    sentence = known if isinstance(known, str) else known(error)
    if not sentence.startswith("should ") or not value:
        return sentence
    return f"{sentence}, not {value}{_near(error)}"
