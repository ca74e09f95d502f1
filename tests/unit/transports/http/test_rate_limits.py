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


def test_a_long_field_takes_no_time():
    began = time.perf_counter()
    for text in ['";' * 100_000, ";" * 200_000, '"' + "\\" * 200_000, "a;" * 100_000, '"a";r=1;t=' + "1" * 200_000]:
        said(("RateLimit", text))
    assert time.perf_counter() - began < 2
