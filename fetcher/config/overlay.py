"""What a service has a say in, in the config of a batch: how http is spoken, and where the batch keeps its state.

What is about connections is the service's alone, as all batches share them; above all the guard is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from fetcher.config.problems import Problem
from fetcher.registry import config_class

if TYPE_CHECKING:
    from pathlib import Path

    from fetcher.config.document import Document
    from fetcher.config.model import Config
    from fetcher.settings import Settings

    Http = TypeVar("Http", bound=Settings)

_HTTP = "http"


def not_of_batch(document: Document) -> list[Problem]:
    """Return an objection to each key of ``http`` in the config of a batch that is the service's: for ``load_text``.

    A key that there is not, and a value that makes no sense, is objected to elsewhere.
    """
    written = document.data.get(_HTTP) if isinstance(document.data, dict) else None
    if not isinstance(written, dict):
        return []
    known = config_class("transports", _HTTP)
    return [
        Problem((_HTTP, key), "is the service's: set it in the config of the service")
        for key in written
        if key in known.model_fields and key not in _per_batch(known)
    ]


def overlaid(service: Http, own: Settings) -> Http:
    """Return the settings of a batch: what it says by itself of what it may, and for the rest the service's.

    Only what was written counts: a default of the batch is no wish. What else it says is ignored.
    """
    said = own.model_fields_set & _per_batch(type(service))
    return service.model_copy(update={key: getattr(own, key) for key in said})


def kept_in(folder: Path, config: Config) -> Config:
    """Return the config of a batch that keeps its state in a folder of its own, and not under ``state/``.

    That is its queue, whatever it says of where that is, and what sinks would put aside there.
    """
    changed: dict[str, Any] = {"sinks": [_rejecting_into(folder, sink) for sink in config.sinks]}
    if "path" in type(config.queue).model_fields:
        changed["queue"] = config.queue.model_copy(update={"path": str(folder / "queue.db")})
    return config.model_copy(update=changed)


def _rejecting_into(folder: Path, sink: Settings) -> Settings:
    """Return a sink that keeps what its receiver rejects in the folder, unless it says where."""
    rejected = getattr(sink, "rejected", None)
    if "rejected" in sink.model_fields_set or not isinstance(rejected, str):
        return sink
    return sink.model_copy(update={"rejected": str(folder / rejected.removeprefix("state/"))})


def _per_batch(http: type[Settings]) -> frozenset[str]:
    keys: frozenset[str] = getattr(http, "PER_BATCH", frozenset())
    return keys
