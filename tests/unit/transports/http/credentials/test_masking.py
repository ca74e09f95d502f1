"""A secret is masked in whatever a server makes of it, and in messages so is each piece of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import FetchError
from fetcher.transports.http.credentials.api_key import ApiKey
from fetcher.transports.http.credentials.masking import LEAST_PIECE, Mask
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.wire import Bounds, ResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "k3y/with+all&of=it 1"
LOST = {ord("^"): None, ord("\\"): None, ord("+"): " "}
# Each has a message of its own, which quotes what stands in its place.
QUOTING = [
    b"%s\r\n\r\n",
    b"HTTX%s\r\n\r\n",
    b"HTTP/1.1 %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
]
FORMS: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.lower,
    quote,
    lambda key: quote(key, safe="").lower(),
    lambda key: quote(quote(key, safe=""), safe=""),
    lambda key: quote(key, safe="").replace("%20", "+"),
]
KEYS = st.text("abcKEY0189-_./=&%+'\"\\ éß", min_size=8, max_size=40).filter(lambda key: key == key.strip())


def leaks(message: str, key: str) -> set[str]:
    """Return which pieces of a key are in a message, whatever it does to them."""
    escaped = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), message)
    seen = {message, escaped, unquote(unquote(message)), unquote(unquote(escaped))}
    seen |= {text.encode("latin-1", "replace").decode("utf-8", "replace") for text in set(seen)}
    seen |= {text.lower().translate(LOST) for text in set(seen)}
    plain = key.lower().translate(LOST)
    pieces = {plain[at : at + LEAST_PIECE] for at in range(len(plain) - LEAST_PIECE + 1)}
    return {piece for piece in pieces for text in seen if piece in text}


def message(template: bytes, said: bytes, key: str) -> str:
    """Return the message about an answer, as it is once the key is taken out of it."""
    with pytest.raises(FetchError) as caught:
        ResponseParser("GET", Bounds()).feed(template % said)
    ApiKey("appid", key, in_query=True).clean(caught.value)
    assert caught.value.args == (caught.value.message,)
    return caught.value.message


@given(
    template=st.sampled_from(QUOTING),
    form=st.sampled_from(FORMS),
    key=KEYS,
    before=st.integers(0, 90),
    cut=st.booleans(),
)
def test_no_message_has_a_piece_of_a_key_wherever_what_it_quotes_was_cut(template, form, key, before, cut):
    said = b"p" * before + b"!" + form(key).encode()
    shown = message(template, said[: before + len(key) // 2] if cut else said, key)
    assert not leaks(shown, key), shown


@pytest.mark.parametrize("template", QUOTING)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_for_each_place_of_one(template: bytes, form: Callable[[str], str]):
    for before in range(80):
        shown = message(template, b"p" * before + b"!" + form(KEY).encode(), KEY)
        assert not leaks(shown, KEY), shown


@given(key=KEYS, before=st.integers(0, 320))
def test_what_a_driver_quotes_has_none_either(key: str, before: int):
    error = fetch_error(LookupError(f"{'p' * before}{key} {(key + 'x').encode()!r}"), "http://a.test/", None)
    ApiKey("appid", key, in_query=True).clean(error)
    assert not leaks(error.message, key), error.message


def test_what_is_no_piece_of_it_stays():
    mask = Mask("0123456789abcdef")
    text = r"not a header field: b'\xc3\\x 01234 abcde %20+' of 10.0.0.1:8080"
    assert mask.message(text) == text
    assert not mask.repeats("invalid_grant")
    assert mask.message("a 0123456789abcdef b 23456789 c 012345") == "a *** b *** c ***"


def test_a_short_one_is_left_where_it_may_be_a_part_of_a_word():
    assert Mask("demo").message("a demonstration at /demo/x") == "a demonstration at /***/x"
