"""Every error that fetcher raises, and the bounded set of kinds that a failed job can have.

    FetcherError
    ├── ConfigError          a config or an input that can not be used          exit 78
    │   └── MissingExtraError    an optional dependency that is not installed
    ├── StateError           a queue or an output that is in no state to be used
    │   └── StateBusyError       another process is using it                    exit 75
    ├── SourceError          a source that can not be read on
    ├── SinkError            a sink that can not take results               exit 1, or 75 if it may later
    ├── LateError            what did not end in time at a shutdown             exit 75
    ├── PlanError            a measurement that makes no sense                  exit 2
    ├── RefusedError         a target of somebody else                          exit 2
    ├── UnreachableError     a target that does not answer at all               exit 3
    ├── ReportError          a report that can not be written                   exit 1
    ├── UnknownBatchError    a batch that the service does not have
    ├── BatchStateError      a batch that is in no state for what is asked of it
    ├── CursorError          a place in results that is none
    ├── ApiError             a service that refuses a request, or can not be reached
    └── FetchError           one job failed; carries its kind, becomes a Result

Only ``FetchError`` is about a single job. It never travels further than the worker.
"""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fetcher.model import Redirect, Response


EXIT_RESUMABLE = 75
"""What the command line ends with if the same command goes on where it stopped."""
# A config that can not be used, a token that does not do; an id or a state that was not the right one; too busy.
_EXIT_OF_STATUS = {401: 78, 403: 78, 413: 78, 415: 78, 422: 78, 400: 2, 404: 2, 409: 2, 429: 75, 503: 75}


class ErrorKind(StrEnum):
    """Why a job did not end ``ok``: value of ``error_kind``, metric label, and key of the retry policy.

    The set is bounded on purpose. What is particular to one failure goes into ``error_message``.
    """

    # Input
    INVALID_URL = "invalid_url"
    INVALID_ROW = "invalid_row"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    # Name resolution
    DNS_NOT_FOUND = "dns_not_found"
    DNS_FAILURE = "dns_failure"
    # Connection
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_FAILED = "connect_failed"
    CONNECTION_RESET = "connection_reset"
    SERVER_DISCONNECTED = "server_disconnected"
    # TLS
    TLS_EXPIRED = "tls_expired"
    TLS_SELF_SIGNED = "tls_self_signed"
    TLS_HOSTNAME = "tls_hostname"
    TLS_UNTRUSTED = "tls_untrusted"
    TLS_TIMEOUT = "tls_timeout"
    TLS_PROTOCOL = "tls_protocol"
    # Proxy
    PROXY_UNREACHABLE = "proxy_unreachable"
    PROXY_AUTH = "proxy_auth"
    PROXY_REFUSED = "proxy_refused"
    # HTTP
    BAD_HTTP = "bad_http"
    NOT_HTTP = "not_http"
    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    BODY_TOO_LARGE = "body_too_large"
    BAD_ENCODING = "bad_encoding"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    BAD_REDIRECT = "bad_redirect"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_3XX = "http_3xx"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    # Other protocols
    FTP_4XX = "ftp_4xx"
    FTP_5XX = "ftp_5xx"
    BAD_ANSWER = "bad_answer"
    # What was asked for
    UNEXPECTED = "unexpected"
    BAD_PAGINATION = "bad_pagination"
    # Time
    READ_TIMEOUT = "read_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    TOO_SLOW = "too_slow"
    DEADLINE = "deadline"
    # Ours
    AUTH_FAILED = "auth_failed"
    BLOCKED = "blocked"
    ROBOTS_DISALLOWED = "robots_disallowed"
    ROBOTS_UNREACHABLE = "robots_unreachable"
    HOST_DOWN = "host_down"
    STAGE_FAILED = "stage_failed"
    INTERNAL = "internal"


SKIPPING = frozenset({ErrorKind.ROBOTS_DISALLOWED, ErrorKind.ROBOTS_UNREACHABLE, ErrorKind.HOST_DOWN})
"""Kinds of jobs that were not fetched though they could have been: they end as ``skipped``, not as ``failed``."""

NOT_HAD = frozenset({ErrorKind.ROBOTS_UNREACHABLE, ErrorKind.HOST_DOWN})
"""Those of them that nobody chose: who asks for such a job has not got it, so it counts with those that failed."""

UNWANTED = SKIPPING - NOT_HAD
"""Those of them that are as they should be, and nothing to tell anybody of."""

BAD_INPUT = frozenset({ErrorKind.INVALID_URL, ErrorKind.INVALID_ROW, ErrorKind.UNSUPPORTED_SCHEME})
"""Kinds of rows of an input that can not be a job; a job ends as ``skipped`` with one, and is not counted as failed."""


class FetcherError(Exception):
    """The root of all errors that fetcher raises on purpose. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(FetcherError):
    """A config, or an input that it names, can not be used as it stands. Raised before any fetch."""

    exit_code = 78


class MissingExtraError(ConfigError):
    """A part needs a package that is not installed; the message names the extra to install."""


class StateError(FetcherError):
    """A queue file or an output is in no state to go on from. Nothing was touched."""

    exit_code = 78


class StateBusyError(StateError):
    """The queue is in use by another process. Trying again later may succeed."""

    exit_code = 75


class SourceError(FetcherError):
    """A source can not be read on: the input vanished, shrank, or is not what its type says."""


class SinkError(FetcherError):
    """A sink can not take results durably.

    ``retryable`` says that the same call may succeed later, as when a server is away or a disk is full: it is tried
    again, after ``pause`` seconds if the sink knows better than the usual backoff. What is not retryable stops the run.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, pause: float | None = None, exit_code: int | None = None
    ) -> None:
        """Say what happened, where, and what to do; a retryable one that ends a run can be resumed (exit 75)."""
        super().__init__(message)
        self.retryable = retryable
        self.pause = pause
        if exit_code is not None:
            self.exit_code = exit_code
        elif retryable:
            self.exit_code = EXIT_RESUMABLE


class LateError(FetcherError):
    """Something did not end within the shutdown timeout. What it had in hand can be resumed."""

    exit_code = 75


class PlanError(FetcherError):
    """What was asked for can not be measured."""

    exit_code = 2


class RefusedError(FetcherError):
    """The target is not loopback or private, and nobody said that it may be loaded. Nothing was sent."""

    exit_code = 2


class UnreachableError(FetcherError):
    """There is no answer from the target, so there is nothing to measure."""

    exit_code = 3


class ReportError(FetcherError):
    """The figures are there, but not in the file that was asked for."""

    exit_code = 1


class UnknownBatchError(FetcherError):
    """The service has no batch with that id."""


class BatchStateError(FetcherError):
    """The state of a batch does not allow what is asked for; the message names the state and what is possible."""


class CursorError(FetcherError):
    """A cursor into the results of a batch is not where a record begins."""


class ApiError(FetcherError):
    """The API of a service refuses a request with this ``status``, or (None) can not be reached.

    ``passing``: it may be well in a moment.
    """

    def __init__(self, message: str, status: int | None, *, passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.passing = passing
        self.exit_code = _EXIT_OF_STATUS.get(status, 1) if status is not None else EXIT_RESUMABLE


class FetchError(FetcherError):
    """One job failed. Becomes a Result at the worker and goes no further.

    ``sent`` says whether request bytes had left: a request that is not idempotent is only retried if they had not
    (RFC 9110, section 9.2.2). ``response`` is the head if one had arrived, ``redirects`` what led there: the record
    of the failure shows them. ``postpone``: nothing was asked of the host at all, and in so many seconds it may be: the
    job waits, and this was none of its attempts. ``sound`` is False if what has arrived of a body must not be gone on
    with, whatever the kind.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        sent: bool = True,
        status: int | None = None,
        response: Response | None = None,
        redirects: Sequence[Redirect] = (),
        postpone: float | None = None,
        sound: bool = True,
    ) -> None:
        """Describe the failure; ``status`` is kept where a response head had arrived."""
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sent = sent
        self.status = status
        self.response = response
        self.redirects = redirects
        self.postpone = postpone
        self.sound = sound


def suggestion(wrong: object, known: Iterable[str]) -> str:
    """Return ``; did you mean 'request'?`` or nothing, to end a message with."""
    near = difflib.get_close_matches(str(wrong).lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
