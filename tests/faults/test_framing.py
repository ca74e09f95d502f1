"""F20 to F36: responses whose framing or header fields are not as they should be, and ones that only look so."""

from __future__ import annotations

import asyncio

import pytest
from raw_server import Peer, answering, ok, raw_server, saying
from transport_factories import failure, http_transport, job

from fetcher.errors import ErrorKind

BOTH_LOOPS = True
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def fetched(*answers: bytes, count: int = 1, method: str | None = None, **sections):
    """Answer the requests of one connection by these, fetch, and return the responses and how many connections."""
    async with raw_server(answering(*answers)) as server, http_transport("connection", **sections) as transport:
        responses = [await transport.fetch(job(server.url(), method=method)) for _ in range(count)]
        return responses, server.connections


async def failed(answer: bytes, **sections):
    async with raw_server(saying(answer)) as server, http_transport("connection", **sections) as transport:
        return await failure(transport, job(server.url()))


async def test_f20_a_body_shorter_than_its_length_is_incomplete():
    error = await failed(OK + b"Content-Length: 10\r\n\r\nhello")
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert error.message == "the connection ended after 5 of 10 bytes"
    assert error.status == 200


async def test_f21_a_body_up_to_the_end_of_the_connection_is_marked():
    async with raw_server(saying(OK + b"\r\nhello")) as server, http_transport("connection") as transport:
        response = await transport.fetch(job(server.url()))
    assert response.body == b"hello"
    assert response.length_unknown
    assert response.content_length is None


async def test_f21_a_chunked_body_is_of_known_length():
    (response,), _ = await fetched(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    assert response.body == b"hello"
    assert not response.length_unknown


@pytest.mark.parametrize(
    "lengths", [b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5, 5\r\n", b"content-length:5\r\n"]
)
async def test_f22_equal_lengths_are_one(lengths):
    (first, second), connections = await fetched(OK + lengths + b"\r\nhello", ok(b"next"), count=2)
    assert first.body == b"hello"
    assert second.body == b"next"
    assert connections == 1


@pytest.mark.parametrize(
    "lengths",
    [b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5, 6\r\n", b"Content-Length: -5\r\n"],
)
async def test_f22_different_lengths_are_bad(lengths):
    assert (await failed(OK + lengths + b"\r\nhello")).kind is ErrorKind.BAD_HTTP


async def test_f23_chunks_and_a_length_are_bad_and_close_the_connection():
    bad = OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(bad if peer.number == 1 else ok())
        await peer.gone()

    async with raw_server(script) as server, http_transport("connection") as transport:
        assert (await failure(transport, job(server.url()))).kind is ErrorKind.BAD_HTTP
        await transport.fetch(job(server.url()))
        assert server.connections == 2


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"zz\r\nhello\r\n0\r\n\r\n", ErrorKind.BAD_HTTP),
        (b"5\r\nhello!\r\n0\r\n\r\n", ErrorKind.BAD_HTTP),
        (b"5\r\nhello\r\n", ErrorKind.BODY_INCOMPLETE),
        (b"5\r\nhel", ErrorKind.BODY_INCOMPLETE),
        (b"5\r\nhello\r\n0\r\n", ErrorKind.BODY_INCOMPLETE),
        (b"", ErrorKind.BODY_INCOMPLETE),
    ],
)
async def test_f24_a_bad_or_unfinished_chunk_is_no_body(body, kind):
    error = await failed(CHUNKED + body)
    assert error.kind is kind
    assert error.status == 200


async def test_f24_a_chunk_that_turns_bad_later_ends_the_wait():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(0.02)
        await peer.send(b"nonsense\r\n")
        await peer.gone()

    async with raw_server(script) as server, http_transport("connection") as transport:
        assert (await failure(transport, job(server.url()))).kind is ErrorKind.BAD_HTTP


async def test_f25_lines_that_end_in_lf_alone_are_read():
    (response,), _ = await fetched(b"HTTP/1.1 200 OK\nA: b\nContent-Length: 5\n\nhello")
    assert response.body == b"hello"
    assert response.headers == [("A", "b"), ("Content-Length", "5")]


async def test_f25_a_folded_field_becomes_one_line():
    (response,), _ = await fetched(OK + b"A: b\r\n  c\r\n\td\r\nContent-Length: 5\r\n\r\nhello")
    assert response.headers[0] == ("A", "b c d")


@pytest.mark.parametrize("line", [b"A: b\rc", b"A: b\0c", b"Content-Length : 5", b"no field", b": nothing"])
async def test_f25_other_lines_are_bad(line):
    assert (await failed(OK + line + b"\r\nContent-Length: 5\r\n\r\nhello")).kind is ErrorKind.BAD_HTTP


async def test_f25_the_lines_of_chunks_end_in_crlf():
    assert (await failed(CHUNKED + b"5\nhello\n0\n\n")).kind is ErrorKind.BAD_HTTP


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail.test ESMTP\r\n", b"220-FTP\r\n", b"\x15\x03\x01\x00\x02\x02\x28"]
)
async def test_f26_a_banner_is_not_http(banner):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(banner)
        await peer.gone()  # such servers wait for their client; nothing more comes

    async with raw_server(script) as server, http_transport("connection") as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.NOT_HTTP
    assert repr(banner[:3])[2:-1] in error.message


async def test_f28_a_flood_of_interim_responses_ends():
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    async with raw_server(script) as server, http_transport("connection") as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.BAD_HTTP
    assert "interim" in error.message


async def test_f28_some_interim_responses_are_passed_over():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    (response,), _ = await fetched(interim + ok(b"final"))
    assert response.status == 200
    assert response.body == b"final"


async def test_f29_switching_protocols_unasked_is_bad():
    error = await failed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    assert error.kind is ErrorKind.BAD_HTTP
    assert error.status is None


@pytest.mark.parametrize(
    ("head", "method"),
    [(b"HTTP/1.1 204 No Content", None), (b"HTTP/1.1 304 Not Modified", None), (b"HTTP/1.1 200 OK", "HEAD")],
)
@pytest.mark.parametrize("together", [True, False])
async def test_f30_a_body_where_there_is_none_poisons_nothing(head, method, together):
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    bodyless = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(bodyless + body if together else bodyless)
            await peer.send(b"" if together else body)
            sent.set()
        else:
            await peer.send(ok(b"next"))
        await peer.gone()

    sent = asyncio.Event()
    async with raw_server(script) as server, http_transport("connection") as transport:
        first = await transport.fetch(job(server.url(), method=method, headers=[("If-None-Match", '"a"')]))
        await sent.wait()
        second = await transport.fetch(job(server.url()))
        assert server.connections == 2
    assert first.status in {204, 304, 200}
    assert first.body == b""
    assert second.body == b"next"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
)
async def test_f31_a_parse_error_is_no_status(answer):
    error = await failed(answer)
    assert error.kind in {ErrorKind.BAD_HTTP, ErrorKind.NOT_HTTP}
    assert error.status is None


@pytest.mark.parametrize("whole", [ok(b"valid"), CHUNKED + b"5\r\nvalid\r\n0\r\n\r\n"], ids=["length", "chunked"])
@pytest.mark.parametrize("extra", [b"garbage", ok(b"poison"), b"\r\n"], ids=["garbage", "a response", "a line break"])
async def test_f32_a_valid_response_stands_whatever_follows_it(whole, extra):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole + extra if peer.number == 1 else ok(b"next"))
        await peer.gone()

    async with raw_server(script) as server, http_transport("connection") as transport:
        assert (await transport.fetch(job(server.url()))).body == b"valid"
        assert (await transport.fetch(job(server.url()))).body == b"next"
        assert server.connections == 2


async def test_f33_large_and_many_fields_are_accepted_up_to_the_bounds():
    fields = b"Large: " + b"x" * 9 * 1024 + b"\r\n" + b"".join(b"H%d: v\r\n" % number for number in range(130))
    (response,), _ = await fetched(OK + fields + b"Content-Length: 2\r\n\r\nok")
    assert len(response.headers) == 132
    assert len(response.headers[0][1]) == 9 * 1024


@pytest.mark.parametrize("bounds", [{"max_headers": 100}, {"max_header_size": "8KiB"}])
async def test_f33_past_the_bounds_they_are_too_large(bounds):
    fields = b"Large: " + b"x" * 9 * 1024 + b"\r\n" + b"".join(b"H%d: v\r\n" % number for number in range(130))
    error = await failed(OK + fields + b"Content-Length: 2\r\n\r\nok", **bounds)
    assert error.kind is ErrorKind.HEADERS_TOO_LARGE


@pytest.mark.parametrize("line", [b"A: " + b"x" * 997 + b"\r\n", b"x" * 1000], ids=["fields", "one endless line"])
async def test_f34_a_megabyte_of_headers_is_too_large(line):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        for _ in range(1000):
            await peer.send(line)
        await peer.gone()

    async with raw_server(script) as server, http_transport("connection", max_headers=10_000) as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.HEADERS_TOO_LARGE


async def test_f35_header_bytes_are_kept_as_latin_1():
    value = bytes(range(0x20, 0x7F)).strip() + bytes(range(0x80, 0x100))
    (response,), _ = await fetched(OK + b"X: " + value + b"\r\nContent-Length: 0\r\n\r\n")
    assert response.headers[0][1].encode("latin-1") == value


async def test_f36_duplicate_fields_are_all_kept_in_order():
    fields = b"Set-Cookie: a=1\r\nVia: x\r\nset-cookie: b=2\r\nSET-COOKIE: a=3\r\n"
    (response,), _ = await fetched(OK + fields + b"Content-Length: 0\r\n\r\n")
    assert response.headers[:4] == [
        ("Set-Cookie", "a=1"),
        ("Via", "x"),
        ("set-cookie", "b=2"),
        ("SET-COOKIE", "a=3"),
    ]
