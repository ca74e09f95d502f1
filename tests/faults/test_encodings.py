"""F48 to F54: bodies whose content coding ends early, is damaged, is unknown, or is there to do harm."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import tracemalloc
import zlib
from base64 import b64decode
from collections import Counter
from time import process_time
from typing import TYPE_CHECKING, Any

import brotli
import pytest
from backports import zstd
from raw_server import answering, ok, raw_server, saying
from transport_factories import HTTP_EXCHANGES, failure, http_transport, job

from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind, FetchError
from fetcher.formats.jsonl import JsonlFormat
from fetcher.model import Outcome

if TYPE_CHECKING:
    from raw_server import Peer, Script

    from fetcher.model import Response

MIB = 1024 * 1024
BODY = b"".join(b"line %d of a page\n" % number for number in range(5000))


def raw_deflate(body: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(body) + squeeze.flush()


def checked_zstd(body: bytes) -> bytes:
    return zstd.compress(body, options={zstd.CompressionParameter.checksum_flag: 1})


def quick_brotli(body: bytes) -> bytes:
    return brotli.compress(body, quality=3)


ENCODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": quick_brotli, "zstd": checked_zstd}
FORMS = {
    **{name: (name, encode) for name, encode in ENCODERS.items()},
    "x-gzip": ("x-gzip", gzip.compress),
    "raw deflate": ("deflate", raw_deflate),
    "gzip within br": ("gzip, br", lambda body: quick_brotli(gzip.compress(body))),
    "zstd within gzip": ("zstd, gzip", lambda body: gzip.compress(checked_zstd(body))),
}
each_exchange = pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
each_form = pytest.mark.parametrize("form", sorted(FORMS))
each_coding = pytest.mark.parametrize("coding", sorted(ENCODERS))


def coded(coding: str, data: bytes) -> bytes:
    return ok(data, f"Content-Encoding: {coding}")


async def fetched(exchange: str, answer: bytes, body: dict[str, Any] | None = None, **fields: Any) -> Response:
    async with raw_server(answering(answer)) as server, http_transport(exchange, body=body) as transport:
        return await transport.fetch(job(server.url(), **fields))


async def failed(exchange: str, answer: bytes | Script) -> FetchError:
    script = saying(answer) if isinstance(answer, bytes) else answer
    async with raw_server(script) as server, http_transport(exchange) as transport:
        return await failure(transport, job(server.url()))


# F48, truncated


@each_exchange
@each_form
async def test_f48_what_is_whole_is_ok(exchange, form):
    coding, encode = FORMS[form]
    data = encode(BODY)
    response = await fetched(exchange, coded(coding, data))
    assert response.body == BODY
    assert (response.body_size, response.wire_size) == (len(BODY), len(data))
    assert (response.content_encoding, response.truncated) == (None, False)
    assert response.sha256 == hashlib.sha256(BODY).hexdigest()


@each_exchange
@each_form
@pytest.mark.parametrize("missing", ["a byte", "half", "all but a byte"])
async def test_f48_a_coded_body_that_ends_early_is_incomplete_though_its_length_is_right(exchange, form, missing):
    coding, encode = FORMS[form]
    data = encode(BODY)
    cut = data[: {"a byte": -1, "half": len(data) // 2, "all but a byte": 1}[missing]]
    error = await failed(exchange, coded(coding, cut))
    assert (error.kind, error.status) == (ErrorKind.BODY_INCOMPLETE, 200)
    assert error.message.endswith("body ends before its end-of-stream mark")
    assert error.response.body is None


@each_exchange
@each_coding
async def test_f48_an_early_end_is_seen_in_whatever_framing(exchange, coding):
    cut = ENCODERS[coding](BODY)[:-1]
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in cut)
    for rest in (b"\r\n" + cut, b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"):
        error = await failed(exchange, head + rest)
        assert error.kind is ErrorKind.BODY_INCOMPLETE
        assert "end-of-stream mark" in error.message


@each_exchange
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_f48_a_second_member_that_ends_early_is_incomplete(exchange, coding):
    member = ENCODERS[coding](BODY)
    error = await failed(exchange, coded(coding, member + member[:-1]))
    assert error.kind is ErrorKind.BODY_INCOMPLETE


@each_exchange
async def test_f48_no_body_at_all_lacks_nothing(exchange):
    known = [("If-None-Match", '"a"')]
    for status, method in (("200 OK", "HEAD"), ("204 No Content", "GET"), ("304 Not Modified", "GET")):
        length = "" if status.startswith("204") else "Content-Length: 500\r\n"
        answer = f"HTTP/1.1 {status}\r\nContent-Encoding: compress, gzip\r\n{length}\r\n".encode()
        response = await fetched(exchange, answer, method=method, headers=known)
        assert (response.body_size, response.wire_size, response.content_encoding) == (0, 0, None)
    response = await fetched(exchange, coded("gzip", b""))
    assert (response.body, response.wire_size) == (b"", 0)


@each_exchange
async def test_f48_a_damaged_body_harms_no_other_on_its_connection(exchange):
    bodies = {b"/whole": gzip.compress(BODY), b"/short": gzip.compress(BODY)[:-5], b"/other": b"<html>"}

    async def script(peer: Peer) -> None:
        while True:
            path = (await peer.request()).split(b" ")[1]
            await peer.send(coded("gzip", bodies[path]))

    async with raw_server(script) as server, http_transport(exchange) as transport:
        for _ in range(3):
            short = await failure(transport, job(server.url("/short")))
            assert (await transport.fetch(job(server.url("/whole")))).body == BODY
            other = await failure(transport, job(server.url("/other")))
            assert (short.kind, other.kind) == (ErrorKind.BODY_INCOMPLETE, ErrorKind.BAD_ENCODING)


# F49, damaged

DAMAGED = {
    "gzip checksum": ("gzip", gzip.compress(BODY)[:-8] + b"1234" + gzip.compress(BODY)[-4:], "incorrect data check"),
    "gzip length": ("gzip", gzip.compress(BODY)[:-4] + b"1234", "incorrect length check"),
    "zlib checksum": ("deflate", zlib.compress(BODY)[:-4] + b"1234", "incorrect data check"),
    "zstd checksum": ("zstd", checked_zstd(BODY)[:-4] + b"1234", "checksum"),
    "inner checksum": ("gzip, br", quick_brotli(gzip.compress(BODY)[:-8] + b"12345678"), "gzip body is damaged"),
    "no gzip": ("gzip", b"<html>", "the gzip body is damaged"),
    "no deflate": ("deflate", b"<html>", "the deflate body is damaged"),
    "no br": ("br", b"<html>", "the br body is damaged"),
    "no zstd": ("zstd", b"<html>", "the zstd body can not be decoded"),
    "wide zstd": ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", "too much memory"),
    "too many": (", ".join(["gzip"] * 5), gzip.compress(BODY), "more than 4 content codings"),
}


@each_exchange
@pytest.mark.parametrize("damage", sorted(DAMAGED))
async def test_f49_damage_is_a_bad_encoding(exchange, damage):
    coding, data, message = DAMAGED[damage]
    error = await failed(exchange, coded(coding, data))
    assert (error.kind, error.status) == (ErrorKind.BAD_ENCODING, 200)
    assert message in error.message
    assert error.response.body is None


@each_exchange
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_f49_a_changed_body_never_passes_a_checksum(exchange, coding):
    good = ENCODERS[coding](BODY)

    async def script(peer: Peer) -> None:
        path = (await peer.request()).split(b" ")[1]
        place = int(path[1:])
        await peer.send(coded(coding, good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :]))

    async with raw_server(script) as server, http_transport(exchange) as transport:
        outcomes = Counter()
        for place in range(0, len(good), len(good) // 100):
            try:
                outcome = (await transport.fetch(job(server.url(f"/{place}")))).body
            except FetchError as error:
                outcome = error.kind
            outcomes[outcome] += 1
    # A few bits mean nothing, such as the time in a gzip head.
    assert set(outcomes) <= {ErrorKind.BAD_ENCODING, ErrorKind.BODY_INCOMPLETE, BODY}
    assert outcomes[ErrorKind.BAD_ENCODING] > 80


# F50, garbage after the stream


@each_exchange
@each_coding
async def test_f50_garbage_after_the_end_is_a_bad_encoding(exchange, coding):
    error = await failed(exchange, coded(coding, ENCODERS[coding](BODY) + b"<!-- served by a proxy -->"))
    assert error.kind is ErrorKind.BAD_ENCODING


@each_exchange
@each_coding
async def test_f50_zeros_after_the_end_are_padding_but_for_br(exchange, coding):
    answer = coded(coding, ENCODERS[coding](BODY) + bytes(700))
    if coding == "br":
        assert (await failed(exchange, answer)).kind is ErrorKind.BAD_ENCODING
    else:
        assert (await fetched(exchange, answer)).body == BODY


@each_exchange
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_f50_another_member_after_the_end_is_more_of_the_body(exchange, coding):
    member = ENCODERS[coding](BODY)
    assert (await fetched(exchange, coded(coding, member + member))).body == BODY + BODY


# F51, several codings, unknown codings


@each_exchange
async def test_f51_every_known_coding_is_asked_for(exchange):
    asked = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        asked.set_result(await peer.request())
        await peer.send(ok())

    async with raw_server(script) as server, http_transport(exchange) as transport:
        await transport.fetch(job(server.url()))
    assert b"\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" in await asked


@each_exchange
@pytest.mark.parametrize("outer", sorted(ENCODERS))
@pytest.mark.parametrize("inner", sorted(ENCODERS))
async def test_f51_several_codings_are_taken_off_in_reverse(exchange, inner, outer):
    data = ENCODERS[outer](ENCODERS[inner](BODY))
    assert (await fetched(exchange, coded(f"{inner}, {outer}", data))).body == BODY
    # Several fields are one list, wherever they stand.
    headers = (f"Content-Encoding: {inner}", "Content-Encoding: identity", "X: y", f"content-encoding: {outer}")
    response = await fetched(exchange, ok(data, *headers))
    assert (response.body, response.content_encoding) == (BODY, None)


@each_exchange
@pytest.mark.parametrize(
    ("codings", "sent", "kept", "left"),
    [
        ("compress", BODY, BODY, "compress"),
        ("utf-8", BODY, BODY, "utf-8"),
        ("gzip, aws-chunked", BODY, BODY, "gzip, aws-chunked"),
        ("br, compress, gzip", gzip.compress(BODY), BODY, "br, compress"),
        ("identity", BODY, BODY, None),
        ("", BODY, BODY, None),
        ("GZip", gzip.compress(BODY), BODY, None),
    ],
)
async def test_f51_an_unknown_coding_is_kept_and_named_with_all_below_it(exchange, codings, sent, kept, left):
    response = await fetched(exchange, coded(codings, sent))
    assert (response.body, response.content_encoding) == (kept, left)
    assert response.sha256 == hashlib.sha256(kept).hexdigest()


async def test_f51_the_record_names_what_is_still_on_the_body():
    record = await recorded(coded("gzip, compress", b"\x1f\x9d\x90"))
    assert record["content_encoding"] == "gzip, compress"
    assert body_of(record) == b"\x1f\x9d\x90"
    assert "content_encoding" not in await recorded(coded("gzip", gzip.compress(BODY)))


@each_exchange
async def test_f51_a_part_of_a_coded_body_is_kept_and_named(exchange):
    part = gzip.compress(BODY)[100:200]
    where = f"Content-Range: bytes 100-199/{len(gzip.compress(BODY))}"
    answer = ok(part, "Content-Encoding: gzip", where).replace(b"200 OK", b"206 Partial Content")
    response = await fetched(exchange, answer, headers=[("Range", "bytes=100-199")])
    assert (response.status, response.body, response.content_encoding) == (206, part, "gzip")


# F52, bombs

LARGE = bytes(64 * MIB)
BOMBS = {
    "gzip": gzip.compress(LARGE, 1),
    "deflate": zlib.compress(LARGE, 1),
    "br": quick_brotli(LARGE),
    "zstd": zstd.compress(LARGE),
}
BOMBS["gzip, zstd"] = zstd.compress(BOMBS["gzip"])
BOMBS["zstd, br, gzip"] = gzip.compress(quick_brotli(BOMBS["zstd"]))
each_bomb = pytest.mark.parametrize("bomb", sorted(BOMBS))


@each_exchange
@each_bomb
async def test_f52_a_bomb_stops_at_the_cap_with_little_memory(exchange, bomb):
    answer = coded(bomb, BOMBS[bomb])
    async with (
        raw_server(saying(answer)) as server,
        http_transport(exchange, body={"max_size": "2MiB"}) as transport,
    ):
        tracemalloc.start()
        try:
            error = await failure(transport, job(server.url()))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (error.kind, error.message) == (ErrorKind.BODY_TOO_LARGE, "longer than body.max_size (2097152 bytes)")
    # The body up to its cap, some pieces, and what the server and the client have in their buffers.
    assert peak < 8 * MIB + 2 * len(answer)


@each_exchange
@each_bomb
async def test_f52_a_bomb_is_cut_at_the_cap_where_that_is_wanted(exchange, bomb):
    settings = {"max_size": "1MiB", "overflow": "truncate"}
    response = await fetched(exchange, coded(bomb, BOMBS[bomb]), settings)
    assert (response.body, response.truncated) == (bytes(MIB), True)


# F53, much that is nothing

NOTHINGS = {
    "empty gzip members": ("gzip", b"", gzip.compress(b"")),
    "gzip members of a byte": ("gzip", b"", gzip.compress(b"x")),
    "a gzip file name": ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"name"),
    "gzip padding": ("gzip", gzip.compress(BODY), b"\0"),
    "empty deflate blocks": ("deflate", b"", b"\x00\x00\x00\xff\xff"),
    "empty br blocks": ("br", b"\x0c", b"\x06"),
    "empty zstd frames": ("zstd", b"", zstd.compress(b"")),
    "zstd frames to skip": ("zstd", b"", b"\x50\x2a\x4d\x18\0\0\0\0"),
    "a zstd frame to skip": ("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\xff", b"skip"),
}


@each_exchange
@pytest.mark.parametrize("nothing", sorted(NOTHINGS))
async def test_f53_an_endless_body_of_nothing_ends_and_costs_little(exchange, nothing):
    coding, begin, unit = NOTHINGS[nothing]
    flood = unit * (100_000 // len(unit))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n".encode() + begin)
        while True:
            await peer.send(flood)

    started = process_time()
    error = await failed(exchange, script)
    assert error.kind is ErrorKind.BAD_ENCODING
    assert error.message.endswith("which is too little for what it costs")
    assert error.response.wire_size < 3 * MIB
    # It is hundredths of a second; without the limits it would never end.
    assert process_time() - started < 10


@each_exchange
async def test_f53_empty_members_within_a_bomb_are_no_better(exchange):
    data = zstd.compress(gzip.compress(b"") * 2_000_000)
    started = process_time()
    error = await failed(exchange, coded("gzip, zstd", data))
    assert (error.kind, "in 1024 parts" in error.message) == (ErrorKind.BAD_ENCODING, True)
    assert process_time() - started < 10


@each_exchange
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_f53_many_members_that_hold_something_are_fine(exchange, coding):
    data = ENCODERS[coding](BODY[:1000]) * 5000
    response = await fetched(exchange, coded(coding, data))
    assert (response.body_size, response.wire_size) == (5_000_000, len(data))


# F54, charsets


async def recorded(answer: bytes) -> dict[str, Any]:
    """Fetch as a run does, and return the record as it is in the output."""
    async with raw_server(answering(answer)) as server, http_transport("connection") as transport:
        result, _ = await Worker("batch", {"http": transport}, "GET").attempt(job(server.url()), 0.0)
    assert result.outcome is Outcome.OK
    return json.loads(JsonlFormat().encode([result]))


def body_of(record: dict[str, Any]) -> bytes:
    decode = {"utf-8": str.encode, "base64": b64decode}[record["body_encoding"]]
    return decode(record["body"])


CHARSETS = {
    "latin-1 without a charset": ("text/plain", "Käse".encode("latin-1"), "base64"),
    "latin-1 that says so": ("text/plain; charset=iso-8859-1", "Käse".encode("latin-1"), "base64"),
    "latin-1 that says utf-8": ("text/plain; charset=utf-8", "Käse".encode("latin-1"), "base64"),
    "utf-8 that says latin-1": ("text/plain; charset=iso-8859-1", "Käse".encode(), "utf-8"),
    "utf-8 with a mark": ("text/plain", "Käse".encode("utf-8-sig"), "utf-8"),
    "utf-16": ("text/html; charset=utf-16", "Käse".encode("utf-16"), "base64"),
    "an unknown charset": ("text/html; charset=no-such-charset", "Käse".encode(), "utf-8"),
    "a charset with bytes in it": ("text/html; charset=\xff\xfe", b"K\xe4se", "base64"),
    "shift-jis": ("text/html; charset=shift_jis", "日本".encode("shift-jis"), "base64"),
    "surrogates in utf-8": ("text/html; charset=utf-8", b"\xed\xa0\x80", "base64"),
    "control characters": ("text/plain", bytes(range(32)) + b"\x7f\xe2\x80\xa8\r\n", "utf-8"),
    "every byte": ("application/octet-stream", bytes(range(256)), "base64"),
}


@pytest.mark.parametrize("charset", sorted(CHARSETS))
async def test_f54_the_record_gives_back_the_bytes_whatever_the_charset(charset):
    content_type, body, encoding = CHARSETS[charset]
    record = await recorded(ok(body, f"Content-Type: {content_type}"))
    assert (body_of(record), record["body_encoding"]) == (body, encoding)
    assert (record["body_size"], record["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
