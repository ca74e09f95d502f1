"""A message when a batch has ended, with the jobs that failed as a table. Needs the extra ``email`` (aiosmtplib).

Records are not sent: of those that failed, as many as ``attach`` says are kept with the batch's marks, so that they
are still known at the end though the process died on the way. One message an ending: a batch that was interrupted
and can be resumed has none, and one that is stopped again by the same fault is told of once. If the process dies
between the server's word and the mark, the message is sent again with the same Message-ID.
"""

from __future__ import annotations

import hashlib
import re
import socket
import zlib
from base64 import b64decode, b64encode
from email import policy
from email.message import EmailMessage
from email.utils import localtime
from html import escape
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import UNWANTED, ConfigError, SinkError, StateError
from fetcher.extras import load_extra
from fetcher.model import Outcome, Result
from fetcher.registry import config_class
from fetcher.settings import Duration, Secret
from fetcher.sink_settings import SinkSettings
from fetcher.sinks.remote import away, new_run, shown, tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Ending, Format

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_COLUMNS = ["job_id", "url", "outcome", "status", "error_kind", "error_message", "attempts", "finished_at"]
_LONGEST_URL = 2000
_LONGEST_MESSAGE = 300
_PERMANENT = 500
_LOGIN = range(530, 540)


def _mailbox(address: str) -> str:
    """Refuse what is no bare address: it could carry other recipients, or other headers."""
    if not _ADDRESS.fullmatch(address):
        raise PydanticCustomError("email", "should be an address such as name@example.org")
    return address


def _one_line(subject: str) -> str:
    if not subject.isprintable():
        raise PydanticCustomError("email", "should be one line of printable text")
    return subject


Mailbox = Annotated[str, AfterValidator(_mailbox)]


class EmailConfig(SinkSettings):
    """One message when a batch has ended."""

    extras: ClassVar[tuple[str, ...]] = ("email",)
    type: Literal["email"] = "email"
    host: str = Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")
    """The SMTP server."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """By default 587 with ``starttls``, 465 with ``tls``, and 25 with ``none``."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """``starttls`` begins in the clear and refuses to go on so; ``tls`` is TLS from the first byte."""
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""
    sender: Mailbox
    to: list[Mailbox] = Field(min_length=1, max_length=100)
    subject: Annotated[str, AfterValidator(_one_line)] = Field(default="[fetcher] {batch}: {ending}", max_length=200)
    """``{batch}`` is the name of the batch, ``{ending}`` how it ended."""
    when: Literal["always", "trouble"] = "always"
    """``trouble``: only if a run was stopped by a fault, if more jobs failed than ``max_failures`` of the batch allows,
    or if no row of its input could be used."""
    attach: int = Field(default=1000, ge=0, le=10_000)
    """How many failures are attached at most, the first ones; 0 is none. Rows of the input that could not be used are
    among them, and jobs that were skipped because their host was down; not what robots.txt disallows."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """For how long the server may be silent."""
    required: bool = False
    """Whether a run fails (exit 75, and resuming it sends the message) if the message can not be sent."""

    @model_validator(mode="after")
    def _credentials_are_safe(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("email", "has a username without a password, or a password without a username")
        if self.username is not None and self.tls == "none" and not _is_local(self.host):
            raise PydanticCustomError("email", "would send its password in the clear; use tls: starttls or tls: tls")
        return self

    def build(self) -> EmailSink:
        """Return the sink. It connects for a check and for a message, and is gone in between."""
        csv: Any = config_class("formats", "csv")
        return EmailSink(self, csv(columns=_COLUMNS).build())


class EmailMark(msgspec.Struct):
    """Which run this is, what was told of it last, and its failures: results as JSON, compressed, in pieces."""

    run: str
    told: str = ""
    failures: list[str] = []


class EmailSink:
    """Keeps failures, and sends a message at the end."""

    def __init__(self, config: EmailConfig, form: Format) -> None:
        self._config = config
        self._format = form
        self._port = config.port or _PORTS[config.tls]
        self._place = f"email by {config.host}:{self._port}"
        self._mark = EmailMark("")
        self._text = ""
        self._failures: list[Result] = []

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Log in, and name the sender and everyone whom the message is for; send nothing."""
        self._decoded(mark)
        smtp = load_extra("aiosmtplib", "email", "the sink email")
        try:
            async with self._client() as client:
                await client.mail(self._config.sender)
                for address in self._config.to:
                    await client.rcpt(address)
                await client.rset()
        except (smtp.SMTPException, OSError) as error:
            failure = self._failure(error, resume=resume)
            raise failure if failure.retryable else ConfigError(str(failure)) from error

    async def discard(self, mark: str) -> None:
        """Do nothing: what was sent can not be taken back."""

    async def open(self, mark: str | None) -> str:
        """Take up the failures of the run so far."""
        self._mark = self._decoded(mark) or EmailMark(new_run())
        self._failures = [result for piece in self._mark.failures for result in _unpacked(piece)]
        return self._note()

    async def write(self, results: Sequence[Result]) -> str:
        """Keep what failed, as long as there is room for it."""
        room = self._config.attach - len(self._failures)
        if room > 0:
            failed = [_brief(result) for result in results if _is_told(result)][:room]
            if failed:
                self._failures += failed
                self._mark.failures.append(_packed(failed))
                self._note()
        return self._text

    async def conclude(self, ending: Ending) -> str:
        """Send the message, unless it was sent already or is not wanted. Raises SinkError if that fails."""
        told = hashlib.sha256(f"{ending.stopped}".encode()).hexdigest()[:16]
        wanted = self._config.when == "always" or ending.stopped is not None or ending.exceeded
        if not wanted or told == self._mark.told:
            return self._text
        smtp = load_extra("aiosmtplib", "email", "the sink email")
        message = self._message(ending, told)
        try:
            async with self._client() as client:
                # If some recipients are refused, the others have the message, and it must not be sent again.
                await client.send_message(message, sender=self._config.sender, recipients=self._config.to)
        except (smtp.SMTPException, OSError) as error:
            raise self._failure(error) from error
        self._mark.told = told
        return self._note()

    async def close(self) -> None:
        """Do nothing: no connection outlives its message."""

    # Marks

    def _note(self) -> str:
        self._text = msgspec.json.encode(self._mark).decode()
        return self._text

    def _decoded(self, mark: str | None) -> EmailMark | None:
        try:
            return None if mark is None else msgspec.json.decode(mark, type=EmailMark)
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._place}: what it knows of the failures so far was recorded in a way unknown here ({error}); "
                "start over with --fresh"
            ) from error

    # Sending

    def _client(self) -> Any:
        """Return a client that connects, secures the connection and logs in when it is entered."""
        smtp = load_extra("aiosmtplib", "email", "the sink email")
        config = self._config
        return smtp.SMTP(
            hostname=config.host,
            port=self._port,
            use_tls=config.tls == "tls",
            start_tls=config.tls == "starttls",
            tls_context=None if config.tls == "none" else tls_context(config.ca_file),
            username=config.username,
            password=None if config.password is None else config.password.get_secret_value(),
            timeout=config.timeout,
            local_hostname=socket.gethostname() or "localhost",  # the driver would ask a name server, and wait for it
        )

    def _message(self, ending: Ending, told: str) -> EmailMessage:
        config = self._config
        message = EmailMessage(policy.SMTP)
        subject = config.subject.replace("{batch}", ending.batch).replace("{ending}", _headline(ending))
        message["Subject"] = shown(subject)
        message["From"] = config.sender
        message["To"] = ", ".join(config.to)
        message["Date"] = localtime()
        message["Message-ID"] = f"<{self._mark.run}.{told}@{config.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice answers it
        rows = _rows(ending, len(self._failures))
        message.set_content(_text(ending, rows))
        message.add_alternative(_html(ending, rows), subtype="html")
        if self._failures:
            table = self._format.begin() + self._format.encode(self._failures)
            message.add_attachment(table, "text", "csv", filename="failures.csv", params={"charset": "utf-8"})
        return message

    def _failure(self, error: Exception, *, resume: bool = True) -> SinkError:
        """Return what to raise for an answer of the server, or for none."""
        smtp = load_extra("aiosmtplib", "email", "the sink email")
        errors = error.recipients if isinstance(error, smtp.SMTPRecipientsRefused) else [error]
        first: Exception = errors[0] if errors else error
        code, said = getattr(first, "code", None), shown(str(getattr(first, "message", first)))
        if code is not None and code < _PERMANENT:
            return away(self._place, f"it answered {code} {said}", resume=resume)
        if code is None and not isinstance(first, smtp.SMTPNotSupported) and "not supported" not in said:
            if "certificate" in said.lower():
                return SinkError(f"{self._place}: its certificate is not to be trusted: {said}; see ca_file")
            return away(self._place, said or type(first).__name__, resume=resume)
        return SinkError(f"{self._place}: {self._refusal(first, code, said)}")

    def _refusal(self, error: Any, code: int | None, said: str) -> str:
        smtp = load_extra("aiosmtplib", "email", "the sink email")
        if code is None:
            return f"{said}; see tls, username and password"
        if isinstance(error, smtp.SMTPAuthenticationError) or code in _LOGIN:
            return f"the server refuses to log in ({code}); see username and password"
        if isinstance(error, smtp.SMTPRecipientRefused):
            return f"the server refuses {shown(error.recipient)}: {code} {said}; see to"
        if isinstance(error, smtp.SMTPSenderRefused):
            return f"the server refuses {self._config.sender}: {code} {said}; see sender"
        return f"the server refuses the message: {code} {said}"


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# Failures


def _is_told(result: Result) -> bool:
    return result.outcome is not Outcome.OK and result.error_kind not in UNWANTED


def _brief(result: Result) -> Result:
    """Return as much of a result as the table shows."""
    return Result(
        batch=result.batch,
        job_id=result.job_id,
        url=result.url[:_LONGEST_URL],
        outcome=result.outcome,
        status=result.status,
        error_kind=result.error_kind,
        error_message=(result.error_message or "")[:_LONGEST_MESSAGE],
        attempts=result.attempts,
        finished_at=result.finished_at,
    )


def _packed(results: list[Result]) -> str:
    try:
        data = msgspec.json.encode(results)
    except UnicodeEncodeError:
        return _packed([_without_surrogates(result) for result in results])
    return b64encode(zlib.compress(data)).decode("ascii")


def _unpacked(piece: str) -> list[Result]:
    return msgspec.json.decode(zlib.decompress(b64decode(piece)), type=list[Result])


def _without_surrogates(result: Result) -> Result:
    texts = {name: getattr(result, name) or "" for name in ("job_id", "url", "error_message")}
    clean = {name: text.encode("utf-8", "replace").decode("utf-8") for name, text in texts.items()}
    return msgspec.structs.replace(result, **clean)


# Words


def _headline(ending: Ending) -> str:
    failed = f"{ending.failed:,} of {ending.jobs:,} jobs failed"
    if ending.stopped is not None:
        return f"STOPPED, {ending.done:,} of {ending.jobs:,} jobs done"
    if ending.exceeded and not ending.failed:
        return f"FAILED, none of {ending.jobs:,} rows of the input could be used"
    if ending.exceeded:
        return f"FAILED, {failed} (more than {ending.limit})"
    return f"finished, {failed}" if ending.failed else f"finished, all of {ending.jobs:,} jobs"


def _rows(ending: Ending, kept: int) -> list[tuple[str, str]]:
    """Return what is to be said, as labels and values."""
    outcomes = ", ".join(f"{name} {count:,}" for name, count in ending.outcomes.items())
    rows = [("batch", ending.batch), ("jobs", f"{ending.jobs:,}"), ("outcomes", outcomes or "none yet")]
    if ending.stopped is not None:
        rows.append(("stopped by", shown(ending.stopped)))
        rows.append(("left", f"{ending.jobs - ending.done:,} jobs; run the same command again to resume"))
    if ending.statuses:
        rows.append(("status", ", ".join(f"{name} {count:,}" for name, count in sorted(ending.statuses.items()))))
    rows += [(f"error {name}", f"{count:,}") for name, count in sorted(ending.kinds.items(), key=lambda it: -it[1])]
    rows.append(("time", f"{ending.seconds:,.0f} s"))
    if kept:
        what = "all of them" if kept >= ending.told else f"the first {kept:,} of {ending.told:,}"
        rows.append(("failures", f"{what} in failures.csv"))
    return rows


def _text(ending: Ending, rows: list[tuple[str, str]]) -> str:
    width = max(len(label) for label, _ in rows)
    lines = [f"{label.ljust(width)}  {value}" for label, value in rows]
    return "\n".join([f"{ending.batch}: {_headline(ending)}", "", *lines, ""])


def _html(ending: Ending, rows: list[tuple[str, str]]) -> str:
    cells = "\n".join(
        f'<tr><th align="left">{escape(label)}</th><td>{escape(value)}</td></tr>' for label, value in rows
    )
    heading = escape(f"{ending.batch}: {_headline(ending)}")
    return f"<!DOCTYPE html>\n<html><body><h2>{heading}</h2>\n<table>\n{cells}\n</table></body></html>\n"
