"""ftp: the control connection is served by a script, the data by connections of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trustme
from certificates import serving
from ftp_script import ftp_script

from fetcher.errors import ErrorKind
from transport_partners import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from ftp_script import FtpScript, Session

    Reply = Callable[[Session, int], Awaitable[None]]

PAUSE = 0.02
PART = b"x" * 65_536


class FtpServer(Server):
    """The number of a job is the name of its file."""

    script: FtpScript

    def path(self, number: int) -> str:
        return f"/{number}"

    def fields(self, number: int) -> dict[str, Any]:
        return {"method": "RETR"}

    # What the script counts; nobody else does.
    contacts = property(lambda self: self.script.sessions, lambda self, _: None)
    open = property(lambda self: self.script.open, lambda self, _: None)


class FtpPartner:
    """ftp, and ftps if so."""

    lacks = frozenset[str]()
    jobs = 1000
    failures = frozenset({ErrorKind.BODY_INCOMPLETE, ErrorKind.CONNECTION_RESET, ErrorKind.FTP_5XX})

    def __init__(self, scheme: str = "ftp") -> None:
        self.scheme = scheme
        self.http: dict[str, Any] = {"tls": {"verify": False}} if scheme == "ftps" else {}
        if scheme == "ftps":
            self.jobs = 200  # two handshakes each

    @asynccontextmanager
    async def serve(self, reply: Reply, size: str = "500 unknown") -> AsyncIterator[FtpServer]:
        async def retrieve(session: Session, argument: str) -> None:
            served.asked += 1
            await reply(session, int(argument))

        tls = serving(trustme.CA().issue_cert("127.0.0.1")) if self.scheme == "ftps" else None
        async with ftp_script(tls=tls, RETR=retrieve, SIZE=size) as script:
            served = FtpServer(self.scheme)
            served.script, served.port = script, script.port
            yield served

    def answer(self, size: int) -> AbstractAsyncContextManager[FtpServer]:
        return self.serve(lambda session, _: session.transfer(b"x" * size), f"213 {size}")

    def own(self) -> AbstractAsyncContextManager[FtpServer]:
        return self.serve(lambda session, number: session.transfer(str(number).encode()))

    def stall(self) -> AbstractAsyncContextManager[FtpServer]:
        async def reply(session: Session, number: int) -> None:
            if number % 2:
                await session.say("150 here it comes")
                await (await session.data()).send(b"x")
            await session.peer.gone()

        return self.serve(reply)

    def drip(self) -> AbstractAsyncContextManager[FtpServer]:
        return self.serve(lambda session, _: _forever(session, b"x", PAUSE))

    def endless(self) -> AbstractAsyncContextManager[FtpServer]:
        return self.serve(lambda session, _: _forever(session, PART, 0))

    def reset(self) -> AbstractAsyncContextManager[FtpServer]:
        async def reply(session: Session, _: int) -> None:
            session.peer.reset()

        return self.serve(reply)

    def mixed(self) -> AbstractAsyncContextManager[FtpServer]:
        async def reply(session: Session, number: int) -> None:
            match number % 6:
                case 0 | 1:
                    await session.transfer(b"x" * 100)
                case 2:
                    await session.transfer(b"x" * 50)
                case 3:
                    await session.transfer(b"x" * 50, "426 broken off")
                case 4:
                    await session.say("550 no such file")
                case 5:
                    session.peer.reset()

        return self.serve(reply, "213 100")


async def _forever(session: Session, piece: bytes, pause: float) -> None:
    await session.say("150 here it comes")
    data = await session.data()
    while True:
        await data.send(piece)
        await asyncio.sleep(pause)
