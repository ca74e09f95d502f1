"""What a submitted config may do, and how it becomes that of a batch of the service.

Whoever may submit a batch is not whoever runs the service: a config reads and writes within one folder, knows the
variables of the environment that it is meant to know, runs no code unless it may, and shares connections and guard
with all the others. What is refused is refused with its line and field, before anything is read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fetcher.config import Config, ConfigProblems
from fetcher.config.document import UNSET
from fetcher.config.loading import load_text
from fetcher.config.overlay import not_of_batch, overlaid
from fetcher.config.overrides import Layered
from fetcher.config.problems import Problem
from fetcher.guard import GuardSettings
from fetcher.registry import config_class
from fetcher.service.batches import connections
from fetcher.service.batches.territory import Search, Territory
from fetcher.service.batches.workspace import QUEUE, RESULTS, upload_name
from fetcher.settings import BodySettings, Settings, secrets_checked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fetcher.config.document import Document
    from fetcher.config.problems import KeyPath
    from fetcher.service.settings import ServiceConfig

UPLOAD = "upload"
"""What the path of a source is that means the file that came with the config."""
_PATHS = frozenset(
    {"path", "location", "work", "rejected", "ca_file", "client_cert", "client_key", "upload_dir", "keep"}
)
_ONLY_READ = frozenset({"ca_file", "client_cert", "client_key"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Which of its paths a part takes for something elsewhere; those of all other parts are files here, whatever they look
# like. ``file`` is what it is.
_ELSEWHERE = {
    ("sources", "file"): connections.STORES,
    ("sources", "sitemap"): frozenset({"http", "https"}),
    ("sinks", "objectstore"): connections.STORES | {"file"},
}
# Parts that take from the environment what they are not told: by what their paths, or their types, are.
_AMBIENT: dict[str, tuple[str, ...]] = {
    "s3": ("AWS_",),
    "gs": ("GOOGLE_",),
    "az": ("AZURE_",),
    "postgres": ("PGPASS", "PGSERVICE", "PGSSL"),
}
_RESULTS_NAME = "results"
_BODIES: str = BodySettings.model_fields["path"].default


class Rules:
    """What the batches of one service may do."""

    def __init__(self, service: ServiceConfig, environ: Mapping[str, str] = os.environ) -> None:
        self._service = service
        self._settings = service.service
        self._all = environ
        self._environ = {name: environ[name] for name in self._settings.env if name in environ}
        self._territory = Territory(service)

    def load(
        self, text: str, name: str, folder: Path, *, upload: Path | None = None, moved: bool = True, again: bool = False
    ) -> Config:
        """Return the config of a batch that is kept in ``folder``. Reads files, so it is called on a thread.

        ``upload`` is the file that came with it, under its own name; ``moved`` tells whether it is in the folder by
        now. ``again``: outputs that are there by now are appended to. Raises ConfigProblems with everything that is
        wrong.
        """
        documents: list[Document] = []
        given = None if upload is None else str(folder / upload_name(upload) if moved else upload)

        def check(document: Document) -> list[Problem]:
            documents.append(document)
            # A variable is there to be named, and lays no value over a config by its name.
            document.variables |= self._environ.keys()
            _add_upload(document.data, given)
            _add_results(document.data, folder)
            if self._territory.to_write(_BODIES) is not None:
                _add_body_path(document.data, f"{self._settings.files}/bodies/{{sha256:2}}/{{sha256}}")
            self._explain_variables(document)
            return not_of_batch(document)

        with secrets_checked(self._secret_objection):
            config = load_text(Config, text, name, (), self._environ, check)
        problems = list(self._problems(config, {given, str(folder / RESULTS)}))
        if problems:
            layered = Layered.over(documents[0], name)
            raise ConfigProblems([line for _, line in sorted(map(layered.tell, problems))])
        return self._settled(config, folder, again=again)

    # Before anything is validated

    def _explain_variables(self, document: Document) -> None:
        """Say of variables that there are, but not for batches, who may change that."""
        for index, problem in enumerate(document.problems):
            unset = UNSET.match(problem.message)
            if unset is not None:
                message = f"the variable {unset[1]} is not there for batches; service.env can let them have it"
                document.problems[index] = Problem(problem.path, message, problem.line)

    def _secret_objection(self, kind: str, name: str) -> str | None:
        if kind == "env":
            known = name in self._settings.env
            return None if known else f"the variable {name[:100]} is not there for batches; service.env can change that"
        return self._territory.to_read(name, Search())

    # Before anything is opened

    def _problems(self, config: Config, own: set[str | None]) -> Iterator[Problem]:
        search = Search()
        for path, part in _parts(config):
            yield from self._of_part(path, part)
            elsewhere = _ELSEWHERE.get((str(path[0]), getattr(part, "type", "")), frozenset())
            for at, field, value in _texts(part, path):
                local = _local(value, elsewhere) if field in _PATHS and value not in own else None
                if local is not None and (why := self._objection(path, field, local, search)) is not None:
                    yield Problem(at, why)

    def _of_part(self, path: KeyPath, part: Settings) -> Iterator[Problem]:
        kind = getattr(part, "type", None)
        if kind == "stdout" or (path[0] == "sources" and getattr(part, "path", None) == "-"):
            yield Problem(path, "standard input and output are not there for batches of a service; name a file")
        if kind == "python" and not self._settings.python:
            yield Problem(path, "runs code in the service, which service.python does not allow")
        # Without one of its own, a part has that of http.
        guarded = "guard" not in part.model_fields_set or getattr(part, "guard", None) == GuardSettings()
        if not guarded and self._service.guard is not None:
            yield Problem((*path, "guard"), "is the service's: set it in the config of the service, as http.guard")
        guarded, unguarded = self._service.guard is not None, frozenset(self._settings.unguarded)
        yield from connections.problems(path, part, guarded=guarded, unguarded=unguarded)
        for word, prefix in _AMBIENT.items():
            if word in {kind, *connections.schemes(part)}:
                found = sorted(name for name in self._all if name.startswith(prefix))
                hidden = [name for name in found if name not in self._settings.env]
                if hidden:
                    message = f"would use {', '.join(hidden)} of the service's environment, which service.env can allow"
                    yield Problem(path, message)

    def _objection(self, path: KeyPath, field: str, local: str, search: Search) -> str | None:
        """Say why a part may not use a file, None if it may."""
        is_read = path[0] == "sources" or field in _ONLY_READ
        return self._territory.to_read(local, search) if is_read else self._territory.to_write(local)

    # What the service decides

    def _settled(self, config: Config, folder: Path, *, again: bool) -> Config:
        limit = self._settings.shutdown_timeout
        changes: dict[str, Any] = {
            "queue": _queue(config.queue, folder),
            "http": self._http(config),
            # Jobs in flight get most of it, and what they gave the rest.
            "shutdown_timeout": min(config.shutdown_timeout, limit * 0.4),
            "sources": list(map(connections.without_password_file, config.sources)),
            "sinks": [connections.without_password_file(_appending(sink) if again else sink) for sink in config.sinks],
        }
        if "upload_dir" not in config.request.model_fields_set and self._territory.to_write(".") is not None:
            # What jobs send is read within this folder, and by default that is where the service itself is.
            changes["request"] = config.request.model_copy(update={"upload_dir": f"{self._settings.files}/uploads"})
        if config.body.store == "file":
            # Batches of one name may arrive side by side.
            changes["body"] = config.body.model_copy(update={"work": f"{config.body.work}/{folder.name}"})
        return config.model_copy(update=changes)

    def _http(self, config: Config) -> Settings:
        http: Any = overlaid(self._service.http, config.http)
        cache = http.cache
        if cache is None or "path" in cache.model_fields_set:
            return http  # type: ignore[no-any-return]
        cache = cache.model_copy(update={"path": str(Path(self._settings.state_dir) / "cache.db")})
        return http.model_copy(update={"cache": cache})  # type: ignore[no-any-return]


def _appending(sink: Settings) -> Settings:
    """Return a sink for which an output that is there is none that is in the way."""
    in_the_way = getattr(sink, "if_exists", None) == "fail"
    return sink.model_copy(update={"if_exists": "append"}) if in_the_way else sink


def _add_upload(data: dict[str, Any], upload: str | None) -> None:
    """Have the sources name the file that came with the config, and add it to them if none does."""
    if upload is None:
        return
    sources = data.setdefault("sources", [])
    if not isinstance(sources, list):
        return
    named = [index for index, source in enumerate(sources) if UPLOAD in (source, _path(source))]
    for index in named:
        source = sources[index]
        sources[index] = {"type": "file"} | source | {"path": upload} if isinstance(source, dict) else _file(upload)
    if not named:
        sources.append(_file(upload))


def _path(part: object) -> object:
    return part.get("path") if isinstance(part, dict) else None


def _file(path: str) -> dict[str, Any]:
    return {"type": "file", "path": path}


def _add_results(data: dict[str, Any], folder: Path) -> None:
    """Add the file that the API reads results from. It is not there yet, or it is this batch's own."""
    sinks = data.setdefault("sinks", [])
    if not isinstance(sinks, list):
        return
    taken = any(isinstance(sink, dict) and sink.get("name") == _RESULTS_NAME for sink in sinks)
    name = {} if taken else {"name": _RESULTS_NAME}
    sinks.append(_file(str(folder / RESULTS)) | {"format": "jsonl", "if_exists": "replace"} | name)


def _add_body_path(data: dict[str, Any], path: str) -> None:
    """Have files of bodies lie where they may, unless the config says where."""
    body = {"store": "file"} if data.get("body") == "file" else data.get("body")
    if isinstance(body, dict) and body.get("store") == "file":
        data["body"] = {"path": path} | body


def _queue(queue: Settings, folder: Path) -> Settings:
    """Return the queue of a batch: always one that survives the process, in the folder of the batch."""
    found = config_class("queues", "sqlite")
    path = {"path": str(folder / QUEUE)}
    return queue.model_copy(update=path) if isinstance(queue, found) else found.model_validate(path)


def _parts(config: Config) -> Iterator[tuple[KeyPath, Settings]]:
    """Yield everything that may read or write files, with where it stands."""
    for key in ("sources", "stages", "sinks"):
        for index, part in enumerate(getattr(config, key)):
            yield (key, index), part
    if config.body.store == "file":
        yield ("body",), config.body
    if "upload_dir" in config.request.model_fields_set:
        yield ("request",), config.request
    cache = getattr(config.http, "cache", None)
    if cache is not None and "path" in cache.model_fields_set:
        yield ("http", "cache"), cache
    for section in ("http", "websocket"):
        for index, entry in enumerate(getattr(getattr(config, section), "auth", [])):
            yield (section, "auth", index), entry


def _texts(value: object, path: KeyPath, field: str = "") -> Iterator[tuple[KeyPath, str, str]]:
    """Yield every text in a section, with where it stands and the field that has it."""
    if isinstance(value, str):
        yield path, field, value
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            # The paths of jobs are within upload_dir, and there may be a million.
            if name not in {"jobs", "job"} and (name != "rejected" or name in value.model_fields_set):
                yield from _texts(getattr(value, name), (*path, name), name)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index), field)


def _local(value: str, elsewhere: frozenset[str]) -> str | None:
    """Return the path of a file here that a text stands for, None if it is something elsewhere."""
    scheme = _SCHEME.match(value)
    if scheme is None or scheme[1].lower() not in elsewhere:
        return None if value == "-" else value
    return unquote(value[scheme.end() :]) if scheme[1].lower() == "file" else None
