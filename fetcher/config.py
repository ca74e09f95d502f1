"""What a batch is: the config as a whole, from a file, the environment and ``-s``, checked in advance."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from fetcher.contradictions import contradictions
from fetcher.document import MAX_BYTES, Document, parse
from fetcher.engine.limiter import LimitSettings
from fetcher.engine.retry import RetrySettings
from fetcher.overrides import Layered, from_environment, from_flags
from fetcher.problems import ConfigProblems, shown, translate
from fetcher.registry import Part
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from fetcher.problems import KeyPath

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%")
_ALL = 100


@dataclass(frozen=True)
class FailureLimit:
    """How many jobs may fail before a run counts as failed: a number of them, or a percentage."""

    count: int | None = None
    percent: Decimal = Decimal(0)

    def exceeded(self, failed: int, total: int) -> bool:
        """Return whether more failed than may."""
        if self.count is not None:
            return failed > self.count
        return failed * _ALL > self.percent * total

    def __str__(self) -> str:
        return f"{self.percent}%" if self.count is None else str(self.count)


def parse_failures(value: object) -> object:
    """Read ``10`` or ``5%`` as a FailureLimit."""
    if isinstance(value, FailureLimit):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return FailureLimit(count=value)
    text = value.strip() if isinstance(value, str) else ""
    if text.isascii() and text.isdecimal():
        return FailureLimit(count=int(text[:18]))
    match = _PERCENTAGE.fullmatch(text)
    if match is None or Decimal(match[1]) > _ALL:
        raise PydanticCustomError(
            "failures", "should be a number of jobs such as 10, or a percentage such as 5%"
        )
    return FailureLimit(percent=Decimal(match[1]))


_FAILURES_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^\d{1,3}(\.\d{1,9})?\s*%$|^\d+$"},
    ],
    "examples": ["5%"],
}
Failures = Annotated[
    FailureLimit,
    BeforeValidator(parse_failures),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(_FAILURES_SCHEMA),
]


def _slug(value: str) -> str:
    """Refuse a name that could not be that of a file, or that a shell or a terminal might trip over."""
    if not _NAME.fullmatch(value):
        words = "should be letters, digits, '.', '-' and '_' (a letter or digit first, at most 100)"
        raise PydanticCustomError("name", words)
    return value


def _source(text: str) -> dict[str, Any]:
    """Return what a source written as text stands for."""
    url = _URL.match(text)
    if url is None:
        return {"type": "file", "path": text}
    if url[1].lower() not in {"http", "https"}:
        # Not the URL itself, which may hold a password.
        message = f"nothing here fetches {url[1].lower()}: URLs; it takes http: and https:"
        raise PydanticCustomError("scheme", "{message}", {"message": message})
    if set(text) & set("{}"):
        return {"type": "template", "url": text}
    return {"type": "inline", "jobs": [{"url": text}]}


def _sink(text: str) -> dict[str, Any]:
    """Return what a sink written as text stands for."""
    return {"type": "stdout"} if text == "-" else {"type": "file", "path": text}


def _body(value: object) -> object:
    return {"store": value} if isinstance(value, str) else value


class Config(Settings):
    """One batch: which URLs, how they are fetched, and where the results go."""

    name: Annotated[
        str, AfterValidator(_slug), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})
    ] = "batch"
    """What the batch is called: letters, digits, `.`, `-` and `_`. By default, the name of the file."""
    sources: list[Annotated[Settings, Part("sources", shorthand=_source)]] = Field(min_length=1)
    """Where jobs come from. A text is a file (`-` is stdin), a URL, or a template `http://host/{1..1000}`."""
    request: RequestSettings = RequestSettings()
    """What every request has unless its job says otherwise."""
    limits: LimitSettings = LimitSettings()
    """How much is asked for at once."""
    retry: RetrySettings = RetrySettings()
    """Which failures are tried again."""
    queue: Annotated[Settings, Part("queues")] = Field(default="sqlite", validate_default=True)
    """What is still to be fetched: `sqlite` (under `state/`, resumable) or `memory`."""
    body: Annotated[
        BodySettings, BeforeValidator(_body, json_schema_input_type=BodySettings | Literal["none", "inline"])
    ] = BodySettings()
    """What becomes of response bodies. A text is its `store`."""
    http: Annotated[Settings, Part("transports", only="http")] = Field(default={}, validate_default=True)
    """How http and https URLs are fetched."""
    dedupe: bool = False
    """Fetch a URL once, however often the sources name it."""
    max_failures: Failures = FailureLimit(count=0)
    """How many jobs may fail, as a number or a percentage, before the run counts as failed (exit 3)."""
    shutdown_timeout: Duration = 10.0
    """How long running requests may go on after the run was interrupted."""
    sinks: list[Annotated[Settings, Part("sinks", shorthand=_sink)]] = Field(min_length=1)
    """Where results go. A text is a file, whose suffix says the format, or `-` for stdout."""

    @field_validator("queue")
    @classmethod
    def _under_state(cls, queue: Settings, info: ValidationInfo) -> Settings:
        """Give a queue that is kept in a file, and was given none, the one of this batch."""
        if getattr(queue, "path", None) != "":
            return queue
        return queue.model_copy(update={"path": f"state/{info.data.get('name', 'batch')}.db"})

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        found = [
            InitErrorDetails(
                type=PydanticCustomError("contradiction", "{message}", {"message": message}),
                loc=path,
                input=value,
            )
            for path, message, value in contradictions(self)
        ]
        if found:
            # Becomes part of the error that is being raised, path by path.
            raise ValidationError.from_exception_data("config", found)
        return self


def load(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Load a config: ``overrides`` (``key.path=value``) over the environment over the file over the defaults.

    Without a path there is no file. Raises ConfigProblems with everything that is wrong.
    """
    name = os.fspath(path) if path is not None else "config"
    flags = from_flags(overrides)
    document = parse(_read(name), name, environ) if path is not None else Document({})
    if not isinstance(document.data, dict):
        raise ConfigProblems([_not_a_mapping(name, document)])
    layered = Layered.over(document, name)
    unlaid = layered.lay([*from_environment(environ, document.variables), *flags])
    if path is not None:
        document.data.setdefault("name", _name_of(name))
    config, problems = _validate(layered)
    if problems or unlaid or config is None:
        raise ConfigProblems([line for _, line in sorted(problems, key=lambda problem: problem[0])] + unlaid)
    return config


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigProblems([f"{name}: is a folder; name a config file in it"]) from None
    except FileNotFoundError:
        raise ConfigProblems([f"{name}: there is no such file; paths are relative to {Path.cwd()}"]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigProblems([f"{name}: can not be read: {reason}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigProblems(
            [f"{name}: is larger than {MAX_BYTES // 2**20} MiB; put the jobs into a file of their own"]
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigProblems([f"{name}:{line}: is not UTF-8; save the file as UTF-8"]) from None


def _not_a_mapping(name: str, document: Document) -> str:
    if document.data is None:
        return f"{name}: is empty; a config has at least sources and sinks"
    return f"{name}:{document.lines[()]}: should be a mapping (key: value), not {shown(document.data)}"


def _name_of(name: str) -> str:
    """Return the stem of a file name as the name of a batch; what such a name can not have becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem).lstrip("._-")[:_ALL] or "batch"


def _validate(layered: Layered) -> tuple[Config | None, list[tuple[int, str]]]:
    """Return the config, or None, and what is wrong as (line, sentence)."""
    document = layered.document
    problems = document.problems
    config, errors = _attempt(document.data)
    # A number where text is wanted is taken as it was written (``x-version: 1.10``).
    written = {
        error["loc"]: document.texts.get(error["loc"]) for error in errors if error["type"] == "string_type"
    }
    if any(text is not None for text in written.values()):
        for path, text in written.items():
            if text is not None:
                _put(document.data, path, text)
        config, errors = _attempt(document.data)
    if errors:
        found = translate(errors, document.data, json_schema(), document.substituted)
        # A value that could not be read is not to be blamed for what stands in for it.
        broken = {problem.path for problem in problems}
        problems = problems + [p for p in found if not any(p.path[: len(path)] == path for path in broken)]
    return config, [layered.tell(problem) for problem in problems]


def _attempt(data: object) -> tuple[Config | None, list[ErrorDetails]]:
    """Validate; what is raised must not leave here, not even as a context: it shows secrets."""
    try:
        return Config.model_validate(data), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _put(data: Any, path: KeyPath, value: str) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


# ${VAR} may stand wherever a value may, and an editor knows nothing of what it will give.
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "A value from the environment."}
_ABOUT = {"title", "description", "default", "examples"}


def _tidy(node: Any) -> Any:
    """Return a schema with what people read in it, and nothing that differs from one process to the next."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    about = {key: node[key] for key in _ABOUT - {"title"} if key in node}
    if about.get("default", "") is None or isinstance(about.get("default"), dict | list):
        # What a section is by default stands with its own keys.
        del about["default"]
    rules = {key: _tidy(value) for key, value in node.items() if key not in _ABOUT | {"properties"}}
    if "properties" in node:
        # The keys are names of fields here, not words of JSON Schema.
        rules["properties"] = {name: _tidy(value) for name, value in node["properties"].items()}
        if "const" in node["properties"].get("type", {}):
            # It has a default for code that builds the part, but in a config it tells the parts apart.
            rules["required"] = ["type", *rules.get("required", ())]
    if rules.get("type") in {"integer", "number", "boolean"} or "enum" in rules:
        rules = {"anyOf": [rules, {"$ref": "#/$defs/Variable"}]}
    return dict(sorted(about.items())) | rules


@cache
def _schema_text() -> str:
    schema = Config.model_json_schema()
    properties = {name: _tidy(value) for name, value in schema.pop("properties").items()}
    definitions = {name: _tidy(value) for name, value in schema.pop("$defs").items()}
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fetcher config"}
    schema |= {"properties": properties, "$defs": definitions | {"Variable": _VARIABLE}}
    return json.dumps(schema | draft)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    schema: dict[str, Any] = json.loads(_schema_text())
    return schema


def fingerprint(config: Config) -> str:
    """Return a hash of what decides which jobs there are: a batch is only resumed with the same ones.

    Only what was written counts, so that a batch outlives the version that knew fewer settings.
    """
    sources = [
        {"type": getattr(source, "type", None)} | source.model_dump(mode="json", exclude_unset=True)
        for source in config.sources
    ]
    canonical = json.dumps(
        {"dedupe": config.dedupe, "sources": sources}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
