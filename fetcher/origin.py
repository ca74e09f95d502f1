"""A test origin: a raw HTTP/1.1 server made to be faster than any client that is measured against it.

What a client repeats is looked up, not computed: header blocks and whole responses sit in small bounded tables, so a
keep-alive `GET /bytes/1024` costs two finds, two slices and two dictionary look-ups, and one write per batch read.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple, TypeVar, cast
from urllib.parse import parse_qs

MAX_HEAD = 64 * 1024  # also the unread pipeline behind a slow answer
MAX_BODY = 1 << 30
KEPT_BODY = 16 * 1024 * 1024
MAX_SECONDS = 86_400.0
BATCH = 64  # responses joined into one write: at most 64 * SMALL bytes
TABLE_SIZE = 1024
STATE_SIZE = 100_000
FLUSH_SECONDS = 0.1
DRAIN_SECONDS = 1.0
# Each 16 bytes name their offset, so a client that loses or reorders a piece is seen.
BLOCK = b"".join(b"%015d\n" % offset for offset in range(0, 65_536, 16))
SMALL = len(BLOCK)

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,15}", re.ASCII)
_CONTROL = re.compile(rb"[\x00-\x20\x7f]")
_BREAKS_HEADER = re.compile(r"[\x00\r\n]")
_K = TypeVar("_K")
_V = TypeVar("_V")
_quote = json.JSONEncoder().encode


class BadRequestError(Exception):
    """The request cannot be understood."""


@dataclass(frozen=True, slots=True)
class OriginConfig:
    """Where the origin listens, and what it keeps."""

    host: str = "127.0.0.1"
    port: int = 0  # 0 takes a free one
    access_log: str | Path | None = None  # "-" is stdout
    certfile: str | Path | None = None
    keyfile: str | Path | None = None
    limited_rate: float = 10.0  # per second, where /limited names no rate
    delay_jitter: float = 0.0  # /delay waits SECONDS * (1 +- delay_jitter)
    seed: int = 0


def remember(table: dict[_K, _V], key: _K, value: _V, size: int = TABLE_SIZE) -> None:
    """Put `value` into `table`; the oldest entry leaves a full one."""
    if key not in table and len(table) >= size:
        del table[next(iter(table))]
    table[key] = value


def content(size: int) -> bytes:
    """Return the deterministic body of `size` bytes."""
    return (BLOCK * (size // SMALL + 1))[:size]


def pieces(size: int) -> Iterator[bytes]:
    """Yield `content(size)` in blocks."""
    for _ in range(size // SMALL):
        yield BLOCK
    if size % SMALL:
        yield BLOCK[: size % SMALL]


def compressed(size: int, wbits: int) -> Iterator[bytes]:
    """Yield `content(size)` compressed; a gigabyte of it is held nowhere."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, wbits)
    yield from (out for piece in pieces(size) if (out := squeeze.compress(piece)))
    yield squeeze.flush()


async def stream(source: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield from `source` and let other connections run between pieces."""
    for piece in source:
        yield piece
        await asyncio.sleep(0)


class AccessLog:
    """JSON lines of answered requests, one per request when its answer ends; `time` is when it came."""

    __slots__ = ("_busy", "_file", "_rows")

    def __init__(self, path: str | Path) -> None:
        self._file = sys.stdout.buffer if path == "-" else Path(path).open("ab")
        self._rows: list[tuple[float, str, bytes, bytes, int, int]] = []
        self._busy: dict[str, int] = {}

    def arrive(self, host: str) -> int:
        """Count a request in; return how many of its host are in progress with it."""
        self._busy[host] = count = self._busy.get(host, 0) + 1
        return count

    def leave(self, request: Request) -> None:
        """Count a request out and keep its line; status 0 means that it got no answer."""
        host = request.head.host
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        self._rows.append((request.time, host, request.target, request.method, request.status, request.concurrent))

    def at_once(self, host: str, target: bytes, method: bytes, status: int) -> None:
        """Keep the line of a request that is answered as it comes."""
        self._rows.append((time(), host, target, method, status, self._busy.get(host, 0) + 1))

    def flush(self) -> None:
        """Write the lines kept so far."""
        rows, self._rows = self._rows, []
        for when, host, target, method, status, concurrent in rows:
            path, verb = _quote(target.decode("utf-8", "replace")), _quote(method.decode("latin-1"))
            line = f'"path": {path}, "method": {verb}, "status": {status}, "concurrent": {concurrent}'
            self._file.write(f'{{"time": {when:.6f}, "host": {_quote(host)}, {line}}}\n'.encode())
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


class Head:
    """What a header block says; shared by all requests that carry the same block."""

    __slots__ = ("chunked", "connection", "fields", "host", "length", "plain")

    def __init__(self, block: bytes) -> None:
        self.fields = [self._field(line) for line in block.split(b"\r\n") if line]
        if block.startswith(b"\r\n\r\n"):
            raise BadRequestError("empty header line")
        host = self.get("host")
        self.host = (host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]).lower()
        self.connection = self.get("connection").lower()
        self.chunked = self.get("transfer-encoding").lower() == "chunked"
        lengths = {value for name, value in self.fields if name.lower() == "content-length"}
        if len(lengths) + ("transfer-encoding" in map(str.lower, dict(self.fields))) > 1:
            raise BadRequestError("ambiguous body length")
        self.length = number(lengths.pop(), sys.maxsize) if lengths else 0
        if self.get("transfer-encoding") and not self.chunked:
            raise BadRequestError("unknown transfer encoding")
        self.plain = bool(host) and not (self.chunked or self.length) and self.connection in {"", "keep-alive"}

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
        return self.head.connection == "keep-alive" if self.version == b"HTTP/1.0" else self.head.connection != "close"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a stream without length is chunked, or ends with the connection where `close` is set."""

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b"ok\n"
    headers: tuple[str, ...] = ()
    kind: str = "text/plain; charset=utf-8"
    length: int | None = None
    close: bool = False

    def framed(self, request: Request) -> tuple[bytes, bool, bool]:
        """Return the head's bytes, whether the body is chunked, and whether the connection ends with it."""
        length = len(self.body) if self.length is None and isinstance(self.body, bytes) else self.length
        bodiless = self.status in {204, 304}
        chunked = length is None and not self.close and request.version != b"HTTP/1.0"
        close = self.close or not request.keep_alive or (length is None and not chunked)
        phrase = HTTPStatus(self.status).phrase if self.status in _STATUSES else "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}", "Server: fetcher-origin", f"Content-Type: {self.kind}"]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        elif length is not None and not bodiless:
            lines.append(f"Content-Length: {length}")
        if close or request.version == b"HTTP/1.0":
            lines.append(f"Connection: {'close' if close else 'keep-alive'}")
        wire = "\r\n".join((*lines, *self.headers, "\r\n")).encode("utf-8", "surrogateescape")
        return wire, chunked, close


# A function, not a coroutine: a connection lost before its task runs must leave nothing that was never awaited.
Answer = Reply | Callable[[], Awaitable[Reply]]
Handler = Callable[["Routes", Request, str], Answer]
DROPPED = Reply(0)
_STATUSES = frozenset(HTTPStatus)
