"""http, tcp and tls: a coroutine serves each connection. They differ in how one asks, and in how a body begins."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import trustme
from certificates import serving
from raw_server import raw_server

from fetcher.errors import ErrorKind
from fetcher.model import Receive
from fetcher.origin import Origin, OriginConfig
from transport_partners import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from raw_server import Peer

    Reply = Callable[[Peer, int], Awaitable[None]]

PAUSE = 0.02
PART = b"x" * 65_536


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


class StreamServer(Server):
    """``receive``: when the answer to its jobs is whole, where that is not plain."""

    def __init__(self, scheme: str, receive: Receive | None = None) -> None:
        super().__init__(scheme)
        self._receive = receive

    def fields(self, number: int) -> dict[str, Any]:
        return {"method": "SEND", "body": f"{number}\n".encode(), "receive": self._receive}


class HttpServer(StreamServer):
    def path(self, number: int) -> str:
        return f"/{number}"

    def fields(self, number: int) -> dict[str, Any]:
        return {}


class StreamPartner:
    """tcp, and tls if so. A request is a line with the number of its job."""

    lacks = frozenset[str]()
    jobs = 1000
    failures = frozenset({ErrorKind.BODY_INCOMPLETE, ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED})

    def __init__(self, scheme: str = "tcp") -> None:
        self.scheme = scheme
        self.http: dict[str, Any] = {}
        if scheme == "tls":
            self.http = {"tls": {"verify": False}}
            self.jobs = 500  # a handshake each

    async def read(self, peer: Peer) -> int:
        return int(await peer.receive_until(b"\n"))

    def head(self, size: int | None = None) -> bytes:
        return b""

    def server(self, receive: Receive | None = None) -> Server:
        return StreamServer(self.scheme, receive)

    def context(self) -> ssl.SSLContext | None:
        return self.certified() if self.scheme == "tls" else None

    def certified(self) -> ssl.SSLContext:
        return serving(_authority().issue_cert("127.0.0.1"))

    @asynccontextmanager
    async def serve(self, reply: Reply, receive: Receive | None = None) -> AsyncIterator[Server]:
        """Answer each connection's one request by ``reply``, and close."""

        async def script(peer: Peer) -> None:
            served.contacts += 1
            served.open += 1
            try:
                await self.talk(peer, served, reply)
            finally:
                served.open -= 1

        served = self.server(receive)
        async with raw_server(script, tls=self.context()) as listening:
            served.port = listening.port
            yield served

    async def talk(self, peer: Peer, served: Server, reply: Reply) -> None:
        number = await self.read(peer)
        served.asked += 1
        await reply(peer, number)

    async def _whole(self, peer: Peer, body: bytes) -> None:
        await peer.send(self.head(len(body)) + body)

    def answer(self, size: int) -> AbstractAsyncContextManager[Server]:
        return self.serve(lambda peer, _: self._whole(peer, b"x" * size))

    def own(self) -> AbstractAsyncContextManager[Server]:
        return self.serve(lambda peer, number: self._whole(peer, str(number).encode()))

    def stall(self) -> AbstractAsyncContextManager[Server]:
        async def reply(peer: Peer, number: int) -> None:
            if number % 2:
                await peer.send(self.head(9) + b"x")
            await peer.gone()

        return self.serve(reply, Receive(length=9))

    def drip(self) -> AbstractAsyncContextManager[Server]:
        return self.serve(partial(self._forever, piece=b"x", pause=PAUSE))

    def endless(self) -> AbstractAsyncContextManager[Server]:
        return self.serve(partial(self._forever, piece=PART, pause=0))

    async def _forever(self, peer: Peer, _: int, *, piece: bytes, pause: float) -> None:
        await peer.send(self.head())
        while True:
            await peer.send(piece)
            await asyncio.sleep(pause)

    def reset(self) -> AbstractAsyncContextManager[Server]:
        async def reply(peer: Peer, _: int) -> None:
            peer.reset()

        return self.serve(reply)

    def mixed(self) -> AbstractAsyncContextManager[Server]:
        async def reply(peer: Peer, number: int) -> None:
            match number % 5:
                case 0 | 1:
                    await self._whole(peer, b"x" * 100)
                case 2:
                    await peer.send(self.head(100) + b"x" * 50)
                case 3:
                    peer.reset()

        return self.serve(reply, Receive(length=100))


class HttpPartner(StreamPartner):
    """http: the number of a job is in its path."""

    jobs = 2000
    failures = frozenset({ErrorKind.BODY_INCOMPLETE, ErrorKind.CONNECTION_RESET})
    paths = ("bytes/100", "status/404", "truncated/100", "redirect/1", "gzip/3000", "close/9", "reset/1/health")

    def __init__(self) -> None:
        super().__init__("http")

    async def read(self, peer: Peer) -> int:
        return int((await peer.request()).split(b" ", 2)[1][1:])

    def head(self, size: int | None = None) -> bytes:
        length = b"" if size is None else b"Content-Length: %d\r\n" % size
        return b"HTTP/1.1 200 OK\r\n" + length + b"\r\n"

    def server(self, receive: Receive | None = None) -> Server:
        return HttpServer("http")

    async def talk(self, peer: Peer, served: Server, reply: Reply) -> None:
        while True:
            await super().talk(peer, served, reply)

    @asynccontextmanager
    async def mixed(self) -> AsyncIterator[Server]:
        """Serve the origin, which has redirects, codings and errors."""
        served = _Mixed("http")
        origin = Origin(OriginConfig())
        await origin.start()
        served.port = origin.port
        try:
            yield served
        finally:
            await origin.close()


class _Mixed(HttpServer):
    def path(self, number: int) -> str:
        return f"/{HttpPartner.paths[number % len(HttpPartner.paths)]}?{number}"
