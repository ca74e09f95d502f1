"""Which parts there are: type name -> ``module:ConfigClass``, imported when a config first names it.

A part is added by a line here, or by a package that declares an entry point in the group ``fetcher.<kind>``.

In a config model, ``Annotated[Settings, Part("sinks")]`` is a field that takes any part of that kind.
"""

from __future__ import annotations

import importlib
import operator
import sys
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from fetcher.errors import suggestion
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

Kind = Literal["sources", "queues", "transports", "formats", "sinks"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "sources": {
        "inline": "fetcher.sources.inline:InlineConfig",
        "file": "fetcher.sources.file:FileSourceConfig",
        "template": "fetcher.sources.template:TemplateConfig",
    },
    "queues": {
        "memory": "fetcher.queues.memory:MemoryQueueConfig",
        "sqlite": "fetcher.queues.sqlite:SqliteQueueConfig",
    },
    "transports": {
        "http": "fetcher.transports.http.transport:HttpConfig",
    },
    "formats": {
        "jsonl": "fetcher.formats.jsonl:JsonlConfig",
    },
    "sinks": {
        "file": "fetcher.sinks.file:FileSinkConfig",
        "stdout": "fetcher.sinks.stdout:StdoutConfig",
    },
}


@cache
def parts(kind: Kind) -> dict[str, str]:
    """Return every known part of a kind, built in or installed, as type name -> ``module:ConfigClass``."""
    installed = {point.name: point.value for point in entry_points(group=f"fetcher.{kind}")}
    return BUILT_IN[kind] | installed


@cache
def config_class(kind: Kind, name: str) -> type[Settings]:
    """Import the config class of a part. Raises KeyError if there is no such part."""
    module, _, attribute = parts(kind)[name].partition(":")
    loaded: type[Settings] = getattr(importlib.import_module(module), attribute)
    return loaded


def _type_of(value: Any) -> str | None:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


@cache
def union(kind: Kind) -> Any:
    """Return the annotation "any part of this kind, told apart by ``type``", for use in a pydantic model."""
    members = [Annotated[config_class(kind, name), Tag(name)] for name in parts(kind)]
    return Annotated[reduce(operator.or_, members), Discriminator(_type_of)]


@cache
def suffixes() -> dict[str, str]:
    """Return the file name suffixes that formats call theirs (``SUFFIXES`` beside the config class)."""
    modules = {name: sys.modules[config_class("formats", name).__module__] for name in parts("formats")}
    return {suffix: name for name, module in modules.items() for suffix in getattr(module, "SUFFIXES", ())}


def format_by_name(path: str) -> str:
    """Return the format that a file name asks for. Raises ValueError if it asks for none."""
    known = suffixes()
    fitting = [suffix for suffix in known if path.lower().endswith(suffix)]
    if not fitting:
        raise ValueError(
            f"can not be told from the name {path[:200]!r}: it ends in none of {', '.join(known)}; "
            "rename it, or write out its type, path and format"
        )
    return known[max(fitting, key=len)]


@dataclass(frozen=True)
class Part:
    """Marks a field that takes a part: any of its kind, told apart by ``type``, or ``only`` that one.

    A part may be written as a text: ``shorthand`` says what it stands for, by default for its ``type``. Only
    the part that is named gets imported, and unlike in a union its type is no step in the path of an error.
    """

    kind: Kind
    only: str | None = None
    shorthand: Callable[[str], dict[str, Any]] | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Tell pydantic how to validate. The any schema dumps what it is given as its own class says."""
        return core_schema.no_info_before_validator_function(self._validate, core_schema.any_schema())

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell editors what may be written, which takes the import of all parts of the kind."""
        if self.only is not None:
            return handler(TypeAdapter(config_class(self.kind, self.only)).core_schema)
        text: dict[str, Any] = {"type": "string"}
        if self.shorthand is None:
            text["enum"] = list(parts(self.kind))
        return {"anyOf": [text, handler(TypeAdapter(union(self.kind)).core_schema)]}

    def _validate(self, value: object) -> Settings:
        if self.only is not None:
            return config_class(self.kind, self.only).model_validate(value)
        if isinstance(value, str):
            value = {"type": value} if self.shorthand is None else self.shorthand(value)
        if not isinstance(value, dict | Settings):
            raise PydanticCustomError("part", "should be a text or a mapping with a type")
        name = _type_of(value)
        if name is None and (not isinstance(value, dict) or "type" not in value):
            raise PydanticCustomError(
                "part", "has no type; write one of {names}", {"names": ", ".join(sorted(parts(self.kind)))}
            )
        if name not in parts(self.kind):
            self._unknown(name if isinstance(value, Settings) or name is not None else value["type"])
        # A ValidationError raised here becomes part of the outer one, with its paths behind ours.
        return config_class(self.kind, str(name)).model_validate(value)

    def _unknown(self, name: object) -> NoReturn:
        names = sorted(parts(self.kind))
        hint = suggestion(name, names)
        message = f"no such {self.kind[:-1]} {str(name)[:60]!r}{hint} ({', '.join(names)})"
        error = PydanticCustomError("no_such_part", "{message}", {"message": message})
        raise ValidationError.from_exception_data("part", [InitErrorDetails(type=error, loc=("type",), input=name)])
