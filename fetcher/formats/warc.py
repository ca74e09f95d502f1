"""WARC 1.1 (ISO 28500:2017): each record by itself a gzip member or zstd frame, if compressed at all.

A file begins with a ``warcinfo`` record. A job that was answered becomes a ``response`` (or a ``revisit``), the
``request`` and ``metadata``; one that was not becomes ``metadata`` alone. The metadata are DESIGN's record as JSON,
without headers and body: outcome, error, redirects that were followed, timings, the job's own ``meta``.

What a record says of HTTP is a reconstruction, and where it can not be what was on the wire it says so:

- Bodies are stored decoded. As in the files of Common Crawl, the ``Content-Encoding``, ``Transfer-Encoding`` and
  ``Content-Length`` that the server sent are in the head as ``X-Crawler-Content-Encoding`` and so on, and
  ``Content-Length`` is that of the body as stored. A coding that is still on the body stays ``Content-Encoding``.
- Fields are as they were sent, in their order, but for obs-fold. The reason phrase is the usual one of the status.
- A request has its method, target and ``Host``: what else was sent may be a secret, and is not kept.
- A body that is not all there is marked ``WARC-Truncated``: ``length`` if it was cut at ``body.max_size``,
  ``disconnect`` or ``time`` if it did not arrive whole, ``unspecified`` if records have no bodies (``body.store``).
- What was not sent again because it had not changed (304) is a ``revisit`` of the profile server-not-modified.

Payload digests are of the body as stored. Record IDs are made of what they identify, so that the same results give
the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import msgspec

from fetcher.errors import ErrorKind
from fetcher.fields import in_utc
from fetcher.formats.compression import Compression, compressor
from fetcher.formats.records import json_lines, writable
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Result

SUFFIXES = (".warc",)
Digest = Literal["sha1", "sha256"]
_REVISIT = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
_SPECIFICATION = "https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
_RENAMED = frozenset({"content-encoding", "transfer-encoding", "content-length"})
_BREAKING = re.compile(r"[\r\n\0]")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
_IN_URI = "!#$%&'()*+,/:;=?@[]"
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_HTTP = "application/http;msgtype="
_TRUNCATED = {
    ErrorKind.BODY_INCOMPLETE: "disconnect",
    ErrorKind.SERVER_DISCONNECTED: "disconnect",
    ErrorKind.CONNECTION_RESET: "disconnect",
    ErrorKind.READ_TIMEOUT: "time",
    ErrorKind.TOTAL_TIMEOUT: "time",
    ErrorKind.TOO_SLOW: "time",
    ErrorKind.DEADLINE: "time",
    ErrorKind.BODY_TOO_LARGE: "length",
}
# With these the answer itself is what failed, and it has arrived whole.
_ANSWERED = frozenset({None, ErrorKind.HTTP_3XX, ErrorKind.HTTP_4XX, ErrorKind.HTTP_5XX})


class WarcConfig(Settings):
    """Web archive records. Bodies are in them with ``body.store: inline`` alone."""

    type: Literal["warc"] = "warc"
    digest: Digest = "sha1"
    """Of blocks and payloads. Most tools that look for duplicates expect ``sha1``."""
    compression: Compression = "none"
    """Of each record by itself; by default, what the suffix of the output's path says: ``.gz`` or ``.zst``."""

    def build(self) -> WarcFormat:
        """Return the format; the ``warcinfo`` of its files has the time of this call."""
        return WarcFormat(digest=self.digest, compression=self.compression, created=datetime.now(UTC))


class WarcFormat:
    """Encodes a result as the records of one capture."""

    def __init__(self, *, digest: Digest, compression: Compression, created: datetime) -> None:
        self._algorithm = digest
        self._hash = hashlib.sha1 if digest == "sha1" else hashlib.sha256
        self._compress = compressor(compression)
        self._created = created

    def begin(self) -> bytes:
        """Return the ``warcinfo`` record."""
        block = f"software: fetcher\r\nformat: WARC File Format 1.1\r\nconformsTo: {_SPECIFICATION}\r\n".encode()
        identity = _identity("warcinfo", self._created.isoformat())
        return self._record("warcinfo", identity, _date(self._created), "", "application/warc-fields", block)

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return the records of each result."""
        return b"".join([record for result in results for record in self._capture(result)])

    def _capture(self, result: Result) -> list[bytes]:
        date = _date(result.started_at or result.finished_at or self._created)
        base = _identity(result.batch, result.job_id, str(result.attempts), date)
        uri = _uri(result)
        target = f"WARC-Target-URI: {uri}\r\n"
        if result.status is None or (result.headers is None and result.body is None):
            # As it is: a sink may be given less of a record than there is.
            about = json_lines([result])
            return [self._record("metadata", _identity(base, "metadata"), date, target, "application/json", about)]
        about = json_lines([msgspec.structs.replace(result, headers=None, body=None)])
        answer = _identity(base, "response")
        with_it = f"{target}WARC-Concurrent-To: <{answer}>\r\n"
        request = _identity(base, "request"), date, with_it, f"{_HTTP}request", _request(result, uri)
        return [
            self._response(result, answer, date, uri),
            self._record("request", *request),
            self._record("metadata", _identity(base, "metadata"), date, with_it, "application/json", about),
        ]

    def _response(self, result: Result, identity: str, date: str, uri: str) -> bytes:
        """Return the ``response`` record, or the ``revisit`` that stands for it."""
        fields = f"WARC-Target-URI: {uri}\r\n"
        if result.remote_ip:
            fields += f"WARC-IP-Address: {_one_line(result.remote_ip)}\r\n"
        if result.revalidated:
            fields += f"WARC-Profile: {_REVISIT}\r\nWARC-Refers-To-Target-URI: {uri}\r\n"
            # Of the body that was not sent again, if it is known.
            fields += self._payload(result.body) if result.body is not None else ""
            return self._record("revisit", identity, date, fields, f"{_HTTP}response", _head(result, b""))
        body = result.body or b""
        reason = _truncated(result)
        fields += f"WARC-Truncated: {reason}\r\n" if reason else ""
        # The digest of a payload that is not there would be that of another one, which is empty. And what has another
        # URI is not taken for HTTP by readers, whatever it says: to them the payload is the whole block.
        if (body or not reason) and uri.startswith(("http:", "https:")):
            fields += self._payload(body)
        return self._record("response", identity, date, fields, f"{_HTTP}response", _head(result, body) + body)

    def _payload(self, body: bytes) -> str:
        return f"WARC-Payload-Digest: {self._digest(body)}\r\n"

    def _record(self, kind: str, identity: str, date: str, fields: str, content_type: str, block: bytes) -> bytes:
        head = (
            f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <{identity}>\r\nWARC-Date: {date}\r\n{fields}"
            f"WARC-Block-Digest: {self._digest(block)}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
        )
        record = b"".join([head.encode("ascii", "replace"), block, b"\r\n\r\n"])
        return record if self._compress is None else self._compress(record)

    def _digest(self, data: bytes) -> str:
        return f"{self._algorithm}:{_base32(self._hash(data, usedforsecurity=False).digest())}"


def _base32(digest: bytes) -> str:
    """Return a digest in Base32 (RFC 4648), which takes the library more time than the digest itself."""
    if len(digest) % 5:
        return base64.b32encode(digest).decode()
    number = int.from_bytes(digest)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(len(digest) * 8 - 10, -1, -10)])


def _uri(result: Result) -> str:
    """Return what was answered, or asked for; what is no URI, as a row of input may be, becomes one that says so."""
    about = result.final_url or result.url
    if _URI.fullmatch(about):
        return about
    quoted = quote(about, safe=_IN_URI, errors="surrogatepass")
    return quoted if _URI.fullmatch(quoted) else f"unknown:{quoted or 'nothing'}"


def _request(result: Result, uri: str) -> bytes:
    """Return the head of the last hop's request, as far as it is known."""
    _, _, rest = uri.partition("://")
    host, slash, target = rest.partition("#")[0].partition("/")
    if not slash:
        host, _, query = host.partition("?")
        target = f"?{query}" if query else ""
    target, host = f"/{target}", host.rpartition("@")[2]
    return _plain(f"{_one_line(result.method or 'GET')} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")


def _head(result: Result, body: bytes) -> bytes:
    """Return the head of the response, made to fit the body as it is stored."""
    status = result.status or 0
    lines = [f"HTTP/{_one_line(result.http_version or '1.1')} {status} {_PHRASES.get(status, '')}"]
    lines += [_line(name, value) for name, value in result.headers or []]
    if result.content_encoding and body:
        lines.append(f"Content-Encoding: {_one_line(result.content_encoding)}")
    # An answer without a body by nature (204, 304, to HEAD) had its length, if any, for another one.
    lines.append(f"Content-Length: {len(body)}")
    return _plain("\r\n".join(lines) + "\r\n\r\n")


def _one_line(text: str) -> str:
    # No transport brings a line end, but a stage may; it would begin another field, another record, or the body.
    return _BREAKING.sub(" ", text)


def _line(name: str, value: str) -> str:
    line = _one_line(f"{name}: {value}")
    return f"X-Crawler-{line}" if name.lower() in _RENAMED else line


def _plain(text: str) -> bytes:
    """Return a head as it travelled: its characters are bytes, unless a transport took them for UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return writable(text).encode()


def _truncated(result: Result) -> str | None:
    """Return why the body is not all there, None if it is."""
    if result.truncated:
        return "length"
    if result.error_kind not in _ANSWERED:
        return _TRUNCATED.get(result.error_kind, "unspecified") if result.error_kind else None
    return "unspecified" if result.body is None and result.body_size else None


def _identity(*parts: str) -> str:
    """Return a URN of what identifies a record: a UUID made of a hash (RFC 9562, section 5.8)."""
    text = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"urn:uuid:{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _date(when: datetime) -> str:
    return in_utc(when).isoformat(timespec="microseconds").replace("+00:00", "Z")
