"""A Redis stream, for those who process results elsewhere. Needs the extra ``redis`` (redis-py).

Each entry has the fields ``batch``, ``job_id`` and ``record`` (JSON). A batch is appended in transactions, so that of
each either everything is there or nothing. At least once: where the answer to a transaction was lost, and after a
crash, entries come again, and a reader who minds tells them by ``job_id``.

Durable means what the server means by it: with ``appendonly yes`` and ``appendfsync always`` it survives the end of the
machine, with ``everysec`` all but the last second does. Replicas are not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, SinkError
from fetcher.extras import load_extra
from fetcher.settings import Duration, Secret
from fetcher.sink_settings import SinkSettings
from fetcher.sinks.remote import (
    Packed,
    Written,
    away,
    has_userinfo,
    identity,
    json_records,
    packed,
    portions,
    shown,
    tls_context,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

_PORT = 6379
_PORTION = 500
_PORTION_BYTES = 1024 * 1024
# What the server says when it may take the same command later.
_LATER = ("LOADING", "READONLY", "MISCONF", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "NOREPLICAS")


def _address(url: str) -> str:
    """Refuse what is not the address of a server, and what has a password in it."""
    if has_userinfo(url):
        raise PydanticCustomError("redis", "has a user or a password in it; put them into username and password")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0 and not parts.query
        usable = usable and (parts.path.strip("/") or "0").isdecimal()
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("redis", "should be an address such as redis://host:6379/0, or rediss:// for TLS")
    return url


class RedisConfig(SinkSettings):
    """Records appended to a Redis stream."""

    extras: ClassVar[tuple[str, ...]] = ("redis",)
    type: Literal["redis"] = "redis"
    url: Annotated[str, AfterValidator(_address)]
    """The server and the number of its database: ``redis://host:6379/0``, or ``rediss://`` for TLS."""
    stream: str = Field(min_length=1, max_length=1000)
    """The key of the stream. It is created with the first record."""
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    """With ``rediss:``, a PEM file of certificate authorities to trust instead of the system's."""
    max_length: int | None = Field(default=None, ge=1)
    """About how many entries the stream keeps (``MAXLEN ~``): the oldest go. By default all."""
    timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """For how long the server may be silent."""

    @model_validator(mode="after")
    def _user_has_a_password(self) -> Self:
        if self.username is not None and self.password is None:
            raise PydanticCustomError("redis", "has a username but no password")
        return self

    @property
    def identity(self) -> str:
        """Which stream this is, on which server."""
        parts = urlsplit(self.url)
        database = parts.path.strip("/") or "0"
        return f"redis://{parts.hostname}:{parts.port or _PORT}/{database}/{self.stream}"

    def build(self) -> RedisSink:
        """Return the sink, not yet connected."""
        return RedisSink(self, json_records())


class RedisSink:
    """Appends in transactions, one after the other. Connects anew when a connection is lost."""

    def __init__(self, config: RedisConfig, form: Format) -> None:
        parts = urlsplit(config.url)
        self._config = config
        self._format = form
        self._place = f"redis {parts.hostname}:{parts.port or _PORT}, stream {config.stream!r}"
        self._written = Written()
        self._client: Any = None

    async def check(self, mark: str | None, *, resume: bool) -> None:  # noqa: ARG002  it has no marks
        """Prove that the stream can be appended to, by an entry that no server takes because of its id."""
        driver = _driver()
        client = self._connected()
        try:
            try:
                await client.xadd(self._config.stream, {"check": ""}, id="0-0")
            except driver.ResponseError as error:
                # This id is refused only after the rights were looked at, and the room.
                if "greater than 0-0" not in str(error):
                    raise
            kind = await self._kind(client)
        except driver.RedisError as error:
            failure = self._failure(error, resume=resume)
            raise failure if failure.retryable else ConfigError(str(failure)) from error
        if kind not in {"none", "stream"}:
            raise ConfigError(f"{self._place}: is a {kind}, not a stream; choose another key")

    async def _kind(self, client: Any) -> str:
        driver = _driver()
        try:
            kind = await client.type(self._config.stream)
        except driver.NoPermissionError:
            return "stream"  # as far as this user may know
        return str(kind.decode())

    async def discard(self, mark: str) -> None:
        """Do nothing: others may have read it already."""

    async def open(self, mark: str | None) -> None:  # noqa: ARG002  it has no marks
        """Make the client; it connects by itself."""
        self._connected()

    async def write(self, results: Sequence[Result]) -> None:
        """Append results; return once the server has said that it has them."""
        driver = _driver()
        self._written.begin(identity(results))
        try:
            for portion in portions(packed(self._format, results), _PORTION, _PORTION_BYTES):
                await self._append(portion)
        except driver.RedisError as error:
            raise self._failure(error) from error
        self._written.end()

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _append(self, portion: list[Packed]) -> None:
        key = identity(item.result for item in portion)
        if key in self._written:
            return
        async with self._connected().pipeline(transaction=True) as pipeline:
            for item in portion:
                entry = {"batch": item.result.batch, "job_id": _bytes(item.result.job_id), "record": item.line}
                pipeline.xadd(self._config.stream, entry, maxlen=self._config.max_length, approximate=True)
            await pipeline.execute()
        self._written.add(key)

    def _connected(self) -> Any:
        if self._client is None:
            from redis.asyncio import Redis  # noqa: PLC0415  optional
            from redis.asyncio.retry import Retry  # noqa: PLC0415  optional
            from redis.backoff import NoBackoff  # noqa: PLC0415  optional

            config = self._config
            secure: dict[str, Any] = {}
            if config.ca_file is not None and config.url.startswith("rediss:"):
                tls_context(config.ca_file)  # the driver would take a file that is not there for a server that is away
                secure["ssl_ca_certs"] = config.ca_file
            self._client = Redis.from_url(
                config.url,
                username=config.username,
                password=None if config.password is None else config.password.get_secret_value(),
                socket_timeout=config.timeout,
                socket_connect_timeout=config.timeout,
                protocol=2,
                # Trying again is not ours: the driver would append twice what it has no answer to.
                retry=Retry(NoBackoff(), 0),
                **secure,
            )
        return self._client

    def _failure(self, error: Exception, *, resume: bool = True) -> SinkError:
        """Return what to raise for an answer of the server, or for none."""
        driver = _driver()
        said = shown(str(error))
        if isinstance(error, driver.AuthenticationError | driver.AuthorizationError) or said.startswith("NOAUTH"):
            return SinkError(f"{self._place}: the server refuses to log in: {said}; see username and password")
        if isinstance(error, driver.OutOfMemoryError) or "OOM command not allowed" in said:
            message = f"{self._place}: the server is full; make room, raise its maxmemory, or set max_length"
            return SinkError(message, retryable=True)
        if isinstance(error, driver.ReadOnlyError | driver.BusyLoadingError) or said.upper().startswith(_LATER):
            return SinkError(f"{self._place}: the server takes nothing at this moment: {said}", retryable=True)
        if isinstance(error, driver.NoPermissionError):
            return SinkError(f"{self._place}: this user may not append to it: {said}; allow it +xadd +multi +exec")
        if isinstance(error, driver.ConnectionError | driver.TimeoutError):
            return away(self._place, error, resume=resume)
        return SinkError(f"{self._place}: {said}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _driver() -> Any:
    return load_extra("redis.exceptions", "redis", "the sink redis")
