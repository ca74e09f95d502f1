"""Which parts there are: type name -> ``module:ConfigClass``, imported when a config first names it.

A part is added by a line here, or by a package that declares an entry point in the group ``fetcher.<kind>``.
"""

from __future__ import annotations

import importlib
import operator
from functools import cache, reduce
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from fetcher.settings import Settings

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


def _type_of(value: Any) -> str | None:  # noqa: ANN401  whatever a person wrote into a config
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else None


@cache
def union(kind: Kind) -> Any:  # noqa: ANN401  a typing construct
    """Return the annotation "any part of this kind, told apart by ``type``", for use in a pydantic model."""
    members = [Annotated[config_class(kind, name), Tag(name)] for name in parts(kind)]
    return Annotated[reduce(operator.or_, members), Discriminator(_type_of)]
