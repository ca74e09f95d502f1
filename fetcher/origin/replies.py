"""An answer, and how it is framed on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fetcher.origin.parsing import Request

_STATUSES = frozenset(HTTPStatus)


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
DROPPED = Reply(0)
