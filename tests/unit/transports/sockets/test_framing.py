"""Where answers end, however they fall into reads."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.model import Receive
from fetcher.transports.sockets.framing import AtDelimiter, ending_of

# Few bytes, so that delimiters are found, overlap with themselves, and begin without going on.
few = st.binary(max_size=60).map(lambda data: bytes(byte % 3 for byte in data))
cuts = st.lists(st.integers(0, 60), max_size=20)


def split(data: bytes, at: list[int]) -> list[bytes]:
    """Return the data in pieces, none of them empty."""
    edges = [0, *sorted(set(at) & set(range(1, len(data)))), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def taken(ending, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return what an ending takes of some reads for the answer, and whether that is whole."""
    answer = b""
    for piece in pieces:
        belonging = ending.take(piece)
        if belonging is not None:
            assert 0 < belonging <= len(piece)
            return answer + piece[:belonging], True
        answer += piece
    return answer, False


@given(few, few.filter(bool), cuts)
def test_a_delimiter_is_found_wherever_reads_are_split(data, delimiter, at):
    answer, whole = taken(AtDelimiter(delimiter), split(data, at))
    found = data.find(delimiter)
    assert whole == (found >= 0)
    assert answer == (data[: found + len(delimiter)] if whole else data)


@given(few, st.integers(1, 70), cuts)
def test_a_length_is_counted_wherever_reads_are_split(data, length, at):
    answer, whole = taken(ending_of(Receive(length=length)), split(data, at))
    assert whole == (len(data) >= length)
    assert answer == data[:length]


@given(few, cuts)
def test_without_an_end_of_its_own_everything_belongs_to_an_answer(data, at):
    for receive in (None, Receive(), Receive(quiet=1.0)):
        assert taken(ending_of(receive), split(data, at)) == (data, False)


@pytest.mark.parametrize(
    ("receive", "closes", "quiet", "missing"),
    [
        (None, True, None, "its end"),
        (Receive(), True, None, "its end"),
        (Receive(quiet=0.5), True, 0.5, "its end"),
        (Receive(length=3), False, None, "all of its 3 bytes"),
        (Receive(delimiter=b"\r\n"), False, None, r"its delimiter '\r\n'"),
        (Receive(delimiter=b"\xff" * 41), False, None, "its delimiter '" + r"\xff" * 40 + "'..."),
        (Receive(delimiter=b"a", length=3, quiet=0.5), False, None, "its delimiter 'a'"),
    ],
)
def test_what_is_known_of_an_end(receive, closes, quiet, missing):
    ending = ending_of(receive)
    assert (ending.closes, ending.quiet, ending.missing()) == (closes, quiet, missing)
