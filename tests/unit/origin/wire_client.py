"""An origin to talk to, and a client that sends bytes as given."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fetcher.origin import Origin, OriginConfig

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Answer:
    """One response as it came over the wire."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    whole: bool = True

    def get(self, name: str) -> str | None:
        """Return the last value of a field."""
        return dict(self.fields).get(name)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Client:
    """A connection that sends bytes as given and reads responses by their framing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1") -> None:
        """Send one request; a body gets its Content-Length."""
        length = (f"Content-Length: {len(body)}",) if body else ()
        host = () if any(field.lower().startswith("host:") for field in fields) else ("Host: a.test:80",)
        lines = (f"{method} {target} HTTP/{version}", *host, *fields, *length, "\r\n")
        self.writer.write("\r\n".join(lines).encode() + body)

    async def head(self) -> Answer:
        """Read a response head."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:] if line)]
        return Answer(int(lines[0].split(" ")[1]), fields, b"")

    async def answer(self, method: str = "GET") -> Answer:
        """Read a whole response."""
        answer = await self.head()
        if method == "HEAD" or answer.status in {100, 204, 304}:
            return answer
        if answer.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            assert await self.reader.readline() == b"\r\n"
        elif (length := answer.get("content-length")) is not None:
            try:
                answer.body = await self.reader.readexactly(int(length))
            except asyncio.IncompleteReadError as error:
                answer.body, answer.whole = error.partial, False
        else:
            answer.body = await self.reader.read()
        return answer

    async def ask(self, method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1") -> Answer:
        """Send a request and read its response."""
        self.send(method, target, *fields, body=body, version=version)
        return await self.answer(method)

    async def get(self, target: str, *fields: str) -> Answer:
        """GET a target."""
        return await self.ask("GET", target, *fields)

    async def ended(self) -> bool:
        """Whether the origin closes and sends nothing more."""
        return await self.reader.read() == b""


@asynccontextmanager
async def connect(origin: Origin, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """Open a connection to the origin."""
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.port, ssl=tls)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Origin]:
    """Run an origin."""
    origin = Origin(OriginConfig(**options))
    await origin.start()
    try:
        yield origin
    finally:
        await origin.close()


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def drained(client: Client) -> None:
    """Let the origin read what was sent: it shares this loop, and sees each write as a read of its own."""
    await client.writer.drain()
    for _ in range(3):
        await asyncio.sleep(0)
