"""Hypothesis strategies for whatever a record can hold: what servers send, what inputs say, what goes wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Redirect, Result

UNHURRIED = settings(deadline=None, max_examples=60)
"""For tests that read files with large libraries: how long that takes says nothing."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
# As the http transport reads them: every byte a character.
FIELD = st.binary(max_size=20).map(lambda raw: raw.decode("latin-1"))
TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUE = st.binary(max_size=20).map(
    lambda raw: raw.translate(None, b"\0\r\n").decode("latin-1").strip(" \t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0")
)
INT64 = st.integers(-(2**63), 2**63 - 1)
MOMENT = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  naive bounds
BODY = st.none() | st.binary(max_size=200) | TEXT.map(str.encode)
META = st.none() | st.dictionaries(TEXT, JSON, max_size=3)


def results(*, text=TEXT, name=FIELD, value=FIELD):
    """Return a strategy for results, each with another ``job_id``."""
    return st.lists(_result(text, name, value), max_size=5).map(_numbered)


def _result(text, name, value):
    return st.builds(
        Result,
        batch=st.just("b"),
        job_id=st.just("?"),
        url=text,
        final_url=st.none() | text,
        method=st.none() | st.sampled_from(["GET", "HEAD"]),
        status=st.none() | st.integers(100, 599),
        outcome=st.sampled_from(Outcome),
        error_kind=st.none() | st.sampled_from(ErrorKind),
        error_message=st.none() | text,
        attempts=st.integers(0, 9),
        started_at=st.none() | MOMENT,
        finished_at=st.none() | MOMENT,
        total_s=st.none() | st.floats(0, 1e6),
        headers=st.none() | st.lists(st.tuples(name, value), max_size=4),
        content_length=st.none() | INT64,
        truncated=st.none() | st.just(True),
        body_size=st.none() | st.integers(0, 2**40),
        body=BODY,
        redirects=st.none() | st.lists(st.builds(Redirect, text, st.integers(300, 399), text), max_size=2),
        extracted=META,
        meta=META,
    )


def _numbered(found):
    for number, result in enumerate(found):
        result.job_id = f"0:{number}"
    return found
