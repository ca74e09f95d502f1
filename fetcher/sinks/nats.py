"""A JetStream stream of NATS, for those who process results elsewhere. Needs the extra ``nats`` (nats-py).

A message is the record as JSON, with the headers ``Fetcher-Batch`` and ``Fetcher-Job``. Its ``Nats-Msg-Id`` is made of
batch, run and job, so that within the stream's duplicate window the server drops what is sent again: after a lost
answer or a crash a record is in the stream once, if the run is resumed within that time. A batch that is run once more
from its start is another run, and its records are new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError, FetcherError, SinkError
from fetcher.extras import load_extra
from fetcher.settings import Duration, Secret
from fetcher.sink_settings import REJECTED, SinkSettings
from fetcher.sinks.jetstream import Acks, Refusal
from fetcher.sinks.rejected import Rejected
from fetcher.sinks.remote import (
    Packed,
    away,
    has_userinfo,
    identity,
    json_records,
    new_run,
    packed,
    portions,
    shown,
    tls_context,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

_PORT = 4222
_PORTION_BYTES = 4 * 1024 * 1024
_LONGEST_ID = 200
_GRACE = 1.0
_OTHER_STREAM = 10_060
_TOO_LARGE = 10_054
_FULL = frozenset({10_023, 10_047, 10_076, 10_077})
"""Codes of the server for an account or a stream that has no room: resources, storage, messages, bytes."""
_UNAVAILABLE = 503
_NO_RIGHT = "permissions violation"


def _server(url: str) -> str:
    """Refuse what is not the address of a server, and what has a password in it."""
    if has_userinfo(url):
        raise PydanticCustomError("nats", "has a user or a password in it; put them into username and password")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"nats", "tls"} and bool(parts.hostname) and parts.port != 0
        usable = usable and not parts.path and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("nats", "should be an address such as nats://host:4222, or tls://host:4222")
    return url


class NatsConfig(SinkSettings):
    """Records published to a JetStream stream."""

    extras: ClassVar[tuple[str, ...]] = ("nats",)
    type: Literal["nats"] = "nats"
    servers: list[Annotated[str, AfterValidator(_server)]] = Field(min_length=1)
    """The servers of the cluster, or some of them: ``nats://host:4222``, or ``tls://`` for TLS."""
    stream: str = Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")
    subject: str = Field(pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$", max_length=255)
    """Under which subject records are published; the stream has to take it."""
    create: bool = True
    """Whether a stream that is not there is created, in files, for this subject alone."""
    duplicate_window: Annotated[Duration, Field(gt=0)] = 600.0
    """With ``create``: for how long the stream recognises a record that is sent again. It is held in the server's
    memory."""
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    ca_file: str | None = None
    """With ``tls:``, a PEM file of certificate authorities to trust instead of the system's."""
    window: int = Field(default=500, ge=1, le=10_000)
    """How many messages may wait for their acknowledgement at a time."""
    timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """For how long the server may be silent."""
    rejected: str = Field(default=REJECTED, min_length=1)
    """Where records go that are larger than the server or the stream takes. ``{batch}`` is the name of the batch,
    ``{sink}`` that of the sink."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.token is not None and self.username is not None:
            raise PydanticCustomError("nats", "has a token and a username; one of them is enough")
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("nats", "has a username without a password, or a password without a username")
        return self

    @property
    def identity(self) -> str:
        """Which stream this is, and under which subject, on which servers."""
        servers = sorted({f"{parts.hostname}:{parts.port or _PORT}" for parts in map(urlsplit, self.servers)})
        return f"nats://{','.join(servers)}/{self.stream}/{self.subject}"

    def build(self) -> NatsSink:
        """Return the sink, not yet connected."""
        return NatsSink(self, json_records())


class NatsSink:
    """Publishes so many messages at a time, and waits for the acknowledgement of each."""

    def __init__(self, config: NatsConfig, form: Format) -> None:
        self._config = config
        self._format = form
        where = ", ".join(urlsplit(server).netloc for server in config.servers)
        self._place = f"nats {where}, stream {config.stream}"
        self._rejected = Rejected(config.rejected, self._place)
        self._run = ""
        self._client: Any = None
        self._stream: Any = None
        self._inbox = ""
        self._number = 0
        self._acks = Acks()
        self._lost = asyncio.Event()
        self._said = ""

    async def check(self, mark: str | None, *, resume: bool) -> None:  # noqa: ARG002  any mark will do
        """Prove that the stream takes the subject, by a message that is meant for another stream."""
        try:
            await self._connect(resume=resume)
            await self._check_stream()
        except SinkError as failure:
            raise failure if failure.retryable else ConfigError(str(failure)) from failure

    async def discard(self, mark: str) -> None:
        """Forget what was rejected; what was published others may have read already."""
        await self._rejected.forget(mark)

    async def open(self, mark: str | None) -> str:
        """Create the stream if it is not there, prove that it takes the subject, and return the name of the run."""
        await self._connect()
        if not await self._exists():
            await self._create()
            # Before there was a stream, nobody could have answered.
            await self._check_subject()
        self._run = mark or new_run()
        return self._run

    async def write(self, results: Sequence[Result]) -> str:
        """Publish results; return once the server has acknowledged each."""
        items = packed(self._format, results)
        for portion in portions(items, self._config.window, _PORTION_BYTES):
            await self._connect()
            await self._publish(portion)
        return self._run

    async def close(self) -> None:
        """Close the connection."""
        await self._disconnect()

    # Publishing

    async def _publish(self, portion: list[Packed]) -> None:
        nats = _driver()
        sent: dict[str, Packed] = {}
        self._acks, self._number = Acks(), self._number + 1
        try:
            for item in portion:
                if len(item.line) + _headers_size(item) > self._client.max_payload:
                    reason = f"has more than the {self._client.max_payload} bytes of the server"
                    await self._rejected.add(item, reason, self._run)
                    continue
                token = str(len(sent))
                sent[token] = item
                reply = f"{self._inbox}.{self._number}.{token}"
                await self._client.publish(self._config.subject, item.line, reply=reply, headers=self._headers(item))
            self._acks.expect(len(sent))
            await self._settled()
        except (nats.errors.Error, OSError) as error:
            raise self._failure(error) from error
        for token, answer in self._acks.refused.items():
            if answer.err_code != _TOO_LARGE:
                raise self._refusal(answer)
            await self._rejected.add(sent[token], "is larger than the stream takes (max_msg_size)", self._run)

    async def _settled(self) -> None:
        """Wait for all acknowledgements. Raises SinkError if the connection ends, or nothing more comes."""
        complete = asyncio.ensure_future(self._acks.complete.wait())
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([complete, lost], timeout=self._config.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            complete.cancel()
            lost.cancel()
        if self._acks.complete.is_set():
            return
        if self._lost.is_set():
            raise away(self._place, self._said or "the connection was lost")
        # What is still to come would be taken for answers to the next messages.
        await self._disconnect()
        reason = f"no acknowledgement within {self._config.timeout:g} s"
        if _NO_RIGHT in self._said.lower():
            raise SinkError(f"{self._place}: can not publish to {self._config.subject!r}: {self._said}")
        raise away(self._place, f"{reason}; {self._said}" if self._said else reason)

    async def _on_ack(self, message: Any) -> None:
        _, number, token = message.subject.rsplit(".", 2)
        if number == str(self._number):
            status = (message.headers or {}).get("Status")
            self._acks.take(token, message.data, status)

    def _headers(self, item: Packed) -> dict[str, str]:
        result = item.result
        return {
            "Nats-Msg-Id": f"{result.batch}:{self._run}:{_header(result)}",
            "Nats-Expected-Stream": self._config.stream,
            "Fetcher-Batch": result.batch,
            "Fetcher-Job": quote(result.job_id.encode("utf-8", "replace"), safe=":/-_.~"),
        }

    # Connecting

    async def _connect(self, *, resume: bool = True) -> None:
        nats = _driver()
        if self._client is not None and self._client.is_connected:
            return
        await self._disconnect()
        self._said, self._lost = "", asyncio.Event()
        config, client = self._config, nats.NATS()
        secure = config.ca_file is not None or any(server.startswith("tls:") for server in config.servers)
        try:
            async with asyncio.timeout(config.timeout):
                await client.connect(
                    config.servers,
                    user=config.username,
                    password=None if config.password is None else config.password.get_secret_value(),
                    token=None if config.token is None else config.token.get_secret_value(),
                    tls=tls_context(config.ca_file) if secure else None,
                    # A lost connection is replaced by the next write: what was under way is not known to be there.
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=config.timeout,
                    # A portion is what may be pending. The driver's own bound would have a publish wait for a flush
                    # that never comes once the connection is lost.
                    pending_size=0,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                )
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*.*", cb=self._on_ack)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await _close(client)  # the driver leaves the socket open that it could not log in by
            # Who refuses to log in says so and hangs up, and the driver tells of either.
            reason = self._said or shown(str(error))
            if "authorization" in f"{reason} {error}".lower():
                message = f"{self._place}: the server refuses to log in; see username, password and token"
                raise SinkError(message) from error
            raise away(self._place, reason, resume=resume) from error
        self._client = client
        self._stream = client.jetstream(timeout=config.timeout)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _on_error(self, error: Exception) -> None:
        self._said = shown(str(error)) or type(error).__name__

    async def _on_closed(self) -> None:
        self._lost.set()

    # The stream

    async def _check_stream(self) -> None:
        if not await self._exists():
            if not self._config.create:
                raise ConfigError(f"{self._place}: is not there; create it, or set 'create: true'")
            return
        await self._check_subject()

    async def _check_subject(self) -> None:
        """Publish a message that the stream refuses, as it is for another one: who may not publish gets no answer."""
        nats = _driver()
        headers = {"Nats-Expected-Stream": "-"}
        try:
            ack = await self._stream.publish(self._config.subject, b"", headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _OTHER_STREAM:
                return
            raise self._failure(error) from error
        except nats.js.errors.NoStreamResponseError:
            ack = None
        except nats.errors.TimeoutError as error:
            reason = self._said or f"no answer within {self._config.timeout:g} s"
            raise ConfigError(f"{self._place}: can not publish to {self._config.subject!r}: {reason}") from error
        taken = "is taken by no stream" if ack is None else "is that of something else"
        raise ConfigError(f"{self._place}: the subject {self._config.subject!r} {taken}; give the stream that subject")

    async def _exists(self) -> bool:
        nats = _driver()
        try:
            info = await self._stream.stream_info(self._config.stream)
        except nats.js.errors.NotFoundError:
            return False
        except (nats.errors.Error, OSError) as error:
            raise self._failure(error) from error
        if info.config.sealed:
            raise ConfigError(f"{self._place}: is sealed; nothing can be added to it")
        return True

    async def _create(self) -> None:
        nats = _driver()
        config = self._config
        if not config.create:
            raise SinkError(f"{self._place}: is not there any more; create it")
        try:
            await self._stream.add_stream(
                name=config.stream, subjects=[config.subject], duplicate_window=config.duplicate_window
            )
        except nats.js.errors.APIError as error:
            if error.code == _UNAVAILABLE:
                raise self._failure(error) from error
            raise ConfigError(f"{self._place}: can not be created: {shown(str(error.description))}") from error
        except (nats.errors.Error, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> FetcherError:
        """Return what to raise for an answer of the server, or for none."""
        nats = _driver()
        if isinstance(error, nats.js.errors.NoStreamResponseError | nats.errors.NoRespondersError):
            return self._refusal(Refusal(code=_UNAVAILABLE))
        if isinstance(error, nats.js.errors.APIError):
            return self._refusal(Refusal(error.code or 0, error.err_code or 0, error.description or ""))
        return away(self._place, self._said or str(error) or type(error).__name__)

    def _refusal(self, answer: Refusal) -> SinkError:
        """Return what to raise for what JetStream says."""
        said = shown(answer.description)
        if answer.code == _UNAVAILABLE and not answer.err_code:
            message = f"{self._place}: no stream takes {self._config.subject!r} at this moment, or JetStream is off"
            return SinkError(message, retryable=True)
        if answer.err_code in _FULL or said.startswith("maximum "):
            message = f"{self._place}: is full: {said}; make room, or give it larger limits"
            return SinkError(message, retryable=True)
        if answer.code == _UNAVAILABLE and "not enabled" not in said:
            return SinkError(f"{self._place}: takes nothing at this moment: {said}", retryable=True)
        return SinkError(f"{self._place}: {said}")


async def _close(client: Any) -> None:
    """Close a connection, but do not wait for one that never ends: a failed handshake, or a server that is silent."""
    try:
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_GRACE):
                await client.close()
    finally:
        # The driver's own would stay open as long as the server does not read what is still to be sent.
        writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
            await asyncio.sleep(0)


def _header(result: Result) -> str:
    """Return the id of a job as it can stand in a header."""
    text = quote(result.job_id.encode("utf-8", "replace"), safe=":/-_.~")
    return text if len(text) <= _LONGEST_ID else identity([result])


def _headers_size(item: Packed) -> int:
    """Return how many bytes the headers of a message have at most."""
    return _LONGEST_ID * 2 + len(item.result.job_id) * 12 + len(item.result.batch) * 2


def _driver() -> Any:
    load_extra("nats.js.errors", "nats", "the sink nats")
    return load_extra("nats", "nats", "the sink nats")
