"""Conditions over the fields of a record: ``status == 200 and "html" in content_type``.

The syntax is that of Python's expressions, of which only what is listed here is known; it is read into closures, and
never evaluated as Python. There are the names of fields, ``meta.name``, ``extracted.list[0]``, texts, numbers, lists,
``== != < <= > >= in not in``, ``and or not``, and the functions ``header(name)``, ``matches(text, pattern)`` and
``lower(text)``. What is absent is ``null``, is in no order with anything and contains nothing: such a comparison is
false and never an error, for records of failed jobs lack most of what others have.

A pattern is a regular expression as RE2 has it (https://github.com/google/re2/wiki/Syntax), whose search takes time in
proportion to the text whatever stands there: servers choose the texts, and with others a page could stop everything.
"""

from __future__ import annotations

import ast
import operator
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import re2
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from fetcher.errors import suggestion
from fetcher.fields import known_field

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Result

    Read = Callable[[Result], Any]

_LONGEST = 4000
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Condition:
    """A condition, read once and then asked for each record. Raises ValueError that says what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise ValueError(f"is longer than {_LONGEST} characters")
        try:
            self._read = _reader(ast.parse(text.strip(), mode="eval").body)
        except SyntaxError as error:
            place = f" at character {error.offset}" if error.offset else ""
            raise ValueError(f"can not be read{place}; write it like 'status == 200 and not truncated'") from None
        except (RecursionError, MemoryError):
            raise ValueError("is nested too deeply") from None

    def __call__(self, result: Result) -> bool:
        """Tell whether a record fulfils the condition."""
        return bool(self._read(result))

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _validated(value: object) -> object:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("condition", "should be a condition such as 'status == 200'")
    try:
        return Condition(value)
    except ValueError as error:
        raise PydanticCustomError("condition", "{words}", {"words": str(error)}) from None


ConditionText = Annotated[
    Condition,
    PlainValidator(_validated),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["status == 200"]}),
]


def _reader(node: ast.expr) -> Read:
    """Return the closure of a node. Raises ValueError for what is not known here."""
    make = _READERS.get(type(node))
    if make is None:
        raise ValueError(f"has {ast.unparse(node)[:60]!r}, which no condition can have")
    return make(node)


def _constant(node: ast.Constant) -> Read:
    value = node.value
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"has {ast.unparse(node)[:60]!r}, which no condition can have")  # noqa: TRY004  one kind of error
    return lambda _: value


def _list(node: ast.List | ast.Tuple | ast.Set) -> Read:
    items = [_reader(item) for item in node.elts]
    return lambda result: [item(result) for item in items]


def _name(node: ast.Name) -> Read:
    name = node.id
    if name.lower() in _CONSTANTS:
        constant = _CONSTANTS[name.lower()]
        return lambda _: constant
    if name in _FUNCTIONS:
        raise ValueError(f"has the function {name} without what it is to be applied to: {name}(...)")
    return operator.attrgetter(known_field(name))


def _attribute(node: ast.Attribute) -> Read:
    """Read ``meta.name``; only what came from outside has names that are not ours."""
    if isinstance(node.value, ast.Name) and node.value.id not in {"meta", "extracted"}:
        raise ValueError(f"has {ast.unparse(node)[:60]!r}, but only meta and extracted have something within")
    of, name = _reader(node.value), node.attr
    return lambda result: _within(of(result), name)


def _subscript(node: ast.Subscript) -> Read:
    of, key = _reader(node.value), _reader(node.slice)
    return lambda result: _within(of(result), key(result))


def _within(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        return value.get(key) if isinstance(key, str | int) else None
    if isinstance(value, list | tuple | str) and isinstance(key, int) and -len(value) <= key < len(value):
        return value[key]
    return None


def _bool(node: ast.BoolOp) -> Read:
    parts = [_reader(part) for part in node.values]
    if isinstance(node.op, ast.And):
        return lambda result: all(part(result) for part in parts)
    return lambda result: any(part(result) for part in parts)


def _unary(node: ast.UnaryOp) -> Read:
    of = _reader(node.operand)
    if isinstance(node.op, ast.Not):
        return lambda result: not of(result)
    if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = _number(node.operand)
        return lambda _: -value
    raise ValueError(f"has {ast.unparse(node)[:60]!r}, which no condition can have")


def _number(node: ast.Constant) -> int | float:
    """Return the number of a constant that stands behind a minus."""
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise ValueError(f"has a minus before {ast.unparse(node)[:60]!r}, which is no number")  # noqa: TRY004
    return node.value


def _compare(node: ast.Compare) -> Read:
    sides = [_reader(side) for side in (node.left, *node.comparators)]
    pairs = [_comparison(left, op, right) for left, op, right in zip(sides, node.ops, sides[1:], strict=False)]
    return pairs[0] if len(pairs) == 1 else lambda result: all(pair(result) for pair in pairs)


def _comparison(left: Read, op: ast.cmpop, right: Read) -> Read:
    if isinstance(op, ast.In | ast.NotIn):
        wanted = isinstance(op, ast.In)
        return lambda result: _contains(right(result), left(result)) is wanted
    if isinstance(op, ast.Is | ast.IsNot):
        raise ValueError("has 'is'; write == null or != null")  # noqa: TRY004  one kind of error
    compare = _COMPARE[type(op)]
    if compare in {operator.eq, operator.ne}:
        return lambda result: compare(left(result), right(result))
    return lambda result: _in_order(compare, left(result), right(result))


def _in_order(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    try:
        return compare(left, right)
    except TypeError:
        return False


def _contains(container: Any, item: Any) -> bool:
    if isinstance(container, bytes) and isinstance(item, str):
        item = item.encode("utf-8", "surrogatepass")
    try:
        return item in container
    except (TypeError, ValueError):  # 200 in b"...": a byte has no such value
        return False


def _call(node: ast.Call) -> Read:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)[:60]
    if name not in _FUNCTIONS:
        raise ValueError(f"has no function {name!r}{suggestion(name, _FUNCTIONS)}; there are {', '.join(_FUNCTIONS)}")
    count, make = _FUNCTIONS[name]
    if len(node.args) != count or node.keywords:
        raise ValueError(f"has {name} with {len(node.args) + len(node.keywords)} arguments; it takes {count}")
    return make(*node.args)


def _header(node: ast.expr) -> Read:
    """Read the value of a header of the response; several of them as one, as RFC 9110, section 5.3 has it."""
    name = _text(node, "header").lower()

    def read(result: Result) -> str | None:
        values = [value for key, value in result.headers or () if key.lower() == name]
        return ", ".join(values) if values else None

    return read


def _matches(node: ast.expr, pattern: ast.expr) -> Read:
    of, search = _reader(node), finder(_text(pattern, "matches"))

    def read(result: Result) -> bool:
        value = of(result)
        if isinstance(value, str):
            value = value.encode("utf-8", "replace")
        return isinstance(value, bytes) and search(value) is not None

    return read


@lru_cache(1024)
def finder(pattern: str) -> Callable[[bytes], object]:
    """Return what searches UTF-8 for a pattern (RE2), without the GIL. Raises ValueError for what is none."""
    options = re2.Options()
    options.log_errors = False
    try:
        search: Callable[[bytes], object] = re2.compile(pattern, options).search
    except re2.error as error:
        raise ValueError(f"has a pattern that is no regular expression: {_why(pattern, error)}") from None
    return search


def _why(pattern: str, error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    try:
        re.compile(pattern)
    except re.error:
        return words
    return f"{words}; patterns are those of RE2, which has no lookarounds and backreferences"


def _lower(node: ast.expr) -> Read:
    of = _reader(node)
    return lambda result: value.lower() if isinstance(value := of(result), str | bytes) else value


def _text(node: ast.expr, function: str) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        raise ValueError(f"has {function} with {ast.unparse(node)[:60]!r}, no text in quotes")  # noqa: TRY004
    return node.value


_FUNCTIONS: dict[str, tuple[int, Callable[..., Read]]] = {
    "header": (1, _header),
    "matches": (2, _matches),
    "lower": (1, _lower),
}
_READERS: dict[type[ast.expr], Callable[..., Read]] = {
    ast.Constant: _constant,
    ast.List: _list,
    ast.Tuple: _list,
    ast.Set: _list,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.BoolOp: _bool,
    ast.UnaryOp: _unary,
    ast.Compare: _compare,
    ast.Call: _call,
}
