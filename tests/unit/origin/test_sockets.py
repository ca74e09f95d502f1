"""What the origin serves beside http, asked by plain sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from fetcher.origin.sockets import Sockets
from fetcher.origin.streams import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@asynccontextmanager
async def serving(limits: Limits | None = None) -> AsyncIterator[dict[str, str]]:
    """Serve, and yield name -> URL."""
    sockets = Sockets(limits)
    await sockets.start("127.0.0.1")
    try:
        yield {place.name: place.url for place in sockets.places}
    finally:
        await sockets.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextmanager
def datagrams(url: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        yield sock


@contextmanager
def neighbour_taken() -> Iterator[int]:
    """Yield a free port, the next of which somebody has."""
    for _ in range(50):
        with socket.socket() as free, socket.socket() as taken:
            free.bind(("127.0.0.1", 0))
            first = int(free.getsockname()[1])
            try:
                taken.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
            free.close()
            yield first
            return
    pytest.skip("no two free ports side by side")


async def said(url: str, sent: bytes, *, ends: bool = True) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    async with connected(url) as (reader, writer):
        writer.write(sent)
        if ends:
            writer.write_eof()
        return await reader.read()


async def test_echo_sends_back_what_comes_until_its_end() -> None:
    data = b"".join(b"%08d" % number for number in range(50_000))
    async with serving() as urls:
        assert await said(urls["echo"], data) == data


async def test_lines_are_answered_however_they_are_cut() -> None:
    async with serving() as urls, connected(urls["lines"]) as (reader, writer):
        for piece in (b"PI", b"NG\r", b"\nECHO gr\xc3", b"\xbc\xc3\x9fe\nECHO\r\nQUIT\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.read() == "PONG\r\ngrüße\r\n\r\nBYE\r\n".encode()


async def test_lines_that_are_wrong_are_told_so_and_the_next_is_answered() -> None:
    async with serving() as urls:
        answer = await said(urls["lines"], b"NOPE\r\nECHO \xff\r\nSLOW x\r\nPING\r\nQUIT\r\n")
    assert [line.partition(b" ")[0] for line in answer.splitlines()] == [b"ERR", b"ERR", b"ERR", b"PONG", b"BYE"]
    assert b"PING, TIME, ECHO" in answer


async def test_a_line_without_an_end_is_not_read_for_ever() -> None:
    async with serving() as urls:
        answer = await said(urls["lines"], b"ECHO " + b"x" * 5000, ends=False)
    assert answer == b"ERR a line of more than 1024 bytes\r\n"


async def test_split_sends_characters_in_pieces() -> None:
    async with serving() as urls, connected(urls["lines"]) as (reader, writer):
        writer.write("SPLIT ü\n".encode())
        pieces = [await reader.read(100) for _ in range(4)]
    assert pieces == [b"\xc3", b"\xbc", b"\r", b"\n"]


async def test_slow_lines_come_one_after_the_other() -> None:
    async with serving() as urls:
        assert await said(urls["lines"], b"SLOW 2\nQUIT\n") == b"1 of 2\r\n2 of 2\r\nBYE\r\n"


async def test_slow_sends_a_byte_at_a_time() -> None:
    async with serving() as urls, connected(urls["slow"]) as (reader, writer):
        writer.write(b"abc")
        assert [await reader.read(100) for _ in range(3)] == [b"a", b"b", b"c"]


async def test_rude_drops_without_an_answer() -> None:
    async with serving() as urls:
        assert await said(urls["rude"], b"drop\n", ends=False) == b""


async def test_rude_resets_in_the_middle() -> None:
    async with serving() as urls, connected(urls["rude"]) as (reader, writer):
        writer.write(b"hello!\r\n")
        assert await reader.readexactly(3) == b"hel"
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_rude_is_endless_up_to_its_limit() -> None:
    async with serving(Limits(bytes=300_000)) as urls:
        answer = await said(urls["rude"], b"endless\r\n", ends=False)
    assert 200_000 < len(answer) <= 300_000


async def test_a_connection_ends_with_its_time() -> None:
    async with serving(Limits(seconds=0.05)) as urls:
        assert await said(urls["rude"], b"silent\n", ends=False) == b""


async def test_one_connection_too_many_is_dropped() -> None:
    async with serving(Limits(connections=1)) as urls, connected(urls["echo"]) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        async with connected(urls["echo"]) as (other, _):
            assert await other.read() == b""
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


async def test_datagrams_are_sent_back() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as urls:
        with datagrams(urls["datagrams"]) as sock:
            for sent in (b"hello", b"x" * 8000):
                sock.send(sent)
                assert await loop.sock_recv(sock, 10_000) == sent


async def test_web_sockets() -> None:
    async with serving() as urls, aiohttp.ClientSession() as session:
        root = urls["messages"]
        async with session.ws_connect(f"{root}/echo") as opened:
            await opened.send_str("grüße")
            assert await opened.receive_str() == "grüße"
            await opened.send_bytes(b"\xff")
            assert await opened.receive_bytes() == b"\xff"
        async with session.ws_connect(f"{root}/count/3") as opened:
            assert [json.loads(message.data)["n"] async for message in opened] == [1, 2, 3]
            assert opened.close_code == 1000
        async with session.ws_connect(f"{root}/close/4001") as opened:
            closed = await opened.receive()
            assert (closed.data, closed.extra) == (4001, "as asked")
        async with session.ws_connect(f"{root}/count/x") as opened:
            assert (await opened.receive()).data == 1008
        for path, status in (("/nothing", 404), ("/echo", 426)):
            async with session.get(f"http{root[2:]}{path}") as answer:
                assert answer.status == status


async def test_one_web_socket_too_many_is_refused() -> None:
    async with serving(Limits(connections=1)) as urls, aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{urls['messages']}/silent"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{urls['messages']}/echo")
        assert refused.value.status == 503


async def test_ports_follow_each_other_and_one_that_is_taken_frees_the_others() -> None:
    with neighbour_taken() as first:
        sockets = Sockets()
        with pytest.raises(OSError, match="in use"):
            await sockets.start("127.0.0.1", first)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", first))
