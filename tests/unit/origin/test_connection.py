"""The parser and the order of answers, over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from unit.origin.wire_client import Client, connect, drained

from fetcher.origin.bodies import SMALL, content
from fetcher.origin.connection import MAX_HEAD

if TYPE_CHECKING:
    from fetcher.origin import Origin


async def test_a_request_byte_by_byte(client: Client) -> None:
    body = b"Host: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n"
    for byte in b"\r\nPOST /echo HTTP/1.1\r\n" + body + b"GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n":
        client.writer.write(bytes([byte]))
        await drained(client)
    assert (await client.answer()).body == b"hello!"
    assert (await client.answer()).body == content(3)


@pytest.mark.parametrize("count", [2, 64, 1000])
async def test_pipelined_requests_are_answered_in_order(client: Client, count: int) -> None:
    for number in range(count):
        client.send("GET", f"/bytes/{number}")
    assert [len((await client.answer()).body) for _ in range(count)] == list(range(count))


async def test_a_pipeline_behind_a_slow_answer_waits(client: Client) -> None:
    client.send("GET", "/delay/0.02/bytes/1")
    client.send("POST", "/echo", body=b"x" * MAX_HEAD * 2)
    client.send("GET", "/chunked/3")
    client.send("GET", "/bytes/4")
    assert [len((await client.answer()).body) for _ in range(4)] == [1, MAX_HEAD * 2, 3, 4]


async def test_a_reader_that_lags_is_waited_for(client: Client) -> None:
    for _ in range(600):
        client.send("GET", f"/bytes/{SMALL}")
    client.send("GET", "/bytes/20000000")
    await drained(client)
    for _ in range(600):
        assert len((await client.answer()).body) == SMALL
    assert len((await client.answer()).body) == 20_000_000


async def test_a_chunked_request_body(client: Client) -> None:
    head = b"POST /json/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    client.writer.write(head + b"A\r\n0123456789\r\n3\r\nabc\r\n0\r\n\r\n")
    document = (await client.answer()).json()
    assert (document["body"], document["body_size"]) == ("0123456789abc", 13)


async def test_expect_continue(client: Client) -> None:
    client.writer.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await client.answer()).status == 100
    client.writer.write(b"hi")
    assert (await client.answer()).body == b"hi"


@pytest.mark.parametrize("path", ["/bytes/100", "/bytes/100000", "/chunked/5", "/gzip/100", "/delay/0/bytes/100"])
async def test_head_has_the_head_of_get(client: Client, path: str) -> None:
    expected = (await client.get(path)).fields
    assert (await client.ask("HEAD", path)).fields == expected
    assert (await client.get("/health")).body == b"ok"


async def test_http_1_0(origin: Origin) -> None:
    for path in ("/bytes/100", "/chunked/100"):
        async with connect(origin) as client:
            client.writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = await client.answer()
            assert (answer.body, answer.get("transfer-encoding")) == (content(100), None)
            assert answer.get("connection") == "close"
            assert await client.ended()


async def test_http_1_0_keep_alive(client: Client) -> None:
    for _ in range(2):
        answer = await client.ask("GET", "/bytes/5", "Connection: Keep-Alive", version="1.0")
        assert (answer.body, answer.get("connection")) == (content(5), "keep-alive")


async def test_connection_close(client: Client) -> None:
    await client.get("/bytes/5")
    answer = await client.get("/bytes/5", "Connection: close")
    assert (answer.body, answer.get("connection")) == (content(5), "close")
    assert await client.ended()


async def test_an_absolute_target(client: Client) -> None:
    assert (await client.get("http://b.test:80/bytes/5?i=1")).body == content(5)
    assert (await client.get("http://b.test")).status == 404


@pytest.mark.parametrize(
    "wire",
    [
        b"nonsense\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n",
        b"G(T /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\nb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_HEAD + 1),
        b"GET /health HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD + 1),
    ],
)
async def test_a_malformed_request_is_400_and_closes(client: Client, wire: bytes) -> None:
    await client.get("/health")
    client.writer.write(wire)
    answer = await client.answer()
    assert (answer.status, answer.get("connection")) == (400, "close")
    assert await client.ended()


async def test_a_failure_of_the_origin_drops_the_connection(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))

    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(origin.routes, "_later", fails)
    async with connect(origin) as client:
        client.send("GET", "/delay/1")
        assert await client.ended()
    assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]


async def test_a_tls_hello_is_refused_at_once(client: Client) -> None:
    client.writer.write(b"\x16\x03\x01\x02\x00\x01")
    answer = await client.answer()
    assert (answer.status, answer.body) == (400, b"TLS on a port for plain HTTP\n")
    assert await client.reader.read() == b""
