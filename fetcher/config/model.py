"""The root of a config: one batch, section by section."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

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

from fetcher.answers.expectations import ExpectSettings
from fetcher.config.contradictions import contradictions
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.retry import RetrySettings
from fetcher.fields import FIELDS
from fetcher.jobs.intake import SCHEMES
from fetcher.naming import NameTemplate, distinct
from fetcher.pagination import PaginationSettings
from fetcher.registry import Part, parts
from fetcher.settings import FEW, BodySettings, Duration, RequestSettings, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECT_STORES = ("s3", "gs", "az", "file")
_DATABASES = (".db", ".sqlite", ".sqlite3")
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%")
_READ_STORES = frozenset({"s3", "gs", "az"})
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
        raise PydanticCustomError("failures", "should be a number of jobs such as 10, or a percentage such as 5%")
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
    if url is None or url[1] in _READ_STORES:
        return {"type": "file", "path": text}
    if url[1].lower() not in SCHEMES:
        # Not the URL itself, which may hold a password.
        known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        message = f"nothing here fetches {url[1].lower()}: URLs; it takes {known}"
        raise PydanticCustomError("scheme", "{message}", {"message": message})
    if set(text) & set("{}"):
        return {"type": "template", "url": text}
    return {"type": "inline", "jobs": [{"url": text}]}


def _sink(text: str) -> dict[str, Any]:
    """Return what a sink written as text stands for."""
    url = _URL.match(text)
    if url is None:
        if text.lower().endswith(_DATABASES):
            message = f"is no file of records; write {{type: sqlite, path: {text}}} for a database"
            raise PydanticCustomError("sink", "{message}", {"message": message})
        return {"type": "stdout"} if text == "-" else {"type": "file", "path": text}
    if url[1].lower() not in _OBJECT_STORES:
        stores = ", ".join(f"{scheme}:" for scheme in _OBJECT_STORES)
        message = f"no sink takes {url[1].lower()}: URLs alone ({stores}); write out its type and what else it needs"
        raise PydanticCustomError("scheme", "{message}", {"message": message})
    return {"type": "objectstore", "path": text}


def _stage(text: str) -> dict[str, Any]:
    """Return what a stage written as text stands for."""
    named = text.strip()
    known = parts("stages")
    near = named if named in known else next(iter(get_close_matches(named.lower(), known, n=1, cutoff=0.75)), None)
    if near is not None and named not in FIELDS:
        message = f"is a condition, as a text is; write {{type: {near}}} for the stage of that name"
        raise PydanticCustomError("stage", "{message}", {"message": message})
    return {"type": "where", "expr": text}


def _body(value: object) -> object:
    return {"store": value} if isinstance(value, str) else value


BatchName = Annotated[str, AfterValidator(_slug), Field(json_schema_extra={"pattern": f"^{_NAME.pattern}$"})]


class Config(Settings):
    """One batch: which URLs, how they are fetched, and where the results go."""

    name: BatchName = "batch"
    """What the batch is called: letters, digits, `.`, `-` and `_`. By default, the name of the file."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """How a service shares its concurrency between batches: one of a higher priority goes first, before all others.
    `fetcher run` has but one batch."""
    weight: float = Field(default=1.0, ge=0.001, le=1000, allow_inf_nan=False)
    """How a service shares its concurrency between batches of equal priority: one of weight 2 gets twice as much as
    one of weight 1."""
    sources: Annotated[list[Annotated[Settings, Part("sources", shorthand=_source)]], FEW] = Field(min_length=1)
    """Where jobs come from. A text is a file or a pattern of files (`-` is stdin, `s3://bucket/urls.csv` an object in a
    store), a URL, or a template `http://host/{1..1000}`."""
    request: RequestSettings = RequestSettings()
    """What every request has unless its job says otherwise."""
    limits: LimitSettings = LimitSettings()
    """How much is asked for at once."""
    retry: RetrySettings = RetrySettings()
    """Which failures are tried again."""
    queue: Annotated[Settings, Part("queues")] = Field(default="sqlite", validate_default=True)
    """What is still to be fetched: `sqlite` (under `state/`, resumable) or `memory`."""
    body: Annotated[
        BodySettings, BeforeValidator(_body, json_schema_input_type=BodySettings | Literal["none", "inline", "file"])
    ] = BodySettings()
    """What becomes of response bodies. A text is its `store`."""
    http: Annotated[Settings, Part("transports", only="http")] = Field(default={}, validate_default=True)
    """How http and https URLs are fetched. Names, TLS and the guard are those of all other URLs, too."""
    ftp: Annotated[Settings, Part("transports", only="ftp")] = Field(default={}, validate_default=True)
    """How ftp and ftps URLs are fetched."""
    tcp: Annotated[Settings, Part("transports", only="tcp")] = Field(default={}, validate_default=True)
    """How tcp and tls URLs are fetched."""
    udp: Annotated[Settings, Part("transports", only="udp")] = Field(default={}, validate_default=True)
    """How udp URLs are fetched."""
    websocket: Annotated[Settings, Part("transports", only="websocket")] = Field(default={}, validate_default=True)
    """How ws and wss URLs are fetched."""
    expect: ExpectSettings | None = None
    """What an answer has to be to count as ``ok``."""
    pagination: PaginationSettings | None = None
    """How the next page of an answer is found, and fetched as a job of its own."""
    dedupe: bool = False
    """Fetch a URL once, however often the sources name it."""
    max_failures: Failures = FailureLimit(count=0)
    """How many jobs may fail, as a number or a percentage, before the run counts as failed (exit 3)."""
    deadline: Annotated[Duration, Field(gt=0)] | None = None
    """A run that takes longer ends as if it had been interrupted (exit 75): what is left can be resumed."""
    shutdown_timeout: Duration = 10.0
    """How long running requests may go on after the run was interrupted or its deadline has passed."""
    stages: Annotated[list[Annotated[Settings, Part("stages", shorthand=_stage)]], FEW] = Field(default=[])
    """What becomes of results before the sinks get them, in this order. A text is a condition to be kept by."""
    sinks: Annotated[list[Annotated[Settings, Part("sinks", shorthand=_sink)]], FEW] = Field(min_length=1)
    """Where results go. A text is a file, whose suffix says the format, or `-` for stdout."""

    @field_validator("queue")
    @classmethod
    def _under_state(cls, queue: Settings, info: ValidationInfo) -> Settings:
        """Give a queue that is kept in a file, and was given none, the one of this batch."""
        if getattr(queue, "path", None) != "":
            return queue
        return queue.model_copy(update={"path": f"state/{info.data.get('name', 'batch')}.db"})

    @field_validator("body")
    @classmethod
    def _beside_the_bodies(cls, body: BodySettings, info: ValidationInfo) -> BodySettings:
        """Give bodies that are still arriving a folder of this batch, on the file system that they will be on."""
        if body.store != "file":
            return body
        name = info.data.get("name", "batch")
        template = NameTemplate(body.path)
        work = body.work or f"{template.folder}/.partial/{distinct(name)}"
        return body.model_copy(update={"path": template.of_batch(name), "work": work})

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


def fingerprint(config: Config) -> str:
    """Return a hash of what decides which jobs there are: a batch is only resumed with the same ones.

    Only what was written counts, so that a batch outlives the version that knew fewer settings.
    """
    sources = [_written(source) | _identity(source) for source in config.sources]
    identity: dict[str, Any] = {"dedupe": config.dedupe, "sources": sources}
    if config.pagination is not None:
        identity["pagination"] = config.pagination.model_dump(mode="json", exclude_unset=True)
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def sink_fingerprints(config: Config) -> list[str]:
    """Return, for each sink, a hash of what decides which output it is: its type, its place and its format."""
    return [_sink_fingerprint(sink) for sink in config.sinks]


def _sink_fingerprint(sink: Settings) -> str:
    form = getattr(sink, "format", None)
    if isinstance(form, Settings):
        form = _written(form)
    place = getattr(sink, "identity", None) or getattr(sink, "path", None)
    identity = {"type": getattr(sink, "type", None), "path": place, "format": form}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def record_fingerprint(config: Config) -> str:
    """Return a hash of what decides which records the sinks get, and with which fields."""
    stages = [_written(stage) for stage in config.stages]
    sinks = [
        sink.model_dump(mode="json", include={"where", "select", "drop"}, exclude_unset=True) for sink in config.sinks
    ]
    return hashlib.sha256(json.dumps([stages, sinks], sort_keys=True, default=str).encode()).hexdigest()


def _written(part: Settings) -> dict[str, Any]:
    return {"type": getattr(part, "type", None)} | part.model_dump(mode="json", exclude_unset=True)


def _identity(source: Settings) -> dict[str, Any]:
    """Return what a source is known by beside what is written, where that is a secret."""
    found = getattr(source, "identity", None)
    return {} if found is None else {"identity": found}
