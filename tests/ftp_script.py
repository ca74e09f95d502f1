"""An FTP server that does as it should but for what a test says, for what no real server does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from raw_server import Peer, raw_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = str | bytes | Callable[["Session", str], Awaitable[None]]

USUAL = {
    "USER": "331 password, please",
    "PASS": "230 in",
    "TYPE": "200 so be it",
    "OPTS": "200 so be it",
    "PBSZ": "200 so be it",
    "PROT": "200 so be it",
    "MDTM": "213 20200102030405",
}


class FtpScript:
    """What it serves, and what it has been asked: ``commands`` as they came, ``sessions``, ``transfers``."""

    def __init__(self, body: bytes, answers: dict[str, Answer], tls: ssl.SSLContext | None, banner: Answer) -> None:
        self.body = body
        self.answers: dict[str, Answer] = {**USUAL, **answers}
        self.tls = tls
        self.banner = banner
        self.commands: list[str] = []
        self.sessions = 0
        self.transfers = 0
        self.open = 0
        self.port = 0
        self.host = "127.0.0.1"

    def url(self, path: str = "file", *, scheme: str = "ftp", host: str | None = None, user: str = "") -> str:
        return f"{scheme}://{user and user + '@'}{host or self.host}:{self.port}/{path}"

    def count(self, verb: str) -> int:
        return sum(command.split(" ", 1)[0] == verb for command in self.commands)


class Session:
    """One control connection. ``start`` is where the next transfer begins."""

    def __init__(self, server: FtpScript, peer: Peer) -> None:
        self.server = server
        self.peer = peer
        self.secure = False
        self.start = 0
        self.data_tls: Any = None
        self._data: asyncio.Future[Peer] | None = None
        self._listening: asyncio.Server | None = None

    async def run(self) -> None:
        try:
            await self.answer(self.server.banner, "")
            while True:
                line = (await self.peer.receive_until(b"\r\n"))[:-2].decode("utf-8", "surrogateescape")
                self.server.commands.append(line)
                verb, _, argument = line.partition(" ")
                usual = getattr(self, f"do_{verb.lower()}", None)
                answer = self.server.answers.get(verb)
                if answer is not None:
                    await self.answer(answer, argument)
                elif usual is not None:
                    await usual(argument)
                else:
                    await self.say("502 unknown")
        finally:
            self.close_data()

    async def answer(self, answer: Answer, argument: str) -> None:
        if isinstance(answer, bytes):
            await self.peer.send(answer)
        elif isinstance(answer, str):
            await self.say(answer)
        else:
            await answer(self, argument)

    async def say(self, line: str) -> None:
        await self.peer.send(line.encode() + b"\r\n")

    # What it does of itself

    async def do_auth(self, argument: str) -> None:
        if self.server.tls is None:
            await self.say("502 unknown")
            return
        await self.say("234 begin")
        await self.begin_tls()

    async def begin_tls(self) -> None:
        await start_tls(self.peer, self.server.tls)
        self.secure = True

    async def do_size(self, argument: str) -> None:
        await self.say(f"213 {len(self.server.body)}")

    async def do_rest(self, argument: str) -> None:
        self.start = int(argument)
        await self.say("350 go on")

    async def do_epsv(self, argument: str) -> None:
        await self.say(f"229 come (|||{await self.listen()}|)")

    async def do_pasv(self, argument: str) -> None:
        port = await self.listen()
        await self.say(f"227 come (127,0,0,1,{port // 256},{port % 256})")

    async def do_retr(self, argument: str) -> None:
        start, self.start = self.start, 0
        await self.transfer(self.server.body[start:])

    async def do_list(self, argument: str) -> None:
        await self.transfer(self.server.body)

    async def transfer(self, body: bytes, last: str = "226 done") -> None:
        await self.say("150 here it comes")
        data = await self.data()
        await data.send(body)
        self.close_data()
        await self.say(last)

    # The data connection

    async def listen(self) -> int:
        self.close_data()
        self._data = future = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.server.transfers += 1
            if future.done():
                writer.transport.abort()
            else:
                future.set_result(Peer(reader, writer, self.server.transfers))

        self._listening = await asyncio.start_server(accept, self.server.host, 0)
        return int(self._listening.sockets[0].getsockname()[1])

    async def data(self) -> Peer:
        assert self._data is not None
        data = await self._data
        if self.secure:
            # As most servers do, once they have said that the data come.
            await start_tls(data, self.server.tls)
        self.data_tls = data._writer.get_extra_info("ssl_object")
        return data

    def close_data(self) -> None:
        if self._listening is not None:
            self._listening.close()
        if self._data is not None:
            if self._data.done() and not self._data.cancelled():
                self._data.result().close()
            else:
                self._data.cancel()
        self._listening = self._data = None


async def start_tls(peer: Peer, context: ssl.SSLContext | None) -> None:
    """Begin TLS. Raises ConnectionError if the client goes meanwhile, whatever the event loop calls that."""
    assert context is not None
    try:
        await peer._writer.start_tls(context)
    except (OSError, RuntimeError) as error:
        raise ConnectionResetError from error


@asynccontextmanager
async def ftp_script(
    body: bytes = b"hello",
    *,
    tls: ssl.SSLContext | None = None,
    implicit: bool = False,
    banner: Answer = "220 ready",
    host: str = "127.0.0.1",
    **answers: Answer,
) -> AsyncIterator[FtpScript]:
    """Serve one file; ``answers`` are what commands get instead of what is usual: a reply, bytes, or a coroutine."""

    async def script(peer: Peer) -> None:
        server.sessions += 1
        server.open += 1
        session = Session(server, peer)
        session.secure = implicit
        try:
            await session.run()
        finally:
            server.open -= 1

    server = FtpScript(body, answers, tls, banner)
    async with raw_server(script, tls=tls if implicit else None, host=host) as listening:
        server.port = listening.port
        yield server
