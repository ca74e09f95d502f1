"""Which parts there are: type name -> ``module:ConfigClass``, imported when a config first names it.

A part is added by a line here, or by a package that declares an entry point in the group ``fetcher.<kind>``.

In a config model, ``Annotated[Settings, Part("sinks")]`` is a field that takes any part of that kind.
"""

from __future__ import annotations

import importlib
import operator
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from fetcher.errors import ConfigError, suggestion
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint
    from types import ModuleType

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

Kind = Literal["sources", "queues", "transports", "stages", "formats", "sinks"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "sources": {
        "inline": "fetcher.sources.inline:InlineConfig",
        "file": "fetcher.sources.file:FileSourceConfig",
        "template": "fetcher.sources.template:TemplateConfig",
        "sitemap": "fetcher.sources.sitemap:SitemapConfig",
        "sqlite": "fetcher.sources.sqlite:SqliteSourceConfig",
        "postgres": "fetcher.sources.postgres:PostgresSourceConfig",
    },
    "queues": {
        "memory": "fetcher.queues.memory:MemoryQueueConfig",
        "sqlite": "fetcher.queues.sqlite:SqliteQueueConfig",
    },
    "transports": {
        "http": "fetcher.transports.http.transport:HttpConfig",
        "ftp": "fetcher.transports.ftp.transport:FtpConfig",
        "tcp": "fetcher.transports.tcp:TcpConfig",
        "udp": "fetcher.transports.udp:UdpConfig",
        "websocket": "fetcher.transports.websocket:WebSocketConfig",
    },
    "stages": {
        "where": "fetcher.stages.where:WhereConfig",
        "select": "fetcher.stages.select:SelectConfig",
        "decode": "fetcher.stages.decode:DecodeConfig",
        "extract": "fetcher.stages.extract:ExtractConfig",
        "python": "fetcher.stages.python:PythonConfig",
    },
    "formats": {
        "jsonl": "fetcher.formats.jsonl:JsonlConfig",
        "csv": "fetcher.formats.csv:CsvConfig",
        "parquet": "fetcher.formats.parquet:ParquetConfig",
        "warc": "fetcher.formats.warc:WarcConfig",
        "body": "fetcher.formats.body:BodyFormatConfig",
    },
    "sinks": {
        "file": "fetcher.sinks.file:FileSinkConfig",
        "stdout": "fetcher.sinks.stdout:StdoutConfig",
        "webhook": "fetcher.sinks.webhook:WebhookConfig",
        "redis": "fetcher.sinks.redis:RedisConfig",
        "nats": "fetcher.sinks.nats:NatsConfig",
        "email": "fetcher.sinks.email:EmailConfig",
        "sqlite": "fetcher.sinks.sqlite:SqliteSinkConfig",
        "postgres": "fetcher.sinks.postgres:PostgresSinkConfig",
        "objectstore": "fetcher.sinks.objectstore:ObjectStoreConfig",
    },
}

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""What the last suffix of an output's name says, for the formats that have a ``compression``."""


@dataclass(frozen=True)
class Origin:
    """Where a part comes from: ``module:Class``, and the package that brought it, None if it is built in."""

    target: str
    package: str | None = None

    def __str__(self) -> str:
        return self.package or "built in"


class BrokenPartError(ConfigError):
    """A part of an installed package can not be loaded; the message names both."""


def origins(kind: Kind) -> dict[str, Origin]:
    """Return every known part of a kind by its type name. An installed one never stands in for one that is built in."""
    return _installed(kind) | {name: Origin(target) for name, target in BUILT_IN[kind].items()}


@cache
def _installed(kind: Kind) -> dict[str, Origin]:
    return {point.name: Origin(point.value, _package(point)) for point in entry_points(group=f"fetcher.{kind}")}


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an installed package"


@cache
def parts(kind: Kind) -> dict[str, str]:
    """Return every known part of a kind, built in or installed, as type name -> ``module:ConfigClass``."""
    return {name: origin.target for name, origin in origins(kind).items()}


@cache
def config_class(kind: Kind, name: str) -> type[Settings]:
    """Import the config class of a part.

    Raises KeyError if there is no such part, BrokenPartError if it is that of a package and can not be used.
    """
    module, _, attribute = parts(kind)[name].partition(":")
    package = getattr(origins(kind).get(name), "package", None)
    if package is None:
        loaded: type[Settings] = getattr(importlib.import_module(module), attribute)
        return loaded
    try:
        loaded = getattr(importlib.import_module(module), attribute)
        _check(loaded, name)
    # An exit, too: a module that ends the process at its import would end every command, even one without the part.
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise BrokenPartError(
            f"{kind[:-1]} {name!r} of {package} can not be loaded ({reason}); mend the package or uninstall it"
        ) from error
    return loaded


def _check(loaded: object, name: str) -> None:
    """Raise TypeError for what is no config class of that type."""
    if not isinstance(loaded, type) or not issubclass(loaded, Settings):
        raise TypeError(f"{loaded!r:.80} is no subclass of fetcher.settings.Settings")
    own = loaded.model_fields.get("type")
    if own is None or own.default != name:
        raise TypeError(f"{loaded.__name__} has no field 'type' that is {name!r} by default")
    if not callable(getattr(loaded, "build", None)):
        raise TypeError(f"{loaded.__name__} has no method build")
    _check_suffixes(sys.modules[loaded.__module__])


def _check_suffixes(module: ModuleType) -> None:
    found = getattr(module, "SUFFIXES", ())
    if not isinstance(found, tuple | list) or not all(isinstance(one, str) and one.startswith(".") for one in found):
        raise TypeError(f"SUFFIXES of {module.__name__} is {found!r:.60}, no tuple of texts such as ('.txt',)")


def _usable(kind: Kind) -> dict[str, type[Settings]]:
    """Return the config classes of all parts that can be loaded: one that can not must not spoil the others."""
    found = {}
    for name in parts(kind):
        with suppress(BrokenPartError):
            found[name] = config_class(kind, name)
    return found


def _type_of(value: Any) -> str | None:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


@cache
def union(kind: Kind) -> Any:
    """Return the annotation "any part of this kind, told apart by ``type``", for use in a pydantic model."""
    members = [Annotated[found, Tag(name)] for name, found in _usable(kind).items()]
    return Annotated[reduce(operator.or_, members), Discriminator(_type_of)]


@cache
def suffixes() -> dict[str, str]:
    """Return the file name suffixes that formats call theirs (``SUFFIXES`` beside the config class)."""
    modules = {name: sys.modules[found.__module__] for name, found in _usable("formats").items()}
    return {suffix: name for name, module in modules.items() for suffix in getattr(module, "SUFFIXES", ())}


def _split(path: str) -> tuple[str, str | None]:
    """Return a path in lower case, without a suffix of compression, and the compression that it stands for."""
    lower = path.lower()
    found = next((suffix for suffix in COMPRESSIONS if lower.endswith(suffix)), None)
    return (lower, None) if found is None else (lower.removesuffix(found), COMPRESSIONS[found])


def _compresses(name: str) -> bool:
    return name in parts("formats") and "compression" in config_class("formats", name).model_fields


def format_by_name(path: str) -> str:
    """Return the format that a file name asks for. Raises ValueError if it asks for none."""
    known = suffixes()
    inner, compression = _split(path)
    fitting = [suffix for suffix in known if path.lower().endswith(suffix)]
    if compression is not None:
        fitting += [suffix for suffix in known if inner.endswith(suffix) and _compresses(known[suffix])]
    if not fitting:
        several = [suffix for suffix in known if _compresses(known[suffix])]
        plain = [suffix for suffix in known if suffix not in several]
        there = f"{', '.join(several)} (or these with {' or '.join(COMPRESSIONS)} behind)"
        raise ValueError(
            f"can not be told from the name {path[:200]!r}: it ends in none of {', '.join([there, *plain])}; "
            "rename it, or write out its type, path and format"
        )
    return known[max(fitting, key=len)]


def format_of(path: str, given: Any = None) -> Any:
    """Return the format of an output: what is given, and for the rest what the suffixes of its path say.

    So ``out.csv.gz`` is compressed though only ``{type: csv, columns: [url]}`` was given. Raises ValueError if nothing
    is given and the name asks for none.
    """
    if given is None:
        given = format_by_name(path)
    if isinstance(given, str):
        given = {"type": given}
    compression = _split(path)[1]
    name = _type_of(given)
    if not isinstance(given, dict) or name is None or compression is None or "compression" in given:
        return given
    return given | {"compression": compression} if _compresses(name) else given


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
        try:
            found = config_class(self.kind, str(name))
        except BrokenPartError as error:
            raise PydanticCustomError("broken_part", "{words}", {"words": str(error)}) from None
        # A ValidationError raised here becomes part of the outer one, with its paths behind ours.
        return found.model_validate(value)

    def _unknown(self, name: object) -> NoReturn:
        names = sorted(parts(self.kind))
        hint = suggestion(name, names)
        message = f"no such {self.kind[:-1]} {str(name)[:60]!r}{hint} ({', '.join(names)})"
        error = PydanticCustomError("no_such_part", "{message}", {"message": message})
        raise ValidationError.from_exception_data("part", [InitErrorDetails(type=error, loc=("type",), input=name)])
