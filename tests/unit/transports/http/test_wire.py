from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.wire import Bounds, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "chunks": (OK + b'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;name="v"\r\n!\r\n0\r\n\r\n', b"hello!"),
    "zeros and a space in a size": (OK + b"Transfer-Encoding: chunked\r\n\r\n0005 \r\nhello\r\n0\r\n\r\n", b"hello"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"x"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
    "interim": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", b"x"),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello"),
    "LF and CRLF": (b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\nhello", b"hello"),
    "bare LF and CRLFs in the body": (b"HTTP/1.1 200 OK\nContent-Length: 4\n\n\r\n\r\n", b"\r\n\r\n"),
    "obs-fold": (OK + b"A: b\r\n c\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "equal lengths": (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "a list of equal lengths": (OK + b"Content-Length: 5, 5\r\n\r\nhello", b"hello"),
    "identity": (OK + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
}
WRONG = {
    "different lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", ErrorKind.BAD_HTTP),
    "a list of different lengths": (OK + b"Content-Length: 5, 6\r\n\r\n", ErrorKind.BAD_HTTP),
    "a signed length": (OK + b"Content-Length: +5\r\n\r\n", ErrorKind.BAD_HTTP),
    "a length in other digits": (OK + b"Content-Length: \xb2\r\n\r\n", ErrorKind.BAD_HTTP),
    "a length in a strange blank": (OK + b"Content-Length: \xa05\r\n\r\n", ErrorKind.BAD_HTTP),
    "a coding in a strange blank": (OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n", ErrorKind.BAD_HTTP),
    "chunked and identity": (OK + b"Transfer-Encoding: chunked, identity\r\n\r\n", ErrorKind.BAD_HTTP),
    "no coding": (OK + b"Transfer-Encoding: ,\r\nContent-Length: 5\r\n\r\n", ErrorKind.BAD_HTTP),
    "a huge length": (OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", ErrorKind.BAD_HTTP),
    "an empty length": (OK + b"Content-Length:\r\n\r\n", ErrorKind.BAD_HTTP),
    "chunks and a length": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", ErrorKind.BAD_HTTP),
    "twice chunked": (OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n", ErrorKind.BAD_HTTP),
    "another transfer coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", ErrorKind.BAD_HTTP),
    "chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ErrorKind.BAD_HTTP),
    "a signed chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", ErrorKind.BAD_HTTP),
    "0x chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n", ErrorKind.BAD_HTTP),
    "a huge chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", ErrorKind.BAD_HTTP),
    "an empty chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n", ErrorKind.BAD_HTTP),
    "a chunk line in LF": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", ErrorKind.BAD_HTTP),
    "LF in an extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n", ErrorKind.BAD_HTTP),
    "a chunk too long": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n", ErrorKind.BAD_HTTP),
    "an endless chunk line": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 5000, ErrorKind.BAD_HTTP),
    "endless trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 60_000,
        ErrorKind.HEADERS_TOO_LARGE,
    ),
    "space before the colon": (OK + b"Content-Length : 5\r\n\r\n", ErrorKind.BAD_HTTP),
    "a line that is no field": (OK + b"nonsense\r\n\r\n", ErrorKind.BAD_HTTP),
    "a bare CR": (OK + b"A: b\rc\r\n\r\n", ErrorKind.BAD_HTTP),
    "NUL": (OK + b"A: b\0\r\n\r\n", ErrorKind.BAD_HTTP),
    "the first field folded": (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", ErrorKind.BAD_HTTP),
    "another version": (b"HTTP/2.0 200 OK\r\n\r\n", ErrorKind.BAD_HTTP),
    "status 99": (b"HTTP/1.1 099 No\r\n\r\n", ErrorKind.BAD_HTTP),
    "status 2000": (b"HTTP/1.1 2000 OK\r\n\r\n", ErrorKind.BAD_HTTP),
    "101": (b"HTTP/1.1 101 Switching\r\n\r\n", ErrorKind.BAD_HTTP),
    "a flood of interim responses": (b"HTTP/1.1 102 Processing\r\n\r\n" * 9, ErrorKind.BAD_HTTP),
    "SSH": (b"SSH-2.0-x\r\n", ErrorKind.NOT_HTTP),
    "one byte": (b"\x15", ErrorKind.NOT_HTTP),
    "an ICY server": (b"ICY 200 OK\r\n\r\n", ErrorKind.NOT_HTTP),
    "a long head": (OK + b"A: " + b"x" * 300_000 + b"\r\n\r\n", ErrorKind.HEADERS_TOO_LARGE),
    "an endless head": (OK + b"A: " + b"x" * 300_000, ErrorKind.HEADERS_TOO_LARGE),
    "many fields": (OK + b"A: b\r\n" * 257 + b"\r\n", ErrorKind.HEADERS_TOO_LARGE),
}


def parsed(*pieces: bytes, method: str = "GET") -> ResponseParser:
    parser = ResponseParser(method, Bounds())
    for piece in pieces:
        parser.feed(piece)
    return parser


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_a_whole_response_however_it_arrives(name, size):
    data, body = WHOLE[name]
    parser = parsed(*(data[at : at + size] for at in range(0, len(data), size)))
    assert parser.complete
    assert parser.take() == body
    assert parser.received == len(body)
    assert not parser.excess
    assert parser.reusable
    assert not parser.length_unknown


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_what_is_wrong_however_it_arrives(name, size):
    data, kind = WRONG[name]
    with pytest.raises(FetchError) as raised:
        parsed(*(data[at : at + size] for at in range(0, len(data), size)))
    assert raised.value.kind is kind


@pytest.mark.parametrize("name", WHOLE)
def test_a_response_that_ends_early_is_never_complete(name):
    data, _ = WHOLE[name]
    for end in range(len(data)):
        parser = parsed(data[:end])
        assert not parser.complete
        if parser.head is not None:
            with pytest.raises(FetchError) as raised:
                parser.end(reset=False)
            assert raised.value.kind is ErrorKind.BODY_INCOMPLETE


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("excess", [b"x", b"\r\n", OK])
def test_what_follows_a_response_is_not_part_of_it(name, excess):
    data, body = WHOLE[name]
    for pieces in ((data + excess,), (data, excess)):
        parser = parsed(*pieces)
        assert parser.complete
        assert parser.take() == body
        assert parser.excess == excess
        assert not parser.reusable


def test_a_body_up_to_the_end_of_the_connection():
    parser = parsed(OK + b"\r\nhello")
    assert parser.length_unknown
    assert not parser.complete
    parser.end(reset=False)
    assert parser.complete
    assert parser.take() == b"hello"
    assert not parser.reusable


def test_a_reset_is_no_end_of_a_body():
    parser = parsed(OK + b"\r\nhello")
    with pytest.raises(FetchError, match="reset in the middle"):
        parser.end(reset=True)


def test_head_has_no_body():
    parser = parsed(OK + b"Content-Length: 5\r\n\r\n", method="HEAD")
    assert parser.complete
    assert parser.length is None


def test_fields_are_kept_in_order_byte_for_byte():
    parser = parsed(OK + b"Set-Cookie: a\r\nX: \xff\xfe \t\r\nset-cookie:b\r\nContent-Length: 0\r\n\r\n")
    assert parser.head is not None
    assert parser.head.headers == [("Set-Cookie", "a"), ("X", "\xff\xfe"), ("set-cookie", "b"), ("Content-Length", "0")]
    assert parser.head.fields.get("SET-COOKIE") == parser.head.fields["Set-Cookie"] == "a"
    assert "X" in parser.head.fields
    assert "Y" not in parser.head.fields
    assert parser.head.headers[1][1].encode("latin-1") == b"\xff\xfe"


def test_a_folded_field_is_one_line():
    parser = parsed(OK + b"A: b\r\n\t c\r\n  d\r\nContent-Length: 0\r\n\r\n")
    assert parser.head is not None
    assert parser.head.headers[0] == ("A", "b c d")


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_which_connections_go_on(head, reusable):
    assert parsed(head + b"Content-Length: 0\r\n\r\n").reusable is reusable


def test_what_was_taken_is_no_longer_held():
    parser = parsed(OK + b"Content-Length: 10\r\n\r\nhello")
    assert parser.waiting == 5
    assert parser.take() == b"hello"
    assert parser.waiting == 0
    assert parser.take() == b""
    parser.feed(b"world")
    assert parser.take() == b"world"
    assert parser.complete


_PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 404 No",
        b"HTTP/1.1 100 Continue",
        b"\r\n",
        b"\n",
        b"Content-Length: 3",
        b"Content-Length: 4",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b" folded",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\0",
        b"\xff",
        b":",
    ]
)


@given(st.lists(_PARTS | st.binary(max_size=5), max_size=20), st.lists(st.integers(1, 40), max_size=20))
def test_any_bytes_in_any_pieces_mean_the_same(parts, sizes):
    data = b"".join(parts)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    assert _meaning([data]) == _meaning([piece for piece in pieces if piece])


def _meaning(pieces: list[bytes]) -> object:
    parser = ResponseParser("GET", Bounds(size=200))
    try:
        for piece in pieces:
            parser.feed(piece)
        if parser.head is not None:
            parser.end(reset=False)
    except FetchError as error:
        return error.kind
    return parser.complete, parser.take(), parser.head, parser.reusable, bool(parser.excess)


@pytest.mark.parametrize(
    "head",
    [
        OK + b"A:" + b" " * 200_000 + b"\0\r\n\r\n",
        OK + b"A: b" + b" " * 200_000 + b"c\r\n d\r\n\r\n",
        OK + b"A: b" + b" " * 200_000 + b"c\nB: d\r\n\r\n",
        OK + b"A: b\r\n" + b" \t" * 100_000 + b"\r\n\r\n",
        OK + (b"A: b\r\n" + b" " * 500 + b"\r\n") * 200 + b"\r\n",
    ],
)
def test_blanks_cost_no_more_than_other_bytes(head):
    """At the square of their number these would take minutes."""
    begun = time.process_time()
    with contextlib.suppress(FetchError):
        parsed(head)
    assert time.process_time() - begun < 5


def test_lines_of_chunks_are_bounded():
    chunk = b"1;" + b"x" * 4000 + b"\r\nx\r\n"
    with pytest.raises(FetchError, match="the lines of chunks take"):
        parsed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 1000)
    parser = parsed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    assert parser.complete


@pytest.mark.parametrize(
    ("head", "method"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET"),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "GET"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET"),
    ],
)
def test_a_head_that_contradicts_itself_ends_its_connection(head, method):
    parser = parsed(head, method=method)
    assert parser.complete
    assert not parser.reusable
