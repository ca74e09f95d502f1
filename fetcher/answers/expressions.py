"""Expressions over JSON: JMESPath, by which an answer is asked for something.

What is false in JMESPath is ``false``, ``null`` and whatever is empty: ``""``, ``[]``, ``{}``. The number 0 is true.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, MissingExtraError, suggestion
from fetcher.extras import load_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 200
# A list of many fields is below it, and what doubles at every step is soon above.
_MOST_GROWTH = 1000
_EITHER = frozenset({"comparator", "and_expression", "or_expression", "not_expression"})
_SEVERAL = frozenset({"multi_select_list", "multi_select_dict"})


def compiled(expression: str, user: str) -> Callable[[Any], Any]:
    """Return what applies an expression to JSON as Python has it; that raises ValueError if it can not be applied.

    Raises MissingExtraError without the library, and ConfigError that begins with ``user`` for what is no JMESPath.
    """
    jmespath = load_extra("jmespath", "extract", user)
    try:
        parsed = jmespath.compile(expression)
        _check_functions(parsed.parsed, jmespath.functions.Functions.FUNCTION_TABLE)
        _check_growth(parsed.parsed)
    except (ValueError, RecursionError) as error:
        said = str(error).partition("\n")[0].removeprefix("Invalid jmespath expression: ").rstrip(":")
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else said
        raise ConfigError(f"{user}: {expression[:_SHOWN]!r} is no JMESPath: {reason}") from error

    def apply(data: Any) -> Any:
        try:
            return parsed.search(data)
        except jmespath.exceptions.JMESPathTypeError as error:
            # Not what it says itself, which quotes the value.
            wanted = ", ".join(error.expected_types)
            raise ValueError(f"{error.function_name}() is given a {error.actual_type}, and takes {wanted}") from None
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(str(error)) from None
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            # Its functions check most of what they are given, not all of it: contains('a', `1`) is a TypeError.
            raise ValueError(f"it can not be applied: {error}") from None

    return apply


def _readable(expression: str) -> str:
    try:
        compiled(expression, "")
    except MissingExtraError:
        pass  # whoever opens the part says what is to be installed
    except ConfigError as error:
        words = str(error).removeprefix(": ")
        raise PydanticCustomError("jmespath", "{words}", {"words": words}) from None
    return expression


JmesPath = Annotated[str, Field(min_length=1), AfterValidator(_readable)]
"""An expression in a config: one that can not be read is told with its place, and with all else that is wrong."""


def json_of(body: bytes) -> Any:
    """Return a body as JSON. Raises ValueError that says why it is none."""
    try:
        return msgspec.json.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except UnicodeDecodeError:
        raise ValueError("the body is not JSON: it is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None


def is_true(value: Any) -> bool:
    """Tell whether a value is true, as JMESPath has it."""
    return bool(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def _check_functions(node: Any, table: Mapping[str, Any]) -> None:
    """Raise ValueError for functions that there are not: of those the library only says so once they are called."""
    nodes = [node]
    while nodes:
        found = nodes.pop()
        nodes += _children(found)
        if found["type"] != "function_expression":
            continue
        name, count = found["value"], len(found["children"])
        if name not in table:
            raise ValueError(f"there is no function {name}(){suggestion(name, table)}")
        signature = table[name]["signature"]
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if count < len(signature) or (count > len(signature) and not variadic):
            raise ValueError(f"{name}() takes {len(signature)} arguments, not {count}")


def _check_growth(node: Any) -> None:
    """Raise ValueError for an expression that could take all memory, whatever it is applied to."""
    if _growth(node) > _MOST_GROWTH:
        raise ValueError("it makes too many copies of what it is given")


def _growth(node: Any) -> int:
    """Return how many copies of what it is given an expression can make: ``[@, @][]`` makes two, and thrice that 8.

    Somebody else may have written it, and it is applied among everything else that goes on.
    """
    sizes = [_growth(child) for child in _children(node)]
    if node["type"] in _SEVERAL:
        return sum(sizes)
    return max(sizes, default=1) if node["type"] in _EITHER else prod(sizes)


def _children(node: Any) -> list[Any]:
    """Return the nodes under a node; those of a slice are numbers."""
    return [child for child in node["children"] if isinstance(child, dict)]
