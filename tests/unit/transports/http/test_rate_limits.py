"""What answers say is left of a budget, in all the ways in which servers say it, and in none of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from fetcher.model import RateLimit
from fetcher.transports.http.rate_limits import LONGEST, rate_limit


def said(*headers: tuple[str, str]) -> RateLimit | None:
    return rate_limit(list(headers), CIMultiDict(headers))


@pytest.mark.parametrize(
    ("headers", "remaining", "reset"),
    [
        ([("RateLimit", '"default";r=50;t=30')], 50, 30),
        ([("ratelimit", '"default"; r=0; t=7')], 0, 7),
        ([("RateLimit", '"burst";r=3;t=1, "day";r=900;t=4000')], 3, 1),
        ([("RateLimit", '"burst";r=3;t=1'), ("RateLimit", '"day";r=2;t=4000')], 2, 4000),
        ([("RateLimit", '"a,;=b";pk=:Zm9v:;r=4;t=9')], 4, 9),
        ([("RateLimit", '"hour";r=0'), ("RateLimit-Policy", '"day";q=9;w=86400,"hour";q=5;w=3600')], 0, 3600),
        ([("RateLimit", "limit=100, remaining=50, reset=30")], 50, 30),
        ([("RateLimit-Limit", "100, 100;w=60"), ("RateLimit-Remaining", "9"), ("RateLimit-Reset", "5")], 9, 5),
        ([("X-RateLimit-Remaining", "9"), ("X-RateLimit-Reset", "60")], 9, 60),
        ([("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1.5")], 0, 1.5),
        ([("X-Rate-Limit-Remaining", "1"), ("X-Rate-Limit-Reset", "2")], 1, 2),
        ([("X-RateLimit-Remaining", "5"), ("X-RateLimit-Reset", "3"), ("RateLimit", "x;r=4;t=2")], 4, 2),
        ([("RateLimit", '"a";r=1;t=99999999')], 1, LONGEST),
        ([("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "99999999999999")], 1, LONGEST),
        ([("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "1000000000")], 1, 0),
    ],
)
def test_what_servers_say(headers: list[tuple[str, str]], remaining: int, reset: float):
    assert said(*headers) == RateLimit(remaining, reset)


@pytest.mark.parametrize("scale", [1, 1000])
def test_a_reset_may_be_a_time_since_1970(scale: int):
    found = said(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", str(int((time.time() + 100) * scale))))
    assert found is not None
    assert 90 < found.reset <= 100


def test_a_time_is_meant_by_the_clock_of_the_server():
    theirs = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    reset = int(theirs.timestamp()) + 20
    found = said(
        ("X-RateLimit-Remaining", "0"),
        ("X-RateLimit-Reset", str(reset)),
        ("Date", format_datetime(theirs, usegmt=True)),
    )
    assert found == RateLimit(0, 20)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("RateLimit", "")],
        [("RateLimit", "garbage")],
        [("RateLimit", '"a";r=-1;t=5')],
        [("RateLimit", '"a";r=1.5;t=5')],
        [("RateLimit", '"a";t=5')],
        [("RateLimit", '"a";r=5')],
        [("RateLimit", '"a;r=5;t=5')],
        [("RateLimit", "remaining=5")],
        [("X-RateLimit-Remaining", "5")],
        [("X-RateLimit-Reset", "5")],
        [("X-RateLimit-Remaining", "-1"), ("X-RateLimit-Reset", "5")],
        [("X-RateLimit-Remaining", "many"), ("X-RateLimit-Reset", "5")],
        [("X-RateLimit-Remaining", "5"), ("X-RateLimit-Reset", "soon")],
        [("X-RateLimit-Remaining", "5"), ("X-RateLimit-Reset", "-5")],
        [("X-RateLimit-Remaining", "9" * 400), ("X-RateLimit-Reset", "5")],
        [("X-RateLimit-Remaining", "5"), ("X-RateLimit-Reset", "2026-01-01T00:00:00Z")],
        [("X-RateLimit-Remaining", "٣"), ("X-RateLimit-Reset", "5")],
    ],
)
def test_what_makes_no_sense_is_no_news(headers: list[tuple[str, str]]):
    assert said(*headers) is None


NAMES = st.sampled_from(
    [
        "RateLimit",
        "RateLimit-Policy",
        "RateLimit-Remaining",
        "RateLimit-Reset",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-Rate-Limit-Remaining",
        "X-Rate-Limit-Reset",
        "Date",
    ]
)
VALUES = st.one_of(
    st.text(max_size=60),
    st.text(alphabet='"\\;,=rtw0123456789 a.-', max_size=80),
    st.integers(-(10**20), 10**20).map(str),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_whatever_is_said_is_within_bounds_or_no_news(headers: list[tuple[str, str]]):
    found = said(*headers)
    assert found is None or (found.remaining >= 0 and 0 <= found.reset <= LONGEST)


@given(st.integers(0, 10**9), st.integers(0, 86_400), st.text(alphabet="abc,;= ", max_size=10))
def test_what_is_well_formed_is_understood(remaining: int, reset: int, name: str):
    assert said(("RateLimit", f'"{name}";r={remaining};t={reset}')) == RateLimit(remaining, reset)


def test_a_long_field_is_not_read():
    said_of = {length: said(("RateLimit", '"a";r=1;t=2' + " " * (length - 11))) for length in (1024, 1025)}
    assert said_of == {1024: RateLimit(1, 2), 1025: None}
    assert said(*[("RateLimit", '"a";r=1;t=2')] * 200) is None
    assert said(("RateLimit-Policy", '"a";w=9' + " " * 1024), ("RateLimit", '"a";r=1')) is None


RUNS = [" ", '"', ";", ",", "\\", "a", "=", "a;", ";a=", '";', ' "', '"" ', "\\a", "1", "r=1;"]
HOSTILE = [(begin, run, end) for begin in ("", "a;", '"', 'a;b="', "a") for run in RUNS for end in ("", '"', "x")]


def seconds(name: str, value: str) -> float:
    """Return how long it takes to read a field a hundred times, at best."""
    headers = [(name, value), ("RateLimit-Remaining", value), ("X-RateLimit-Remaining", "1"), ("RateLimit", "a;r=1")]
    fields = CIMultiDict(headers)
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        for _ in range(20):
            rate_limit(headers, fields)
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("name", ["RateLimit", "RateLimit-Policy", "X-RateLimit-Reset"])
def test_what_is_ten_times_as_long_does_not_take_a_hundred_times_as_long(name: str):
    def made(begin: str, run: str, end: str, length: int) -> str:
        return begin + run * ((length - len(begin) - len(end)) // len(run)) + end

    assert len(HOSTILE) > 100
    for parts in HOSTILE:
        # Measured once more if something else took the time.
        assert any(seconds(name, made(*parts, 1000)) < 30 * seconds(name, made(*parts, 100)) for _ in range(3)), parts
