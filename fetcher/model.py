"""The nouns of the data path: Job, Response, Result, Outcome.

They are ``msgspec.Struct`` rather than dataclasses: slotted like them, but created in C and encoded to JSON
with defaults omitted, which the queue does for every job and the outputs do for every result.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from fetcher.errors import ErrorKind

SCHEMA_VERSION = 1
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "RETR", "LIST"})
"""Methods that may be sent again though bytes of a first request have left (RFC 9110, section 9.2.2), and commands of
FTP. Nobody knows that of what is sent to a socket (SEND)."""


def method_with_body(default: str) -> str:
    """Return the method of jobs that have a body and name no method, where ``default`` is that of those without."""
    return "POST" if default == "GET" else default


class Outcome(StrEnum):
    """How a job ended. There is no fourth way."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


Header = tuple[str, str]


class Rejection(msgspec.Struct, frozen=True):
    """Why an input row can not be fetched; it travels as a job so that it, too, ends in exactly one record."""

    kind: ErrorKind
    message: str


class FormPart(msgspec.Struct, omit_defaults=True):
    """One part of a ``multipart/form-data`` body (RFC 7578): a ``value``, or a file that is read when it is sent.

    ``path`` is relative to ``request.upload_dir``, and within it. ``filename`` and ``content_type`` are what the
    part says of itself, None for what fits the path.
    """

    name: str
    value: str | None = None
    path: str | None = None
    filename: str | None = None
    content_type: str | None = None


class Receive(msgspec.Struct, omit_defaults=True, frozen=True):
    """When the answer of a protocol without an end of its own is whole: the first of these that is set.

    tcp and tls: ``delimiter`` are the bytes that it ends with (they belong to it), ``length`` is how many bytes it
    has, ``quiet`` for how many seconds nothing more has to come; without any, it ends with the connection. ws and wss:
    ``messages`` is how many there are (1 if nothing is set), ``until`` the JMESPath condition that the last one meets,
    ``matches`` the pattern (RE2) that is found in it.
    """

    delimiter: bytes | None = None
    length: int | None = None
    quiet: float | None = None
    messages: int | None = None
    until: str | None = None
    matches: str | None = None


class Job(msgspec.Struct, omit_defaults=True):
    """One thing to fetch.

    ``id`` names the source and the row it came from, and is the same however often the input is read.
    ``host`` is what politeness limits apply to: the lower-case host name, without a port. ``method``: that of the
    request, or of what is not http the command: SEND, RETR, LIST. ``body``: what is sent; ``parts`` instead of it are
    put together when it is sent. ``verify`` False accepts any certificate. ``checksum`` is what the body has to hash
    to, such as ``sha256:9f8...``. ``parent`` is the id of the job whose answer led to this one, which asks for its
    ``page``, counted from 1; ``foreign``: an answer has named its URL, which is of another origin, so that it is sent
    nothing that is for one origin alone. ``attempts`` and ``first_started_at`` (epoch seconds) are kept by the queue
    from one attempt to the next.
    """

    id: str
    url: str
    host: str
    method: str | None = None
    headers: list[Header] = []
    body: bytes | None = None
    parts: list[FormPart] | None = None
    receive: Receive | None = None
    priority: int = 0
    timeout: float | None = None
    verify: bool | None = None
    checksum: str | None = None
    parent: str | None = None
    page: int = 1
    foreign: bool = False
    meta: dict[str, Any] | None = None
    key: str | None = None
    rejected: Rejection | None = None
    attempts: int = 0
    first_started_at: float | None = None


class Timings(msgspec.Struct):
    """Seconds spent in each phase of the last hop; what the redirects before it took is not in them.

    None where the phase did not happen (a reused connection has no dns).
    """

    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None


class Redirect(msgspec.Struct, frozen=True):
    """One hop that was followed: the URL that answered, its status, and where it pointed."""

    url: str
    status: int
    location: str


class RateLimit(msgspec.Struct, frozen=True):
    """How much a server says may still be asked of it: ``remaining`` requests within the next ``reset`` seconds."""

    remaining: int
    reset: float


class Response(msgspec.Struct):
    """What a transport brings back: the last answer, and how it was reached.

    ``status`` is that of http, None for what has no such. ``method`` is that of the last hop (a redirect may turn POST
    into GET), and so are the ``timings``.

    ``length_unknown``: the end of the connection was the end of the body, so nothing proves that it is whole.
    ``content_encoding``: the codings that are still on the body, as there is no decoder for them. ``verified``: False
    if the certificate was not checked. ``revalidated``: the body did not change, and is that of an earlier run.
    ``resumed_at``: the offset in bytes from which on the body was fetched this time. ``proxy``: which one was used.
    ``crawl_delay``: the least seconds between two requests that the host's robots.txt asks for. ``rate_limit``: what
    the answer says of the budget that it was a part of. ``more``: how many requests it took of the job's host after the
    first one, for redirects within it and to answer challenges.
    """

    status: int | None
    method: str
    final_url: str
    headers: list[Header]
    body: bytes | None = None
    body_size: int = 0
    wire_size: int = 0
    truncated: bool = False
    content_type: str | None = None
    content_length: int | None = None
    sha256: str | None = None
    body_path: str | None = None
    length_unknown: bool = False
    content_encoding: str | None = None
    resumed_at: int | None = None
    revalidated: bool = False
    http_version: str | None = None
    remote_ip: str | None = None
    proxy: str | None = None
    verified: bool = True
    crawl_delay: float | None = None
    rate_limit: RateLimit | None = None
    more: int = 0
    redirects: list[Redirect] = []
    timings: Timings = msgspec.field(default_factory=Timings)


class Result(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The record of one job, in the order in which its fields are written. Absent means null.

    Durations are in seconds, sizes in bytes. ``queue_s`` is the time between the lease of the job and the start
    of the exchange. ``dns_s``, ``connect_s``, ``tls_s`` and ``first_byte_s`` are those of the last hop, ``total_s``
    covers all hops, redirects included; ``method`` is what the last hop was made with. ``body_size`` counts decoded
    bytes, ``wire_size`` those that travelled. ``page`` is set where answers have next ones: ``parent_id`` is the job of
    the first, ``has_more`` tells whether there is another page after this one. What else a ``Response`` says of itself
    is here if it is not as usual.
    """

    schema_version: int = msgspec.field(default_factory=lambda: SCHEMA_VERSION)
    batch: str
    job_id: str
    url: str
    final_url: str | None = None
    method: str | None = None
    status: int | None = None
    outcome: Outcome
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    attempts: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    queue_s: float | None = None
    dns_s: float | None = None
    connect_s: float | None = None
    tls_s: float | None = None
    first_byte_s: float | None = None
    total_s: float | None = None
    http_version: str | None = None
    remote_ip: str | None = None
    proxy: str | None = None
    verified: bool | None = None
    headers: list[Header] | None = None
    content_type: str | None = None
    content_length: int | None = None
    body_size: int | None = None
    wire_size: int | None = None
    truncated: bool | None = None
    length_unknown: bool | None = None
    content_encoding: str | None = None
    resumed_at: int | None = None
    revalidated: bool | None = None
    sha256: str | None = None
    body: bytes | None = None
    body_encoding: str | None = None
    body_path: str | None = None
    redirects: list[Redirect] | None = None
    parent_id: str | None = None
    page: int | None = None
    has_more: bool | None = None
    extracted: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
