"""One client connection, from bytes to answers and back."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import aclosing
from time import time
from typing import TYPE_CHECKING, cast

from fetcher.origin.parsing import (
    REQUEST_LINE_WORDS,
    BadRequestError,
    BodyReader,
    Head,
    Request,
    check_request_line,
)
from fetcher.origin.replies import DROPPED, Answer, Reply

if TYPE_CHECKING:
    from fetcher.origin.server import Origin

MAX_HEAD = 64 * 1024  # also the unread pipeline behind a slow answer
BATCH = 64  # responses joined into one write: at most 64 * bodies.SMALL bytes

_TLS_HANDSHAKE = b"\x16"  # no request begins with it; a client that speaks TLS waits for an answer to its hello
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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
            if data.startswith(_TLS_HANDSHAKE, pos):
                raise BadRequestError("TLS on a port for plain HTTP")
            if len(data) - pos > MAX_HEAD:
                raise BadRequestError("head too long")
            return False
        line_end = data.find(b"\r\n", pos)
        words, block = data[pos:line_end].split(b" "), data[line_end:end]
        self._pos = end + 4
        head = origin.heads.get(block) or origin.head(block)
        if head.plain and words[0] == b"GET" and words[-1] == b"HTTP/1.1":
            known = origin.ready.get(words[1].partition(b"?")[0])
            if known is not None and len(words) == REQUEST_LINE_WORDS:
                out.append(known[0])
                if origin.log is not None:
                    origin.log.at_once(head.host, words[1], words[0], known[1])
                return True
        self._begin(words, head, out)
        return True

    def _begin(self, words: list[bytes], head: Head, out: list[bytes]) -> None:
        check_request_line(words)
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
            self._task = asyncio.get_running_loop().create_task(self._answer(request, answer), name="origin answer")
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
        request = self._request or Request(b"", b"", b"HTTP/1.1", self._origin.head(b""), BodyReader(Head(b"")))
        out.append(self._whole(request, Reply(400, f"{error}\n".encode(), close=True), f"{error}\n".encode()))
        if self._request is None and self._origin.log is not None:
            self._origin.log.at_once("", b"", b"", 400)
        self._finish()

    def _reset(self) -> None:
        self._last = True
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _finish(self) -> None:
        request, self._request = self._request, None
        if request is not None and self._origin.log is not None:
            self._origin.log.leave(request)

    def _write(self, out: list[bytes]) -> None:
        if out and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
