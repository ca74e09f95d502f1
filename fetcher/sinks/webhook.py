"""Records posted to somebody's HTTP server, signed, many at a time.

What the receiver can rely on:

- ``Fetcher-Signature: t=<seconds>,v1=<hex>``: HMAC-SHA256, by the secret, over the seconds, a full stop and the body.
  It is verified like this, before the body is parsed::

      def is_genuine(header: str, body: bytes, secret: str, now: float) -> bool:
          fields = dict(part.split("=", 1) for part in header.split(","))
          signed = fields["t"].encode() + b"." + body
          expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
          return hmac.compare_digest(expected, fields["v1"]) and abs(now - int(fields["t"])) < 300

- ``Idempotency-Key``: the same if, and only if, the same records of the same run are posted again, as after an answer
  that was lost. After a crash, records may come again in other company, so with another key: tell them by ``job_id``.
- 2xx says that the records are kept. 408, 425, 429 and 5xx have them posted again later, after ``Retry-After`` if there
  is one. What says that nothing can be right here (401, 403, 404, 405, a redirect ...) stops the run.
- Any other status refuses the records. They are posted again in halves, until it is known which of them it is about;
  those go to ``rejected``, and the others are delivered.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import aiohttp
import msgspec
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from yarl import URL

from fetcher.errors import ConfigError, FetchError, SinkError
from fetcher.guard import GuardSwitch
from fetcher.jobs.intake import RowError, check_headers
from fetcher.outbound import guarded_session, reason_of
from fetcher.settings import ByteSize, Duration, Secret
from fetcher.sink_settings import REJECTED, SinkSettings
from fetcher.sinks.rejected import Rejected
from fetcher.sinks.remote import (
    Packed,
    Written,
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
    import ssl
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

_REFUSES_ALL = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 411, 415, 421, 426, 431, 451})
_LATER = frozenset({408, 425, 429})
_CONTENT_TYPES = {"json": "application/json", "ndjson": "application/x-ndjson"}
_OURS = frozenset({"content-type", "idempotency-key", "fetcher-batch", "fetcher-signature"})
_ANSWER = 2048
_LONGEST_PAUSE = 600.0
_TELLING = 10  # records of which none is taken: if none ever was, it is not about these records


def _address(url: str) -> str:
    """Refuse what can not be posted to, and what has a password in it."""
    if has_userinfo(url):
        raise PydanticCustomError("webhook", "has a user or a password in it; put them into headers")
    try:
        parsed = URL(url)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.host) and parsed.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError("webhook", "should be an address such as https://host/path")
    return url


class WebhookConfig(SinkSettings):
    """Records posted to an HTTP server, signed."""

    type: Literal["webhook"] = "webhook"
    url: Annotated[str, AfterValidator(_address)]
    secret: Secret | None = None
    """The key of the signature; without it requests are not signed."""
    format: Literal["json", "ndjson"] = "json"
    """The body: an array of records, or a record a line."""
    headers: dict[str, Secret] = Field(default={})
    """What else each request has, such as ``authorization``."""
    records: int = Field(default=500, ge=1, le=100_000)
    """How many records a request has at most."""
    size: Annotated[ByteSize, Field(gt=0)] = 1024 * 1024
    """How many bytes a request has at most, unless a single record has more."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """How long a request may take."""
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""
    guard: GuardSwitch = None
    """Reach public addresses only, and what its ``allow`` has: for a URL that somebody else has given. By default, as
    ``http.guard``; ``false`` is none."""
    ping: bool = True
    """Whether a request without records is posted before the first fetch, to see that others will be taken."""
    rejected: str = Field(default=REJECTED, min_length=1)
    """Where records go that the receiver refuses. ``{batch}`` is the name of the batch, ``{sink}`` that of the sink."""

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        try:
            check_headers({name: value.get_secret_value() for name, value in self.headers.items()})
        except RowError as error:
            words = str(error).replace("{", "(").replace("}", ")")
            raise PydanticCustomError("webhook", "{words}", {"words": words}) from None
        for name in self.headers:
            if name.lower() in _OURS:
                raise PydanticCustomError("webhook", "sets the header {name} itself", {"name": name.lower()})
        return self

    @property
    def identity(self) -> str:
        """To where records are posted. A query may hold a key, so that it is there as a hash alone."""
        url = URL(self.url).with_fragment(None)
        query = hashlib.sha256(url.raw_query_string.encode()).hexdigest() if url.raw_query_string else ""
        return f"{url.with_query(None)}?{query}"

    def build(self) -> WebhookSink:
        """Return the sink, not yet connected."""
        return WebhookSink(self, json_records())


class Answer(msgspec.Struct, frozen=True):
    """What the receiver said: a status, the beginning of the body as it may be shown, and for how long to wait."""

    status: int
    text: str
    pause: float | None = None

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f": {self.text}" if self.text else "")


class WebhookSink:
    """Posts portions of a batch one after the other, and looks for the records that are refused."""

    def __init__(self, config: WebhookConfig, form: Format) -> None:
        self._config = config
        self._format = form
        # Without the query, which may hold a key.
        self._place = f"webhook {URL(config.url).with_query(None).with_fragment(None)}"
        self._rejected = Rejected(config.rejected, self._place)
        self._written = Written()
        self._some_taken = False
        self._run = ""
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Post a request without records. What is not taken later is refused now."""
        self._open_session()
        if not self._config.ping:
            return
        try:
            answer = await self._post([], mark or new_run(), resume=resume)
            self._judge(answer, resume=resume)
        except SinkError as failure:
            raise failure if failure.retryable else ConfigError(str(failure)) from failure

    async def discard(self, mark: str) -> None:
        """Forget what was rejected; what was posted can not be taken back."""
        await self._rejected.forget(mark)

    async def open(self, mark: str | None) -> str:
        """Return the name of the run."""
        self._open_session()
        self._run = mark or new_run()
        return self._run

    async def write(self, results: Sequence[Result]) -> str:
        """Post results; return once each was taken, or refused and kept."""
        self._written.begin(identity(results))
        items = packed(self._format, results)
        refused = 0
        for portion in portions(items, self._config.records, self._config.size):
            refused += await self._deliver(portion)
            if refused >= _TELLING and not self._some_taken:
                raise SinkError(
                    f"{self._place}: refused all of the first {refused} records; see {self._config.rejected}"
                )
        self._written.end()
        return self._run

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    # Delivering

    async def _deliver(self, items: list[Packed]) -> int:
        """Have the receiver take records, but for those that it refuses; return how many those are."""
        key = identity(item.result for item in items)
        if key in self._written:
            return 0
        refused = 0
        divided = f"divided:{key}"
        reason = None if divided in self._written else self._judge(await self._post(items, self._run))
        if reason is not None and len(items) > 1:
            self._written.add(divided)
        if divided in self._written:
            half = len(items) // 2
            refused = await self._deliver(items[:half]) + await self._deliver(items[half:])
        elif reason is not None:
            await self._rejected.add(items[0], reason, self._run)
            refused = 1
        else:
            self._some_taken = True
        self._written.add(key)
        return refused

    def _judge(self, answer: Answer, *, resume: bool = True) -> str | None:
        """Return None if records were taken, or else why they were refused; SinkError if that is not about them."""
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004  RFC 9110, section 15.3
            return None
        if status in _LATER or status >= 500:  # noqa: PLR2004  RFC 9110, section 15.6
            failure = away(self._place, f"it answered {answer}", resume=resume)
            failure.pause = answer.pause or None  # none at all would be asking without a break
            raise failure
        if status in {401, 403}:
            raise SinkError(f"{self._place}: does not accept who asks ({answer}); see secret and headers")
        if status < 400:  # noqa: PLR2004  RFC 9110, section 15.4
            raise SinkError(f"{self._place}: answered {answer}; redirects are not followed, so give the final URL")
        if status in _REFUSES_ALL:
            raise SinkError(f"{self._place}: does not take posted records ({answer}); see url and format")
        return str(answer)

    # Posting

    async def _post(self, items: list[Packed], run: str, *, resume: bool = True) -> Answer:
        body = _body(self._config.format, items)
        headers = self._headers(items, run, body)
        # The session and the context are there since check or open.
        session = self._open_session()
        try:
            async with session.post(
                URL(self._config.url),
                data=io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                ssl=self._context or True,
            ) as response:
                text = await response.content.read(_ANSWER)
                pause = retry_after(response.headers.get("Retry-After"), time.time())
                return Answer(response.status, shown(text.decode("utf-8", "replace")), pause)
        except FetchError as error:
            raise SinkError(f"{self._place}: {error.message}") from error
        except aiohttp.ClientConnectorCertificateError as error:
            reason = shown(str(error.certificate_error))
            raise SinkError(f"{self._place}: its certificate is not to be trusted: {reason}; see ca_file") from error
        except TimeoutError as error:
            raise away(self._place, f"no answer within {self._config.timeout:g} s", resume=resume) from error
        except aiohttp.ClientConnectorError as error:
            raise away(self._place, error.os_error.strerror or str(error.os_error), resume=resume) from error
        except (aiohttp.ClientError, OSError) as error:
            raise away(self._place, reason_of(error), resume=resume) from error

    def _headers(self, items: list[Packed], run: str, body: bytes) -> dict[str, str]:
        key = hashlib.sha256(f"{run}:{identity(item.result for item in items)}".encode()).hexdigest()
        headers = {name: value.get_secret_value() for name, value in self._config.headers.items()}
        headers |= {"Content-Type": _CONTENT_TYPES[self._config.format], "Idempotency-Key": key}
        if items:
            headers["Fetcher-Batch"] = items[0].result.batch
        if self._config.secret is not None:
            headers["Fetcher-Signature"] = signature(self._config.secret.get_secret_value(), int(time.time()), body)
        return headers

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._context = tls_context(self._config.ca_file)
            guard = self._config.guard
            options: dict[str, Any] = {
                "timeout": aiohttp.ClientTimeout(total=self._config.timeout),
                "headers": {"User-Agent": "fetcher"},
                "cookie_jar": aiohttp.DummyCookieJar(),
            }
            if guard is None:
                self._session = aiohttp.ClientSession(trust_env=False, **options)
            else:
                self._session = guarded_session(guard.build(), **options)
        return self._session


def signature(secret: str, seconds: int, body: bytes) -> str:
    """Return the signature of a body that is posted at a time (epoch seconds)."""
    signed = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={signed.hexdigest()}"


def retry_after(value: str | None, now: float) -> float | None:
    """Return for how many seconds a Retry-After asks to wait (RFC 9110, section 10.2.3), cut to ten minutes."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _LONGEST_PAUSE)
    try:
        moment: datetime = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - now, 0.0), _LONGEST_PAUSE)


def _body(form: str, items: list[Packed]) -> bytes:
    lines = [item.line for item in items]
    if form == "json":
        return b"[" + b",".join(lines) + b"]"
    return b"".join(line + b"\n" for line in lines)
