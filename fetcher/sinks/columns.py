"""Results as columns of a table, for the sinks that write to databases.

The columns are the fields of the record by their names, of the type that the field has; what is made of parts
(``headers``, ``redirects``, ``extracted``, ``meta``) is JSON, and a body is bytes. Beside them ``run`` says which run
wrote a row. Integers have 64 bits: one that is longer, which a server may well claim, is null.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.model import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Kind = Literal["text", "integer", "real", "boolean", "blob", "time", "json"]

KEY = ("batch", "job_id")
"""By what a row is known: a record that comes again takes the place of the earlier one."""
RUN = "run"
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_INTEGER_END = 2**63
_KINDS: dict[type[msgspec.inspect.Type], Kind] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.EnumType: "text",
    msgspec.inspect.IntType: "integer",
    msgspec.inspect.FloatType: "real",
    msgspec.inspect.BoolType: "boolean",
    msgspec.inspect.BytesType: "blob",
    msgspec.inspect.DateTimeType: "time",
}


class Column(msgspec.Struct, frozen=True):
    """A column of the table: its name, its type in no particular database, and whether every record has it."""

    name: str
    kind: Kind
    required: bool = False


def _columns() -> tuple[Column, ...]:
    about: Any = msgspec.inspect.type_info(Result)
    return tuple(Column(field.name, _kind(field.type), field.required) for field in about.fields)


def _kind(annotated: Any) -> Kind:
    """Return the kind of a field, null or not; what has none of its own is JSON."""
    members = annotated.types if isinstance(annotated, msgspec.inspect.UnionType) else (annotated,)
    found = [_KINDS[type(one)] for one in members if type(one) in _KINDS]
    return found[0] if found else "json"


COLUMNS = _columns()
_GETTERS = [attrgetter(column.name) for column in COLUMNS]


def transposed(results: Sequence[Result], convert: Mapping[Kind, Callable[[Any], Any]]) -> list[list[Any]]:
    """Return results as the values of each column; ``convert`` says what a database wants instead of a value."""
    values = [list(map(getter, results)) for getter in _GETTERS]
    for index, column in enumerate(COLUMNS):
        function = convert.get(column.kind)
        if function is not None:
            values[index] = [None if value is None else function(value) for value in values[index]]
    return values


def latest(results: Sequence[Result]) -> Sequence[Result]:
    """Return one result for each key, the last: no statement can write a row twice."""
    unique = {(result.batch, result.job_id): result for result in results}
    return results if len(unique) == len(results) else list(unique.values())


def integer(value: int) -> int | None:
    """Return a number if it is one of 64 bits."""
    return value if -_INTEGER_END <= value < _INTEGER_END else None


def writable(text: str) -> str:
    """Return a text with each lone surrogate, which UTF-8 can not write, replaced by a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def json_text(value: Any) -> str:
    """Return any value of a record as JSON."""
    try:
        return _ENCODER.encode(value).decode()
    except UnicodeEncodeError:
        return _ENCODER.encode(mapped(writable, value)).decode()


def mapped(change: Callable[[str], str], value: Any) -> Any:
    """Return a value of a record with all texts in it changed, names included."""
    return _mapped(change, msgspec.to_builtins(value))


def _mapped(change: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(change, name): _mapped(change, item) for name, item in value.items()}
    return [_mapped(change, item) for item in value] if isinstance(value, list | tuple) else value


def _plain(name: str) -> str:
    if name.lower().startswith(("sqlite_", "pg_", "fetcher_")):
        raise PydanticCustomError("identifier", "begins with what is reserved (sqlite_, pg_, fetcher_); choose another")
    return name


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,49}$"), AfterValidator(_plain)]
"""The name of a table or schema. It is quoted wherever it is used, and so upper and lower case differ."""


def quoted(name: str) -> str:
    """Return an identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def upsert_tail() -> str:
    """Return what follows the rows of an INSERT, so that a row that is there takes the new values."""
    changes = [column.name for column in COLUMNS if column.name not in KEY] + [RUN]
    assignments = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in changes)
    return f"ON CONFLICT ({', '.join(map(quoted, KEY))}) DO UPDATE SET {assignments}"
