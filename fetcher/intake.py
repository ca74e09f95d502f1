"""From one row of input to one Job. A row that can not be fetched becomes a job that says why.

URLs are checked here, once, so that nothing behind the queue has to doubt them: scheme, host, port, no control
characters. What is plain ASCII is kept byte for byte; anything else goes through yarl, which applies IDNA to the
host and percent-encodes the rest (RFC 3986). A user and password in a URL move into an ``Authorization`` header,
so that they appear in no record.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from yarl import URL

from fetcher.errors import ErrorKind
from fetcher.model import Job, Rejection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetcher.model import Header

SCHEMES = frozenset({"http", "https"})
MAX_URL_LENGTH = 65_536
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
_PLAIN = re.compile(
    rf"https?://({_HOST}(?:\.{_HOST})*\.?)(?::(\d{{1,5}}))?(?:[/?][\x21\x23-\x5b\x5d\x5f\x61-\x7a\x7e]*)?"
)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(r"[\x00\r\n]")
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"})
_MAX_PORT = 65_535
_MAX_HOST = 253
_SHOWN = 200


class RowError(ValueError):
    """A row can not be a job; carries the kind that its record will have."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        """Describe what is wrong with the row."""
        super().__init__(message)
        self.kind = kind


def make_job(job_id: str, url: str, meta: dict[str, Any] | None = None) -> Job:
    """Build the job for one URL; one that is not usable gives a rejected job, never an exception."""
    match = _PLAIN.fullmatch(url)
    if match is not None and len(match[1]) <= _MAX_HOST and (match[2] is None or 0 < int(match[2]) <= _MAX_PORT):
        return Job(id=job_id, url=url.partition("#")[0], host=match[1].lower().rstrip("."), meta=meta)
    try:
        address, authorization = _normalise(url)
    except RowError as error:
        return rejected_job(job_id, url, error, meta)
    job = Job(id=job_id, url=str(address), host=(address.raw_host or "").lower().rstrip("."), meta=meta)
    if authorization is not None:
        job.headers = [authorization]
    return job


def rejected_job(job_id: str, shown: str, error: RowError, meta: dict[str, Any] | None = None) -> Job:
    """Build the job of a row that can not be fetched; it will end as ``skipped`` with this reason."""
    text = shown.encode("utf-8", "backslashreplace").decode()
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return Job(id=job_id, url=text, host="", meta=meta, rejected=Rejection(error.kind, str(error)))


def check_headers(headers: Mapping[str, str]) -> list[Header]:
    """Return headers that are safe to send; raises RowError for those that could split or reframe a request."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise RowError(ErrorKind.INVALID_ROW, f"header name {name!r} is not a token (RFC 9110, section 5.1)")
        if name.lower() in _FRAMING:
            raise RowError(ErrorKind.INVALID_ROW, f"header {name!r} belongs to the connection and can not be set")
        if _BAD_IN_VALUE.search(value):
            raise RowError(ErrorKind.INVALID_ROW, f"the value of header {name!r} contains CR, LF or NUL")
    return list(headers.items())


def check_method(method: str) -> str:
    """Return the method as it is sent; raises RowError if it is not a token."""
    if not _TOKEN.fullmatch(method):
        raise RowError(ErrorKind.INVALID_ROW, f"method {method!r} is not a token (RFC 9110, section 9.1)")
    return method.upper()


def _normalise(url: str) -> tuple[URL, Header | None]:
    """Parse what is not plain: other alphabets, escapes, IPv6, credentials."""
    if len(url) > MAX_URL_LENGTH:
        raise RowError(ErrorKind.INVALID_URL, f"longer than {MAX_URL_LENGTH} characters")
    if _CONTROL.search(url):
        raise RowError(ErrorKind.INVALID_URL, "contains a space or a control character")
    try:
        parsed = URL(url)
        port = parsed.port
        host = parsed.raw_host
    except (ValueError, UnicodeError) as error:
        raise RowError(ErrorKind.INVALID_URL, str(error) or "not a URL") from error
    if not parsed.scheme:
        raise RowError(ErrorKind.INVALID_URL, "has no scheme; write http:// or https:// before it")
    if parsed.scheme not in SCHEMES:
        raise RowError(ErrorKind.UNSUPPORTED_SCHEME, f"nothing here fetches {parsed.scheme}: URLs")
    if not host or not port:
        raise RowError(ErrorKind.INVALID_URL, "has no host" if not host else "has no usable port")
    if len(host) > _MAX_HOST or any(not 0 < len(label) <= 63 for label in host.rstrip(".").split(".")):  # noqa: PLR2004
        raise RowError(ErrorKind.INVALID_URL, "a label of its host is empty or longer than 63 characters (RFC 1035)")
    if parsed.raw_user is None and parsed.raw_password is None:
        return parsed.with_fragment(None), None
    credentials = unquote_to_bytes(parsed.raw_user or "") + b":" + unquote_to_bytes(parsed.raw_password or "")
    header = ("Authorization", "Basic " + b64encode(credentials).decode("ascii"))
    return parsed.with_user(None).with_fragment(None), header
