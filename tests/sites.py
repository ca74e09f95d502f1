"""A script for a raw server that answers by path, and keeps every request byte for byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from raw_server import ok

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raw_server import Peer

Answer = bytes | Callable[["Peer"], Awaitable[None]]
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Site:
    """Answers of a path; what is not named is 200 and says its path. ``answers`` may be changed at any time."""

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self.answers: dict[str, Answer] = dict(answers or {})
        self.requests: list[bytes] = []

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [request.split(b" ")[1].decode("ascii") for request in self.requests]

    def fields(self, path: str) -> dict[str, str]:
        """Return the header fields of the last request for a path, names in lower case."""
        request = next(one for one, asked in zip(reversed(self.requests), reversed(self.paths), strict=True)
                       if asked == path)  # fmt: skip
        lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.requests.append(await peer.request())
            path = self.paths[-1]
            answer = self.answers.get(path, ok(path.encode()))
            if isinstance(answer, bytes):
                await peer.send(answer)
            else:
                await answer(peer)


def redirect(location: str | bytes, status: int = 302, *headers: str) -> bytes:
    """Return a redirect without a body."""
    lines = "".join(f"{line}\r\n" for line in headers).encode()
    raw = location if isinstance(location, bytes) else location.encode("latin-1")
    return b"HTTP/1.1 %d Moved\r\nContent-Length: 0\r\n%sLocation: %s\r\n\r\n" % (status, lines, raw)


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    """Return a response with this status."""
    lines = "".join(f"{line}\r\n" for line in headers).encode()
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n%s\r\n" % (code, len(body), lines) + body
