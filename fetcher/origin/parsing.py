"""Requests out of bytes: numbers, header blocks, bodies. What cannot be understood is a BadRequestError."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

MAX_BODY = 1 << 30
KEPT_BODY = 16 * 1024 * 1024
MAX_SECONDS = 86_400.0
REQUEST_LINE_WORDS = 3

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}")
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")


class BadRequestError(Exception):
    """The request cannot be understood."""


def number(text: str, most: int = MAX_BODY) -> int:
    """Return the whole number that `text` spells."""
    if not _DIGITS.fullmatch(text) or int(text) > most:
        raise BadRequestError(f"not a number up to {most}")
    return int(text)


def decimal(text: str) -> float:
    """Return the seconds, or requests per second, that `text` spells."""
    if not _DECIMAL.fullmatch(text) or float(text) > MAX_SECONDS:
        raise BadRequestError(f"not a decimal number up to {MAX_SECONDS:.0f}")
    return float(text)


def check_request_line(words: list[bytes]) -> None:
    """Raise BadRequestError if these are not the method, target and version of an HTTP/1 request."""
    if len(words) != REQUEST_LINE_WORDS or words[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise BadRequestError("malformed request line")
    if not _TOKEN.fullmatch(words[0]) or not words[1] or _CONTROL.search(words[1]):
        raise BadRequestError("malformed request line")


class Head:
    """What a header block says; shared by all requests that carry the same block."""

    __slots__ = ("chunked", "connection", "fields", "host", "length", "plain")

    def __init__(self, block: bytes) -> None:
        self.fields = [self._field(line) for line in block.split(b"\r\n") if line]
        if block.startswith(b"\r\n\r\n"):
            raise BadRequestError("empty header line")
        host = self.get("host")
        self.host = (host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]).lower()
        self.connection = {token.strip() for token in self.get("connection").lower().split(",")}
        lengths = {value for name, value in self.fields if name.lower() == "content-length"}
        coding = self.get("transfer-encoding").lower()
        if coding not in {"", "chunked"} or len(lengths) + bool(coding) > 1:
            raise BadRequestError("ambiguous body length")
        self.chunked = coding == "chunked"
        self.length = number(lengths.pop(), sys.maxsize) if lengths else 0
        self.plain = bool(host) and not (self.chunked or self.length or "close" in self.connection)

    def get(self, name: str) -> str:
        """Return the values of a field joined by commas, or nothing."""
        return ", ".join(value for key, value in self.fields if key.lower() == name)

    @staticmethod
    def _field(line: bytes) -> tuple[str, str]:
        name, _, value = line.partition(b":")
        if not _TOKEN.fullmatch(name) or b"\n" in value or b"\r" in value or b"\0" in value or b":" not in line:
            raise BadRequestError("malformed header line")
        return name.decode("ascii"), value.strip(b" \t").decode("utf-8", "surrogateescape")


class BodyReader:
    """Drain one request body, counting it and keeping the first KEPT_BODY bytes."""

    __slots__ = ("_left", "_stage", "done", "kept", "size")

    def __init__(self, head: Head) -> None:
        self._left = head.length
        self._stage = "size" if head.chunked else "fixed"
        self.done = not (head.chunked or head.length)
        self.kept = bytearray()
        self.size = 0

    def feed(self, data: bytes, pos: int) -> int:
        """Consume from `data` at `pos`; return where the unread rest begins."""
        while not self.done:
            if self._left:
                piece = data[pos : pos + self._left]
                self._take(piece)
                pos += len(piece)
                if self._left:
                    break
                continue
            end = data.find(b"\r\n", pos)
            if end < 0:
                break
            self._line(data[pos:end])
            pos = end + 2
        return pos

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        self.size += len(piece)
        self.kept += piece[: max(0, KEPT_BODY - len(self.kept))]
        self.done = self._stage == "fixed" and not self._left

    def _line(self, line: bytes) -> None:
        if self._stage == "trailer":
            self.done = not line
        elif self._stage == "end":
            if line:
                raise BadRequestError("malformed chunk")
            self._stage = "size"
        else:
            size = line.partition(b";")[0].strip()
            if not _HEX.fullmatch(size):
                raise BadRequestError("malformed chunk size")
            self._left = int(size, 16)
            self._stage = "end" if self._left else "trailer"


@dataclass(slots=True)
class Request:
    """One request, and what became of it."""

    method: bytes
    target: bytes
    version: bytes
    head: Head
    body: BodyReader
    time: float = 0.0
    concurrent: int = 0
    status: int = 0

    @property
    def path(self) -> str:
        """The target without query, and without the authority that a proxy client puts before it."""
        path = self.target.partition(b"?")[0].decode("utf-8", "replace")
        return path if path.startswith("/") or "://" not in path else "/" + path.partition("://")[2].partition("/")[2]

    @property
    def query(self) -> str:
        """The raw query."""
        return self.target.partition(b"?")[2].decode("utf-8", "replace")

    @property
    def keep_alive(self) -> bool:
        """Whether the client lets the connection live."""
        if self.version == b"HTTP/1.0":
            return "keep-alive" in self.head.connection
        return "close" not in self.head.connection
