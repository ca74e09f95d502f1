"""A test origin: a raw HTTP/1.1 server made to be faster than any client that is measured against it.

What a client repeats is looked up, not computed: header blocks and whole responses sit in small bounded
tables, so a keep-alive `GET /bytes/1024` costs two finds, two slices and two look-ups, and a batch one write.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import socket
import ssl
import struct
import sys
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
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

_KEPT_BLOCK = 4096
_WORDS = 3  # of a request line
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEX = re.compile(rb"[0-9a-fA-F]{1,15}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}")
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


async def stream(source: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield from `source` and let other connections run between pieces."""
    for piece in source:
        yield piece
        await asyncio.sleep(0)


class AccessLog:
    """JSON lines of answered requests, one per request when its answer ends; `time` is when it came."""

    __slots__ = ("_busy", "_file", "_rows")

    def __init__(self, path: str | Path) -> None:
        self._file = sys.stdout.buffer if path == "-" else Path(path).open("ab")  # noqa: SIM115 - close() closes it
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
        self._rows.append(
            (request.time, host, request.target, request.method, request.status, request.concurrent)
        )

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
        try:
            self.flush()
        finally:
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
        if (
            not _TOKEN.fullmatch(name)
            or b"\n" in value
            or b"\r" in value
            or b"\0" in value
            or b":" not in line
        ):
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
        return (
            path
            if path.startswith("/") or "://" not in path
            else "/" + path.partition("://")[2].partition("/")[2]
        )

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


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a stream without length is chunked, or ends with the connection where `close` is set."""

    status: int = 200
    body: bytes | AsyncGenerator[bytes, None] = b"ok\n"
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


# A function, not a coroutine: a connection lost before its task runs leaves nothing that was never awaited.
Answer = Reply | Callable[[], Awaitable[Reply]]
Handler = Callable[["Routes", Request, str], Answer]
DROPPED = Reply(0)
_STATUSES = frozenset(HTTPStatus)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Routes:
    """The answers; their state is bounded, and kept per host and full target."""

    def __init__(self, config: OriginConfig, closing: asyncio.Event) -> None:
        self._config = config
        self._closing = closing
        self._random = random.Random(config.seed)
        self._attempts: dict[tuple[str, bytes, str], int] = {}
        self._buckets: dict[tuple[str, float], tuple[float, float]] = {}

    def answer(self, request: Request, path: str) -> Answer:
        """Answer as `path`, which has no leading slash, would."""
        name, _, rest = path.partition("/")
        route = ROUTES.get(name)
        if route is None:
            return Reply(404, b"no such route\n")
        try:
            return route.handler(self, request, rest)
        except BadRequestError as error:
            return Reply(400, f"{route.usage}: {error}\n".encode())

    def _then(self, request: Request, rest: str) -> Answer:
        return self.answer(request, rest) if rest else Reply()

    def _early(self, request: Request, rest: str, times: int) -> bool:
        """Whether this is among the first `times` attempts; `rest` tells nested routes apart."""
        key = (request.head.host, request.target, rest)
        attempt = self._attempts.get(key, 0)
        remember(self._attempts, key, attempt + 1, STATE_SIZE)
        return attempt < times

    def sized(self, _: Request, rest: str) -> Answer:
        """Send N bytes, each 16 of them naming their offset."""
        size = number(rest)
        body = content(size) if size <= SMALL else stream(pieces(size))
        return Reply(body=body, length=size, kind="application/octet-stream")

    def chunked(self, _: Request, rest: str) -> Answer:
        """Send N bytes in chunked coding."""
        return Reply(body=stream(pieces(number(rest))), kind="application/octet-stream")

    def close(self, _: Request, rest: str) -> Answer:
        """Send N bytes without Content-Length, ended by closing."""
        return Reply(body=stream(pieces(number(rest))), kind="application/octet-stream", close=True)

    def truncated(self, _: Request, rest: str) -> Answer:
        """Declare N bytes, send half of them and close."""
        size = number(rest)
        return Reply(body=stream(pieces(size // 2)), length=size, kind="application/octet-stream", close=True)

    def gzip(self, _: Request, rest: str) -> Answer:
        """Send a gzip body that decodes to N bytes."""
        return _encoded(number(rest), "gzip", 31)

    def deflate(self, _: Request, rest: str) -> Answer:
        """Send a zlib body that decodes to N bytes."""
        return _encoded(number(rest), "deflate", 15)

    def drip(self, _request: Request, rest: str) -> Answer:
        """Send N bytes spread over SECONDS."""
        text, _, seconds = rest.partition("/")
        size = number(text)
        return Reply(body=self._drops(size, decimal(seconds)), length=size)

    @staticmethod
    async def _drops(size: int, seconds: float) -> AsyncGenerator[bytes, None]:
        step = max(1, -(-size // 100))
        for sent in range(0, size, step):
            await asyncio.sleep(seconds * step / size)
            yield content(min(step, size - sent))

    def delay(self, request: Request, rest: str) -> Answer:
        """Wait, then answer as /REST."""
        seconds, _, rest = rest.partition("/")
        jitter = 1 + self._config.delay_jitter * self._random.uniform(-1, 1)
        return partial(self._later, request, rest, decimal(seconds) * jitter)

    async def _later(self, request: Request, rest: str, seconds: float) -> Reply:
        await asyncio.sleep(seconds)
        answer = self._then(request, rest)
        return answer if isinstance(answer, Reply) else await answer()

    def hang(self, _request: Request, _rest: str) -> Answer:
        """Send nothing; drop the connection when the origin closes."""
        return self._hung

    async def _hung(self) -> Reply:
        await self._closing.wait()
        return DROPPED

    def status(self, _: Request, rest: str) -> Answer:
        """Answer with that status, 200 to 999."""
        code = number(rest, 999)
        if code < HTTPStatus.OK:
            raise BadRequestError("not a final status")
        return Reply(code, b"" if code in {204, 304} else b"status %d\n" % code)

    def redirect(self, _: Request, rest: str) -> Answer:
        """Redirect to /redirect/N-1 and so on; 200 at 0."""
        left = number(rest)
        return Reply(302, b"", (f"Location: /redirect/{left - 1}",)) if left else Reply()

    def redirect_to(self, request: Request, _: str) -> Answer:
        """Redirect to URL as it is given, with 302 unless said."""
        args = parse_qs(request.query)
        url, status = args.get("url", [""])[0], number(args.get("status", ["302"])[0], 999)
        if not url or _BREAKS_HEADER.search(url) or status < HTTPStatus.OK:
            raise BadRequestError("no usable url or status")
        return Reply(status, b"", (f"Location: {url}",))

    def flaky(self, request: Request, rest: str) -> Answer:
        """Answer 503 the first K times for a host and target, then as /REST."""
        times, _, rest = rest.partition("/")
        return (
            Reply(503, b"flaky\n") if self._early(request, rest, number(times)) else self._then(request, rest)
        )

    def reset(self, request: Request, rest: str) -> Answer:
        """Reset the connection the first K times for a host and target, then answer as /REST."""
        times, _, rest = rest.partition("/")
        return DROPPED if self._early(request, rest, number(times)) else self._then(request, rest)

    def retry_after(self, request: Request, rest: str) -> Answer:
        """Answer 503 with Retry-After the first K times for a host and target, then as /REST."""
        seconds, times, rest = (*rest.split("/", 2), "", "")[:3]
        headers = (f"Retry-After: {number(seconds)}",)
        early = self._early(request, rest, number(times))
        return Reply(503, b"retry later\n", headers) if early else self._then(request, rest)

    def limited(self, request: Request, rest: str) -> Answer:
        """Answer 429 past RATE a second per host (a burst of RATE is free), else as /REST."""
        text, _, rest = rest.partition("/")
        rate = decimal(text) if text else self._config.limited_rate
        key, now, burst = (request.head.host, rate), monotonic(), max(1.0, rate)
        tokens, then = self._buckets.get(key, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate)
        allowed = tokens >= 1
        remember(self._buckets, key, (tokens - allowed, now), STATE_SIZE)
        return self._then(request, rest) if allowed else Reply(429, b"slow down\n", ("Retry-After: 1",))

    def json(self, request: Request, _: str) -> Answer:
        """Show the request as JSON: method path query args headers body body_size."""
        names = dict.fromkeys(name.lower() for name, _ in request.head.fields)
        document = {
            "method": request.method.decode("latin-1"),
            "path": request.path,
            "query": request.query,
            "args": parse_qs(request.query, keep_blank_values=True),
            "headers": {name: request.head.get(name) for name in names},
            "body": request.body.kept.decode("utf-8", "replace"),
            "body_size": request.body.size,
        }
        return _json(document)

    def headers(self, request: Request, _: str) -> Answer:
        """Show the request's header fields in order, as JSON."""
        return _json({"headers": request.head.fields})

    def echo(self, request: Request, _: str) -> Answer:
        """Send back the request's body and content type."""
        if request.body.size > KEPT_BODY:
            return Reply(413, b"too large to echo\n")
        return Reply(
            body=bytes(request.body.kept), kind=request.head.get("content-type") or "application/octet-stream"
        )

    def cookies(self, request: Request, rest: str) -> Answer:
        """Set each cookie of the query; /cookies alone shows the Cookie header."""
        pairs = request.query.split("&") if rest == "set" and request.query else ()
        reply = _json({"cookie": request.head.get("cookie")})
        return Reply(200, reply.body, tuple(f"Set-Cookie: {pair}; Path=/" for pair in pairs), reply.kind)

    def health(self, _request: Request, _rest: str) -> Answer:
        """Say ok."""
        return Reply(body=b"ok")


def _encoded(size: int, coding: str, wbits: int) -> Reply:
    source, headers = compressed(size, wbits), (f"Content-Encoding: {coding}",)
    return Reply(body=b"".join(source) if size <= SMALL else stream(source), headers=headers)


def _json(document: Mapping[str, object]) -> Reply:
    return Reply(body=json.dumps(document).encode(), kind="application/json")


class Route(NamedTuple):
    """A row of the table; the answers of a `fixed` route depend on the path alone and may be remembered."""

    usage: str
    handler: Handler  # its docstring is the help
    fixed: bool = False


_TABLE = (
    Route("/bytes/N", Routes.sized, fixed=True),
    Route("/chunked/N", Routes.chunked),
    Route("/close/N", Routes.close),
    Route("/truncated/N", Routes.truncated),
    Route("/gzip/N", Routes.gzip, fixed=True),
    Route("/deflate/N", Routes.deflate, fixed=True),
    Route("/drip/N/SECONDS", Routes.drip),
    Route("/delay/SECONDS/REST...", Routes.delay),
    Route("/hang", Routes.hang),
    Route("/status/CODE", Routes.status, fixed=True),
    Route("/redirect/N", Routes.redirect, fixed=True),
    Route("/redirect-to?url=URL&status=CODE", Routes.redirect_to),
    Route("/flaky/K/REST...", Routes.flaky),
    Route("/reset/K/REST...", Routes.reset),
    Route("/retry-after/SECONDS/K/REST...", Routes.retry_after),
    Route("/limited/RATE/REST...", Routes.limited),
    Route("/json/...", Routes.json),
    Route("/headers", Routes.headers),
    Route("/echo", Routes.echo),
    Route("/cookies/set?k=v", Routes.cookies),
    Route("/health", Routes.health, fixed=True),
)
ROUTES = {route.usage[1:].partition("/")[0].partition("?")[0]: route for route in _TABLE}


class Connection(asyncio.Protocol):
    """One client connection: requests are parsed, answered and written in their order.

    At most one of two things goes on: `_advance` works through the buffer, or `_task` answers one request
    slowly and the buffer waits. A peer that does not read what it asked for is not read either.
    """

    __slots__ = ("_buffer", "_last", "_origin", "_pos", "_request", "_task", "_transport", "_writable")

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._buffer = b""
        self._pos = 0
        self._request: Request | None = None  # begun and not yet answered
        self._task: asyncio.Task[None] | None = None
        self._last = False
        self._writable: asyncio.Future[None] | None = None  # set while the peer does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the origin's connections."""
        self._transport = cast("asyncio.Transport", transport)
        self._origin.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End what is in progress."""
        self._last = True
        if self._task is not None:
            self._task.cancel()
        self._finish()
        self._origin.left(self)

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._buffer = self._buffer + data if self._buffer else data
        if self._task is None and self._writable is None:
            self._advance()
        elif len(self._buffer) > MAX_HEAD:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Stop reading, so that a pipeline of large answers is not held in memory."""
        self._writable = asyncio.get_running_loop().create_future()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with the stream or the pipeline."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self._task is None:
            self._go_on()

    def drain(self) -> None:
        """Close after the answer in progress."""
        self._last = True
        if self._task is None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection now."""
        self._transport.abort()

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._advance()

    def _advance(self) -> None:
        """Answer the complete requests of the buffer, BATCH of them in a write."""
        out: list[bytes] = []
        try:
            while self._task is None and self._writable is None and not self._last:
                if not (self._take_head(out) if self._request is None else self._take_body(out)):
                    break
                if len(out) >= BATCH:
                    self._write(out)
        except BadRequestError as error:
            self._refuse(error, out)
        self._buffer, self._pos = self._buffer[self._pos :], 0
        self._write(out)
        if self._last and self._task is None:
            self._transport.close()

    def _take_head(self, out: list[bytes]) -> bool:
        """Take one head and, where its response is known, answer it: the hot path."""
        data, pos, origin = self._buffer, self._pos, self._origin
        while data.startswith(b"\r\n", pos):
            pos += 2
        end = data.find(b"\r\n\r\n", pos)
        if end < 0:
            if len(data) - pos > MAX_HEAD:
                raise BadRequestError("head too long")
            return False
        line_end = data.find(b"\r\n", pos)
        words, block = data[pos:line_end].split(b" "), data[line_end:end]
        self._pos = end + 4
        head = origin.heads.get(block) or origin.head(block)
        if head.plain and words[0] == b"GET" and words[-1] == b"HTTP/1.1":
            known = origin.ready.get(words[1].partition(b"?")[0])
            if known is not None and len(words) == _WORDS:
                out.append(known[0])
                if origin.log is not None:
                    origin.log.at_once(head.host, words[1], words[0], known[1])
                return True
        self._begin(words, head, out)
        return True

    def _begin(self, words: list[bytes], head: Head, out: list[bytes]) -> None:
        if len(words) != _WORDS or words[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:
            raise BadRequestError("malformed request line")
        if not _TOKEN.fullmatch(words[0]) or not words[1] or _CONTROL.search(words[1]):
            raise BadRequestError("malformed request line")
        if not head.host and words[2] == b"HTTP/1.1":
            raise BadRequestError("no Host")
        self._request = request = Request(words[0], words[1], words[2], head, BodyReader(head))
        if self._origin.log is not None:
            request.time, request.concurrent = time(), self._origin.log.arrive(head.host)
        if not request.body.done and head.get("expect").lower() == "100-continue":
            out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self, out: list[bytes]) -> bool:
        """Take what there is of the request's body; answer when it is whole."""
        request = cast("Request", self._request)
        self._pos = request.body.feed(self._buffer, self._pos)
        if request.body.done:
            self._respond(request, out)
        elif len(self._buffer) - self._pos > MAX_HEAD:
            raise BadRequestError("chunk line too long")
        return request.body.done

    def _respond(self, request: Request, out: list[bytes]) -> None:
        answer = self._origin.routes.answer(request, request.path.removeprefix("/"))
        if not isinstance(answer, Reply) or not isinstance(answer.body, bytes):
            self._task = asyncio.get_running_loop().create_task(
                self._answer(request, answer), name="origin answer"
            )
            self._task.add_done_callback(self._answered)
        elif answer is DROPPED:
            out.clear()
            self._reset()
        else:
            wire = self._whole(request, answer, answer.body)
            out.append(wire)
            self._finish()
            self._origin.keep(request, answer, wire)

    def _whole(self, request: Request, reply: Reply, body: bytes) -> bytes:
        head, _, close = reply.framed(request)
        self._last |= close
        request.status = reply.status
        return head if request.method == b"HEAD" else head + body

    async def _answer(self, request: Request, answer: Answer) -> None:
        """Answer what takes time, or more memory than one write should."""
        reply = answer if isinstance(answer, Reply) else await answer()
        if reply is DROPPED:
            self._reset()
            return
        if request.method == b"HEAD" or isinstance(reply.body, bytes):
            self._transport.write(self._whole(request, reply, cast("bytes", reply.body)))
            return
        head, chunked, close = reply.framed(request)
        self._last |= close
        request.status = reply.status
        self._transport.write(head)
        async with aclosing(reply.body) as body:
            async for piece in body:
                if self._writable is not None:
                    await self._writable
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._finish()
        if not task.cancelled() and (error := task.exception()):
            self._transport.abort()
            context = {"message": "the origin failed to answer", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        elif self._last:
            self._transport.close()
        elif self._writable is None:
            self._go_on()

    def _refuse(self, error: BadRequestError, out: list[bytes]) -> None:
        """Answer 400 and close: where the next request would begin is unknown."""
        self._last = True
        request = self._request or Request(
            b"", b"", b"HTTP/1.1", self._origin.head(b""), BodyReader(Head(b""))
        )
        out.append(self._whole(request, Reply(400, f"{error}\n".encode(), close=True), f"{error}\n".encode()))
        if self._request is None and self._origin.log is not None:
            self._origin.log.at_once("", b"", b"", 400)
        self._finish()

    def _reset(self) -> None:
        self._last = True
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
        )
        self._transport.abort()

    def _finish(self) -> None:
        request, self._request = self._request, None
        if request is not None and self._origin.log is not None:
            self._origin.log.leave(request)

    def _write(self, out: list[bytes]) -> None:
        if out and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()


class Origin:
    """The listening server with what its connections share."""

    ROUTES_HELP: ClassVar[str] = "\n".join(f"{route.usage:<33} {route.handler.__doc__}" for route in _TABLE)

    def __init__(self, config: OriginConfig) -> None:
        self.config = config
        self.heads: dict[bytes, Head] = {}
        self.ready: dict[bytes, tuple[bytes, int]] = {}
        self.log: AccessLog | None = None
        self.flusher: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._closing = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.routes = Routes(config, self._closing)

    async def start(self) -> None:
        """Listen; the port is known when this returns."""
        config, tls = self.config, None
        if config.certfile is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(config.certfile, config.keyfile)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), config.host, config.port, ssl=tls, backlog=4096
        )
        if config.access_log is not None:
            self.log = AccessLog(config.access_log)
            self.flusher = loop.create_task(self._flush(self.log), name="origin access log")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The root of its URLs, without a slash at the end."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'http' if self.config.certfile is None else 'https'}://{host}:{self.port}"

    async def close(self) -> None:
        """Stop listening, give answers in progress DRAIN_SECONDS, drop the rest, write the log."""
        self._server.close()
        self._closing.set()
        for connection in list(self._connections):
            connection.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), DRAIN_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        await self._empty.wait()
        log, self.log = self.log, None
        if log is not None and self.flusher is not None:
            self.flusher.cancel()
            await asyncio.gather(self.flusher, return_exceptions=True)  # what failed there fails here again
            log.close()

    def head(self, block: bytes) -> Head:
        """Parse a header block, and remember it: clients repeat theirs."""
        head = Head(block)
        if len(block) <= _KEPT_BLOCK:
            remember(self.heads, block, head)
        return head

    def keep(self, request: Request, reply: Reply, wire: bytes) -> None:
        """Remember the response of a fixed route for the hot path."""
        route = ROUTES.get(request.path[1:].partition("/")[0])
        plain = request.head.plain and request.method == b"GET" and request.version == b"HTTP/1.1"
        if plain and route is not None and route.fixed and len(wire) <= SMALL + _KEPT_BLOCK:
            remember(self.ready, request.target.partition(b"?")[0], (wire, reply.status))

    def joined(self, connection: Connection) -> None:
        """Count a connection in; one that was accepted while closing is dropped."""
        self._connections.add(connection)
        self._empty.clear()
        if self._closing.is_set():
            connection.abort()

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @staticmethod
    async def _flush(log: AccessLog) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            log.flush()


async def serve(config: OriginConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, or until the access log cannot be written; `ready` is told the URL."""
    origin, stop = Origin(config), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    await origin.start()
    if origin.flusher is not None:
        origin.flusher.add_done_callback(lambda _: stop.set())
    ready(origin.url)
    await stop.wait()
    await origin.close()


def run(config: OriginConfig, ready: Callable[[str], None]) -> None:
    """Serve on uvloop where that is installed."""
    runner: Callable[[Coroutine[Any, Any, None]], None]
    runner = import_module("uvloop").run if find_spec("uvloop") else asyncio.run
    runner(serve(config, ready))
