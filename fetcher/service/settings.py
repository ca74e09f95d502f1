"""The config of the service: its own settings, and what its batches share."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.registry import Part
from fetcher.service.arrivals.timetable import Cron
from fetcher.settings import ByteSize, Duration, Secret, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fetcher.guard import GuardSettings

Scope = Literal["read", "write"]
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_SHORTEST_TOKEN = 20
_FILES = frozenset({"path", "ca_file", "client_cert", "client_key"})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def hash_token(token: str) -> str:
    """Return what is kept of a token. It has 256 random bits, so that a fast hash keeps it as well as a slow one."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def _hash(value: str) -> str:
    if not _HASH.fullmatch(value):
        # Not the value, which may be the token itself.
        raise PydanticCustomError("token", "should be the hash of a token as `fetcher token` prints it (sha256:...)")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):
        message = f"{value!r} is no time zone; it should be a name such as UTC or Europe/Berlin"
        raise PydanticCustomError("zone", "{message}", {"message": message}) from None
    return value


def _cron(value: str) -> str:
    try:
        Cron(value)
    except ValueError as error:
        raise PydanticCustomError("cron", "{message}", {"message": str(error)}) from None
    return value


class TokenSettings(Settings):
    """Who may use the API. A config needs to hold no more than the hash of a token."""

    name: str = Field(min_length=1, max_length=100)
    """Who has it, for the log."""
    # What stands here by mistake may be the token itself, so that no message shows it.
    hash: Annotated[str, AfterValidator(_hash), Field(json_schema_extra={"writeOnly": True})] | None = None
    """As ``fetcher token`` prints it."""
    token: Secret | None = None
    """The token itself, where a secret is kept for this: ``{file: /run/secrets/token}`` or ``{env: NAME}``."""
    scopes: list[Scope] = Field(default=["read"], min_length=1)
    """``read`` sees everything, ``write`` may also submit and change batches."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.hash is None) == (self.token is None):
            raise PydanticCustomError("token", "should have either hash or token; `fetcher token` makes one")
        if self.token is not None and len(self.token.get_secret_value()) < _SHORTEST_TOKEN:
            words = "is a token that can be guessed; `fetcher token` makes one of 43 characters"
            raise PydanticCustomError("token", "{words}", {"words": words})
        return self

    def fits(self, token: str) -> bool:
        """Tell whether this is the token, in a time that tells nothing else."""
        known = self.hash if self.token is None else hash_token(self.token.get_secret_value())
        return known is not None and hmac.compare_digest(known, hash_token(token))


class ScheduleSettings(Settings):
    """A batch that is submitted again and again."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """What the schedule is called; the id of each of its batches begins with it."""
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    """When, as five fields: minute, hour, day of the month, month, day of the week. A time that a change of clocks
    leaves out comes right after it; one that there is twice counts once."""
    every: Annotated[Duration, Field(ge=1)] | None = None
    """How long from one start to the next. The first is when the service first sees the schedule."""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Whose clock ``cron`` means."""
    overlap: Literal["skip", "queue", "cancel"] = "skip"
    """When the batch before has not ended: leave this one out, let it wait (one at most does), or cancel that one."""
    missed: Literal["skip", "once"] = "once"
    """When the service was not there at the time: leave it out, or make up for all that were missed with one."""
    batch: str | dict[str, Any]
    """The config of the batch: the path of a file, which is read anew each time, or the config itself. It may do what
    submitted batches may."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise PydanticCustomError("schedule", "should have either cron or every")
        return self


class TelemetrySettings(Settings):
    """Where OpenTelemetry data are sent, by OTLP over HTTP. Takes the extra ``otel``."""

    endpoint: str = Field(pattern=r"^https?://[^/@\s]+(/\S*)?$")
    """The collector, without ``/v1/traces``: http://localhost:4318."""
    sample: float = Field(default=0.01, ge=0, le=1)
    """Which share of the jobs is traced. Metrics count all of them."""
    interval: Annotated[Duration, Field(ge=1)] = 30.0
    """How often metrics are sent."""
    headers: dict[str, Secret] = Field(default={})
    """What is sent with it, such as a key of the collector's."""
    service_name: str = Field(default="fetcher", min_length=1)
    """The name of this service among others."""


class ServiceSettings(Settings):
    """What concerns the service itself."""

    host: str = "127.0.0.1"
    """The address to listen on. Any other than loopback takes ``tokens``."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """The port to listen on; 0 is a free one, which is then named in the log."""
    hosts: list[str] = Field(default=[])
    """The names by which the service may be called (Host, Origin), beside its address and the names of loopback."""
    tokens: list[TokenSettings] = Field(default=[])
    """Who may use the API. Without any, everybody on this machine may."""
    state_dir: str = "state/service"
    """Where batches, queues and results are kept."""
    watch: str | None = None
    """A folder: configs and files of URLs that are put into its ``inbox`` become batches."""
    files: str = Field(default="files", min_length=1)
    """What submitted batches may read and write lies within this folder. It is made if it is not there."""
    env: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = Field(default=[])
    """The environment variables that submitted batches may use."""
    python: bool = False
    """Whether submitted batches may name Python functions to be run."""
    unguarded: list[Literal["email", "nats", "objectstore", "postgres", "redis"]] = Field(default=[])
    """Types of parts whose connections the guard does not see, and that submitted batches may use all the same. Files
    in a store (``s3://``) count as ``objectstore``. Without the guard they may use all."""
    running: int = Field(default=16, ge=1, le=1000)
    """How many batches are fetched at once; others wait in their order."""
    keep: Duration = 30 * 86_400.0
    """For how long a batch that has ended is kept, with its results."""
    max_config: ByteSize = 1024 * 1024
    """The largest config that is taken."""
    max_upload: ByteSize = 10 * 1024**3
    """The largest file of URLs that is taken."""
    max_connections: int = Field(default=1000, ge=10)
    """Connections to the API at a time; more are closed at once."""
    telemetry: TelemetrySettings | None = None
    """OpenTelemetry traces and metrics; none are made if this is left out."""
    shutdown_timeout: Duration = 25.0
    """How long the service may take to end what it is at after SIGTERM; less than the 30 s of Kubernetes."""

    @property
    def is_open(self) -> bool:
        """Tell whether other machines can reach the service."""
        return self.host not in _LOOPBACK and not self.host.startswith("127.")

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.is_open and not self.tokens:
            message = f"host: {self.host} can be reached from elsewhere, which takes tokens; make one: fetcher token"
            raise PydanticCustomError("tokens", "{message}", {"message": message})
        return self


def _guard_by_default(value: object) -> object:
    """Let batches reach public addresses only, unless the config says otherwise."""
    return {"guard": True} | value if isinstance(value, dict) else value


class ServiceConfig(Settings):
    """The root of the config of a service."""

    service: ServiceSettings = ServiceSettings()
    """What concerns the service itself."""
    limits: LimitSettings = LimitSettings()
    """How much is asked for at once by all batches together. A batch may ask for less."""
    http: Annotated[Settings, Part("transports", only="http"), BeforeValidator(_guard_by_default)] = Field(
        default={}, validate_default=True
    )
    """How http and https URLs are fetched. ``guard`` is on unless it is switched off here."""
    schedules: list[ScheduleSettings] = Field(default=[])
    """Batches that are submitted again and again."""
    _read_from: frozenset[str] = PrivateAttr(default=frozenset())

    @field_validator("schedules")
    @classmethod
    def _distinct(cls, value: list[ScheduleSettings]) -> list[ScheduleSettings]:
        names = [schedule.name for schedule in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            message = f"should have names of their own, but two are called {twice!r}"
            raise PydanticCustomError("schedules", "{message}", {"message": message})
        return value

    @property
    def guard(self) -> GuardSettings | None:
        """The guard that holds for all batches."""
        guard: GuardSettings | None = getattr(self.http, "guard", None)
        return guard

    @property
    def own_files(self) -> frozenset[str]:
        """The files that this config was read from, or names for the service itself. Batches keep off them."""
        schedules = {one.batch for one in self.schedules if isinstance(one.batch, str)}
        return self._read_from | schedules | set(_files_of(self.http))

    def read_from(self, paths: Iterable[str]) -> Self:
        """Return the same config, which knows from which files it was read: itself, and secrets."""
        known = self.model_copy()
        known._read_from = frozenset(paths)  # noqa: SLF001  its own
        return known


def _files_of(value: object, field: str = "") -> Iterator[str]:
    """Yield the paths of files in a section: certificates, keys, caches."""
    if isinstance(value, str):
        if field in _FILES:
            yield value
    elif isinstance(value, Settings):
        for name in type(value).model_fields:
            yield from _files_of(getattr(value, name), name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _files_of(item, field)
