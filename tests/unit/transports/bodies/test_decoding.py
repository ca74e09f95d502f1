from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
import zlib
from itertools import islice, pairwise, permutations
from time import process_time

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.decoding import ACCEPT_ENCODING, PIECE, decoder_for, decoding_of

PLENTY = 10**9
LARGEST_PIECE = 2 * PIECE
MIB = 1024 * 1024
BODIES = st.binary(max_size=2000) | st.builds(
    lambda unit, times: unit * times, st.binary(max_size=9), st.integers(0, 90_000)
)


def raw_deflate(body: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(body) + squeeze.flush()


def checked_zstd(body: bytes) -> bytes:
    return zstd.compress(body, options={zstd.CompressionParameter.checksum_flag: 1})


def skippable(length: int) -> bytes:
    """A frame that says nothing (RFC 8878, section 3.1.2)."""
    return struct.pack("<II", 0x184D2A50, length) + b"\xaa" * length


def quick_brotli(body: bytes) -> bytes:
    return brotli.compress(body, quality=3)


CODINGS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", quick_brotli),
    "zstd": ("zstd", zstd.compress),
    "checked zstd": ("zstd", checked_zstd),
}
ENCODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": quick_brotli, "zstd": checked_zstd}
WITH_CHECKSUM = ["checked zstd", "gzip", "zlib"]
OF_MEMBERS = {"gzip", "x-gzip", "zstd"}


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A coding, a body, and the body in that coding, in several members with padding where it may have them."""
    coding, encode = CODINGS[draw(st.sampled_from(sorted(CODINGS)))]
    bodies = draw(st.lists(BODIES, min_size=1, max_size=4 if coding in OF_MEMBERS else 1))
    padding = b"\0" * (0 if coding == "br" else draw(st.sampled_from([0, 0, 1, 600])))
    between = padding + (skippable(draw(st.integers(0, 99))) if coding == "zstd" else b"")
    return coding, b"".join(bodies), b"".join(encode(body) + between for body in bodies)


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Several codings, a body, and the body in all of them."""
    names = draw(st.lists(st.sampled_from(sorted(ENCODERS)), min_size=2, max_size=4))
    body = data = draw(BODIES)
    for name in names:
        data = ENCODERS[name](data)
    return draw(st.sampled_from([",", ", ", " ,identity, "])).join(names), body, data


CUTS = st.lists(st.integers(0, 10**6), max_size=6)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decode(coding: str, pieces: list[bytes]) -> bytes:
    decoder = decoder_for(coding)
    decoded = b"".join(part for piece in pieces for part in decoder.pieces(piece))
    decoder.finish()
    return decoded


DAMAGED = (ErrorKind.BAD_ENCODING, ErrorKind.BODY_INCOMPLETE)


def outcome(coding: str, pieces: list[bytes]) -> bytes | ErrorKind:
    """Return what some bytes decode to, or the kind of their damage."""
    try:
        return decode(coding, pieces)
    except FetchError as error:
        return error.kind


def failure(coding: str, data: bytes, size: int = PIECE) -> FetchError:
    with pytest.raises(FetchError) as caught:
        decode(coding, [data[start : start + size] for start in range(0, len(data), size)])
    return caught.value


@given(streams() | chains(), CUTS)
def test_any_split_is_the_whole(stream, cuts):
    coding, body, data = stream
    assert decode(coding, pieces_of(data, cuts)) == body


@given(streams() | chains(), CUTS)
def test_both_ways_to_be_fed_give_the_same(stream, cuts):
    coding, body, data = stream
    decoder = decoder_for(coding)
    assert b"".join(decoder.feed(piece, PLENTY) for piece in pieces_of(data, cuts)) == body
    decoder.finish()


@given(st.sampled_from(sorted(CODINGS)), BODIES, st.data())
def test_any_truncation_is_incomplete(name, body, data):
    coding, encode = CODINGS[name]
    whole = encode(body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert failure(coding, whole[:cut]).kind is ErrorKind.BODY_INCOMPLETE


@pytest.mark.parametrize("name", sorted(CODINGS))
@pytest.mark.parametrize("body", [b"", b"hello " * 50, bytes(PIECE + 1)], ids=["empty", "short", "over a piece"])
def test_truncation_at_every_place_is_incomplete(name, body):
    coding, encode = CODINGS[name]
    whole = encode(body)
    assert decode(coding, [whole]) == body
    for cut in range(len(whole)):
        assert failure(coding, whole[:cut]).kind is ErrorKind.BODY_INCOMPLETE


@given(chains(), st.data())
def test_a_truncated_chain_is_incomplete(chain, data):
    coding, _, whole = chain
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert failure(coding, whole[:cut]).kind is ErrorKind.BODY_INCOMPLETE


@pytest.mark.parametrize("inner", sorted(ENCODERS))
@pytest.mark.parametrize("outer", sorted(ENCODERS))
def test_a_coding_that_ends_too_early_within_one_that_is_whole_is_incomplete(inner, outer):
    short = ENCODERS[inner](b"hello" * 100)[:-1]
    error = failure(f"{inner}, {outer}", ENCODERS[outer](short))
    assert (error.kind, error.message) == (
        ErrorKind.BODY_INCOMPLETE,
        f"the {inner} body ends before its end-of-stream mark",
    )


@given(BODIES, BODIES, st.data())
def test_a_truncated_second_member_is_incomplete(first, second, data):
    coding, encode = CODINGS[data.draw(st.sampled_from(sorted({"gzip", "zstd", "checked zstd"})))]
    member = encode(second)
    cut = data.draw(st.integers(1, len(member) - 1))
    assert failure(coding, encode(first) + member[:cut]).kind is ErrorKind.BODY_INCOMPLETE


@given(st.sampled_from(WITH_CHECKSUM), st.binary(max_size=300), st.data())
def test_a_flipped_bit_never_passes_a_checksum(name, body, data):
    coding, encode = CODINGS[name]
    whole = bytearray(encode(body))
    place = data.draw(st.integers(0, len(whole) - 1))
    # The first four bits of zlib say whether there is a checksum.
    whole[place] ^= 1 << data.draw(st.integers(4 if name == "zlib" and not place else 0, 7))
    # Parts of a gzip head, such as the time, are neither used nor covered by its checksum.
    assert outcome(coding, [bytes(whole)]) in {body, *DAMAGED}


@given(st.sampled_from(ACCEPT_ENCODING.split(", ")), st.binary(max_size=3000), CUTS)
def test_any_bytes_at_all_are_decoded_or_named_however_they_are_split(coding, data, cuts):
    whole = outcome(coding, [data])
    assert isinstance(whole, bytes) or whole in DAMAGED
    assert outcome(coding, pieces_of(data, cuts)) == whole


@given(streams(), st.binary(min_size=1, max_size=50), CUTS)
def test_garbage_behind_the_end_is_damage_however_it_is_split(stream, garbage, cuts):
    coding, _, data = stream
    garbage = b"\x01" + garbage  # neither padding nor the start of a member
    with pytest.raises(FetchError) as caught:
        decode(coding, pieces_of(data + garbage, cuts))
    # Less than a magic number may be the beginning of one.
    short = {ErrorKind.BODY_INCOMPLETE} if coding == "zstd" and len(garbage) < 4 else set()
    assert caught.value.kind in {ErrorKind.BAD_ENCODING, *short}


@given(streams() | chains(), st.integers(0, 3000), CUTS)
def test_never_more_than_one_byte_over_the_budget(stream, cap, cuts):
    coding, body, data = stream
    decoder = decoder_for(coding)
    decoded = b""
    for piece in pieces_of(data, cuts):
        decoded += decoder.feed(piece, cap - len(decoded))
        assert len(decoded) <= cap + 1
        if len(decoded) > cap:
            break
    assert decoded == body[: cap + 1]


@pytest.mark.parametrize("name", sorted(CODINGS))
@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 98272, 32752, 5 * PIECE])
@pytest.mark.parametrize("body", [bytes, random.Random(1).randbytes], ids=["zeros", "noise"])
def test_a_body_that_just_fills_a_piece_is_whole(name, size, body):
    coding, encode = CODINGS[name]
    data = body(size)
    assert decode(coding, [encode(data)]) == data
    assert decode(coding, pieces_of(encode(data), [len(encode(data)) - 1])) == data


BOMB = bytes(64 * MIB)
BOMBS = {
    "gzip": gzip.compress(BOMB, 1),
    "deflate": zlib.compress(BOMB, 1),
    "br": quick_brotli(BOMB),
    "zstd": zstd.compress(BOMB),
}
BOMBS |= {
    f"{inner}, {outer}": ENCODERS[outer](BOMBS[inner]) for inner, outer in permutations(["gzip", "br", "zstd"], 2)
}


@pytest.mark.parametrize("coding", sorted(BOMBS))
def test_a_bomb_comes_in_pieces_and_takes_no_memory(coding):
    tracemalloc.start()
    try:
        size = 0
        for piece in islice(decoder_for(coding).pieces(BOMBS[coding]), 160):
            assert 0 < len(piece) <= LARGEST_PIECE
            size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 5 * MIB
    # What the libraries allocate for themselves is bounded by their windows.
    assert peak < 2 * MIB


@pytest.mark.parametrize(
    ("coding", "data", "message"),
    [
        ("gzip", gzip.compress(b"hello" * 100)[:-8] + b"12345678", "the gzip body is damaged: .*incorrect data check"),
        ("gzip", gzip.compress(b"hello")[:-4] + b"1234", "the gzip body is damaged: .*incorrect length check"),
        ("gzip", b"hello", "the gzip body is damaged: .*incorrect header check"),
        ("gzip", b"\x1f\x8b\x09" + b"x" * 30, "the gzip body is damaged: .*unknown compression method"),
        ("gzip", gzip.compress(b"hello") + b"hello", "the gzip body is damaged, behind 1 that were whole: "),
        ("deflate", zlib.compress(b"hello")[:-4] + b"1234", "the deflate body is damaged: .*incorrect data check"),
        ("deflate", zlib.compress(b"x") * 2, "the deflate body goes on after its end-of-stream mark"),
        ("deflate", b"\x78\xbb" + b"\0" * 9, "the deflate body is damaged: .*"),
        ("br", b"<html>", "the br body is damaged, or goes on after its end: "),
        ("br", brotli.compress(b"hello") + b"\0", "the br body is damaged, or goes on after its end: "),
        ("zstd", b"hello", "the zstd body can not be decoded: .*Unknown frame descriptor"),
        ("zstd", checked_zstd(b"hello")[:-4] + b"1234", "the zstd body can not be decoded: .*checksum"),
    ],
)
def test_damage_is_named(coding, data, message):
    with pytest.raises(FetchError, match=message) as caught:
        decode(coding, [data])
    assert caught.value.kind is ErrorKind.BAD_ENCODING


def test_a_brotli_body_ends_at_its_end_though_what_follows_comes_later():
    decoder = decoder_for("br")
    assert b"".join(decoder.pieces(brotli.compress(b"hello"))) == b"hello"
    with pytest.raises(FetchError, match="the br body goes on after its end-of-stream mark") as caught:
        list(decoder.pieces(b"\0"))
    assert caught.value.kind is ErrorKind.BAD_ENCODING


def frame(window_log: int) -> bytes:
    """An empty zstd frame that asks for a window of so many bits (RFC 8878, section 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x01\x00\x00"


def test_a_window_is_only_as_large_as_it_may_be():
    assert decode("zstd", [frame(23)]) == b""
    for window_log in (24, 31, 41):
        error = failure("zstd", frame(window_log))
        assert (error.kind, "too much memory" in error.message) == (ErrorKind.BAD_ENCODING, True)


def test_a_frame_that_says_that_it_holds_a_terabyte_is_refused():
    data = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + b"\x01\x00\x00"
    assert "too much memory" in failure("zstd", data).message


def test_a_large_window_of_brotli_is_refused():
    assert failure("br", b"\x11\x1e" + brotli.compress(b"hello" * 99)[1:]).kind is ErrorKind.BAD_ENCODING


@pytest.mark.parametrize(
    ("coding", "left"),
    [
        ("", None),
        ("identity", None),
        (" identity , Identity", None),
        ("compress", "compress"),
        ("UTF-8", "utf-8"),
        ("gzip, compress", "gzip, compress"),
        ("gzip, identity, compress", "gzip, compress"),
    ],
)
def test_what_can_not_be_decoded_is_kept_as_it_came(coding, left):
    assert decoding_of(200, [("Content-Encoding", coding)]) == (None, left)
    assert decoder_for(coding) is None


def test_no_coding_is_no_decoder():
    assert decoder_for(None) is None
    assert decoding_of(200, [("Content-Type", "text/plain")]) == (None, None)


def test_what_lies_over_an_unknown_coding_is_taken_off():
    decoder, left = decoding_of(200, [("Content-Encoding", "br, compress, gzip")])
    assert left == "br, compress"
    assert decoder.feed(gzip.compress(b"compressed"), PLENTY) == b"compressed"


def test_several_fields_are_one_list():
    headers = [("content-encoding", "gzip"), ("X", "br"), ("Content-Encoding", "identity,"), ("CONTENT-ENCODING", "br")]
    decoder, left = decoding_of(200, headers)
    assert left is None
    assert decoder.feed(brotli.compress(gzip.compress(b"hello")), PLENTY) == b"hello"


@pytest.mark.parametrize("coding", ["gzip", "GZIP", " gzip ", "x-gzip", "Deflate", "Br", "ZSTD"])
def test_names_of_codings_are_read_loosely(coding):
    assert decoder_for(coding) is not None


def test_a_part_of_an_encoded_body_is_kept_as_it_came():
    assert decoding_of(206, [("Content-Encoding", "gzip"), ("Content-Encoding", "br")]) == (None, "gzip, br")
    assert decoding_of(206, [("Content-Encoding", "identity")]) == (None, None)


def test_only_so_many_codings_are_taken_off():
    data = b"hello"
    for _ in range(4):
        data = gzip.compress(data)
    assert decode("gzip, gzip, gzip, gzip", [data]) == b"hello"
    error = failure(", ".join(["gzip"] * 1000), gzip.compress(data))
    assert (error.kind, error.message) == (
        ErrorKind.BAD_ENCODING,
        "more than 4 content codings one over another",
    )


def members(encode, size: int, count: int) -> bytes:
    return encode(bytes(size)) * count


USELESS = {
    "gzip, empty members": ("gzip", members(gzip.compress, 0, 100_000)),
    "gzip, members of a byte": ("gzip", members(gzip.compress, 1, 100_000)),
    "gzip, a name without end": ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"a" * 8 * MIB),
    "gzip, padding without end": ("gzip", gzip.compress(b"hello") + bytes(8 * MIB)),
    "deflate, empty blocks": ("deflate", b"\x00\x00\x00\xff\xff" * MIB),
    "br, empty blocks": ("br", b"\x0c" + b"\x06" * 8 * MIB),
    "zstd, empty frames": ("zstd", members(zstd.compress, 0, 100_000)),
    "zstd, frames of 100 bytes": ("zstd", members(zstd.compress, 100, 100_000)),
    "zstd, frames to skip": ("zstd", skippable(0) * 100_000),
    "zstd, a frame to skip": ("zstd", skippable(8 * MIB)),
    "empty members within a bomb": ("gzip, zstd", zstd.compress(members(gzip.compress, 0, 1_000_000))),
}


@pytest.mark.parametrize("size", [1000, PIECE, 10**9])
@pytest.mark.parametrize("name", sorted(USELESS))
def test_much_that_decodes_to_nothing_is_refused_before_it_costs_much(name, size):
    """Without the limits the slowest of these takes ten thousand times as long as the fastest."""
    coding, data = USELESS[name]
    started = process_time()
    error = failure(coding, data, size)
    assert error.kind is ErrorKind.BAD_ENCODING
    assert error.message.endswith("which is too little for what it costs")
    assert process_time() - started < 5


@pytest.mark.parametrize("coding", sorted(OF_MEMBERS))
def test_many_members_that_hold_something_are_fine(coding):
    body = random.Random(2).randbytes(400)
    assert decode(coding, [ENCODERS[coding.removeprefix("x-")](body) * 20_000]) == body * 20_000


def test_a_thousand_empty_members_are_fine():
    assert decode("gzip", [members(gzip.compress, 0, 1000)]) == b""
    assert decode("zstd", [members(zstd.compress, 0, 1000)]) == b""
