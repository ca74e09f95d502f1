"""From a job object, such as ``{"url": ..., "params": {...}, "json": {...}}``, to a Job.

The same keys are those of jobs in a config, in a request to the service, in rows of a database, and of what ``job``
makes out of the rows of any source. What a scheme has no use for is refused, for whoever wrote it meant something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fetcher.errors import ErrorKind
from fetcher.jobs.content import FORM, OF_STREAMS, authorization_of, body_of, form_of, parts_of, query_of, receive_of
from fetcher.jobs.intake import (
    COMMANDS,
    MAX_URL_LENGTH,
    RowError,
    check_checksum,
    check_headers,
    check_meta,
    check_method,
    check_priority,
    check_switch,
    check_text,
    check_timeout,
    encode_json,
    make_job,
    rejected_job,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetcher.model import Header, Job

BODIES = ("body", "json", "form", "multipart")
"""The keys that give a request its body, of which it has one."""
JOB_KEYS = (
    *("url", "method", "headers", "params", *BODIES, "auth", "receive"),
    *("priority", "timeout", "verify", "checksum", "meta", "key"),
)
"""What a job object may have."""
_REQUEST = frozenset({"method", "headers", "params", *BODIES, "auth", "receive"})
_SOCKET = frozenset({"method", "body", "json"})
_FTP = frozenset({"method", "auth"})
_WEBSOCKET = frozenset({"headers", "params", "body", "json", "auth", "receive"})
_KNOWN = {
    "http": _REQUEST - {"receive"},
    "https": _REQUEST - {"receive"},
    "tcp": _SOCKET | {"receive"},
    "tls": _SOCKET | {"receive"},
    "udp": _SOCKET,
    "ftp": _FTP,
    "ftps": _FTP,
    "ws": _WEBSOCKET,
    "wss": _WEBSOCKET,
}
"""What of its request a job may say, by the scheme of its URL."""
_STREAMS = frozenset({"tcp", "tls"})
_FILES = frozenset({"ftp", "ftps"})
_WEB_SOCKETS = frozenset({"ws", "wss"})


def job_from_mapping(job_id: str, row: Mapping[str, Any]) -> Job:
    """Build the job of a job object (with ``JOB_KEYS``); a mistake gives a rejected job, no exception."""
    url = row.get("url")
    meta = None
    try:
        meta = check_meta(row.get("meta"))
        _check_keys(row)
        job = make_job(job_id, check_text("url", url), meta)
        if job.rejected is None:
            _fill(job, row)
    except RowError as error:
        return rejected_job(job_id, url if isinstance(url, str) else "", error, meta)
    return job


def has_body(row: Mapping[str, Any]) -> list[str]:
    """Return which keys of a job object give it a body; ``json`` that is null is JSON like any other."""
    return [name for name in BODIES if name in row and (name == "json" or row[name] is not None)]


def _check_keys(row: Mapping[str, Any]) -> None:
    unknown = sorted(repr(name) for name in row if name not in JOB_KEYS)
    if unknown:
        raise _wrong(f"unknown key {unknown[0]}; a job has {', '.join(JOB_KEYS)}")
    if len(bodies := has_body(row)) > 1:
        raise _wrong(f"has both {bodies[0]} and {bodies[1]}; a request has one body")


def _fill(job: Job, row: Mapping[str, Any]) -> None:
    """Put everything but the URL and ``meta`` of a job object into its job. A key that is null is absent."""
    if not _REQUEST.isdisjoint(row):
        scheme = job.url.partition(":")[0]
        _check_scheme(scheme, row)
        _fill_request(job, scheme, row)
        _fill_body(job, scheme, row)
        if job.body is not None and scheme in _WEB_SOCKETS:
            # Nobody knows whether a message may be sent twice.
            job.method = "SEND"
    _fill_terms(job, row)


def _check_scheme(scheme: str, row: Mapping[str, Any]) -> None:
    """Raise RowError for what the scheme has no use for."""
    known = _KNOWN[scheme]
    for name in row:
        if name in _REQUEST and name not in known and (row[name] is not None or name == "json"):
            has = ", ".join(key for key in JOB_KEYS if key in known)
            raise _wrong(f"has {name}, which means nothing for {scheme}: URLs; they have {has}")


def _fill_request(job: Job, scheme: str, row: Mapping[str, Any]) -> None:
    """Put the head of the request into a job."""
    if (method := row.get("method")) is not None:
        job.method = _method(scheme, check_text("method", method))
    if (headers := row.get("headers")) is not None:
        if not isinstance(headers, dict):
            raise _wrong("headers is not an object")
        _add_headers(job, check_headers(headers))
    if (auth := row.get("auth")) is not None:
        job.headers = _authorized(scheme, row, authorization_of(auth), job.headers)
    if (params := row.get("params")) is not None and (query := query_of(params)):
        job.url = _joined(job.url, query)
        if len(job.url) > MAX_URL_LENGTH:
            raise RowError(ErrorKind.INVALID_URL, f"longer than {MAX_URL_LENGTH} characters with its params")
    if (receive := row.get("receive")) is not None:
        job.receive = receive_of(receive)
        if OF_STREAMS.isdisjoint(receive) is (scheme in _STREAMS):
            has = "delimiter, length and quiet" if scheme in _STREAMS else "messages, until and matches"
            raise _wrong(f"receive of {scheme}: URLs has {has}, not {next(iter(receive))}")


def _joined(url: str, query: str) -> str:
    """Return a URL, which has no fragment, with more pairs behind those of its query."""
    separator = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return f"{url}{separator}{query}"


def _add_headers(job: Job, given: list[Header]) -> None:
    """Add headers; an Authorization that is written out goes before the one that the URL would give."""
    job.headers = given if "authorization" in _names(given) else given + job.headers


def _authorized(scheme: str, row: Mapping[str, Any], header: Header, headers: list[Header]) -> list[Header]:
    """Return the headers with the one of ``auth``, which goes before the one that the URL would give."""
    if "authorization" in _names(list((row.get("headers") or {}).items())):
        raise _wrong("has both auth and an Authorization header; a request has one of them")
    if scheme in _FILES and not header[1].startswith("Basic "):
        raise _wrong(f"has auth with a token, which {scheme}: does not know; write {{username: ..., password: ...}}")
    return [*(kept for kept in headers if kept[0].lower() != "authorization"), header]


def _method(scheme: str, method: str) -> str:
    method = check_method(method)
    commands = COMMANDS.get(scheme)
    if commands is not None and method not in commands:
        raise _wrong(f"method {method!r} means nothing for {scheme}: URLs; they have {' and '.join(commands)}")
    return method


def _fill_body(job: Job, scheme: str, row: Mapping[str, Any]) -> None:
    """Put the body into a job, and the content type that it has unless the headers name another."""
    if (body := row.get("body")) is not None:
        job.body = body_of(body)
    elif "json" in row:  # null is a JSON value like any other
        job.body = encode_json("json", row["json"])
        if scheme in {"http", "https"}:
            _add_type(job, "application/json")
    elif (form := row.get("form")) is not None:
        job.body = form_of(form)
        _add_type(job, FORM)
    elif (multipart := row.get("multipart")) is not None:
        job.parts = parts_of(multipart)
        if "content-type" in _names(job.headers):
            raise _wrong("has multipart and a Content-Type header, which multipart sets by itself")


def _add_type(job: Job, content_type: str) -> None:
    if "content-type" not in _names(job.headers):
        job.headers = [*job.headers, ("content-type", content_type)]


def _fill_terms(job: Job, row: Mapping[str, Any]) -> None:
    """Put into a job what is no part of its request."""
    if (priority := row.get("priority")) is not None:
        job.priority = check_priority(priority)
    if (timeout := row.get("timeout")) is not None:
        job.timeout = check_timeout(timeout)
    if (verify := row.get("verify")) is not None:
        job.verify = check_switch("verify", verify)
    if (checksum := row.get("checksum")) is not None:
        job.checksum = check_checksum(checksum)
    if (key := row.get("key")) is not None:
        job.key = check_text("key", key)


def _names(headers: list[Header]) -> set[str]:
    return {name.lower() for name, _ in headers}


def _wrong(message: str) -> RowError:
    return RowError(ErrorKind.INVALID_ROW, message)
