"""Whether, and when: the pure decision, and the header that has a say in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.engine.retry import (
    IDEMPOTENT,
    TRANSIENT,
    Attempt,
    Retry,
    RetrySettings,
    decide,
    host_rest,
)
from fetcher.errors import ErrorKind
from fetcher.retry_after import parse_retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
POLICY = RetrySettings()


def attempt(number=1, age=0.0, method="GET", **fields):
    if "status" not in fields and "kind" not in fields:
        fields["status"] = 503
    return Attempt(number=number, age=age, method=method, **fields)


def low():
    return 0.0


def high():
    return 1.0


def test_the_delay_is_drawn_from_zero_to_a_bound_that_doubles_up_to_the_most():
    policy = RetrySettings(attempts=100, backoff="500ms", max_backoff="3s", deadline="1h")
    assert [decide(policy, attempt(n), high).delay for n in (1, 2, 3, 4, 5, 50, 99)] == [
        0.5,
        1,
        2,
        3,
        3,
        3,
        3,
    ]
    assert {decide(policy, attempt(n), low).delay for n in range(1, 100)} == {0.0}
    assert decide(policy, attempt(3), lambda: 0.25).delay == 0.5


@given(number=st.integers(1, 99), chance=st.floats(0, 1, exclude_max=True), backoff=st.floats(0, 100))
def test_full_jitter_stays_within_its_bounds(number, chance, backoff):
    policy = RetrySettings(attempts=100, backoff=backoff, max_backoff=30, deadline=1e9)
    delay = decide(policy, attempt(number), lambda: chance).delay
    assert 0 <= delay <= min(30, backoff * 2 ** (number - 1))


def test_the_last_attempt_is_not_tried_again():
    assert decide(RetrySettings(attempts=3), attempt(2), low) is not None
    assert decide(RetrySettings(attempts=3), attempt(3), low) is None
    assert decide(RetrySettings(attempts=3), attempt(9), low) is None
    assert decide(RetrySettings(attempts=1), attempt(1), low) is None


def test_the_deadline_counts_the_delay_as_well():
    policy = RetrySettings(deadline="10s", backoff="1s")
    assert decide(policy, attempt(age=9.0), high) == Retry(1.0)
    assert decide(policy, attempt(age=9.1), high) is None
    assert decide(policy, attempt(age=9.1), low) == Retry(0.0)
    assert decide(policy, attempt(age=10.1), low) is None
    assert decide(policy, attempt(age=5.0, retry_after=6.0), low) is None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_transient_status_is_tried_again(status):
    assert decide(POLICY, attempt(status=status, kind=ErrorKind.HTTP_5XX), low)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 418, 501, 505, 599])
def test_a_final_status_is_not(status):
    assert decide(POLICY, attempt(status=status, kind=ErrorKind.HTTP_4XX), low) is None


@pytest.mark.parametrize("kind", ErrorKind)
def test_kinds_are_tried_again_as_the_policy_says(kind):
    assert (decide(POLICY, attempt(kind=kind), low) is not None) == (kind in TRANSIENT)
    assert decide(RetrySettings(errors=[kind]), attempt(kind=kind), low)
    assert decide(RetrySettings(errors=[]), attempt(kind=kind), low) is None


def test_what_is_not_idempotent_is_sent_again_only_if_nothing_had_left():
    failed = {"kind": ErrorKind.CONNECTION_RESET}
    for method in ("POST", "PATCH", "post", "CONNECT", ""):
        assert decide(POLICY, attempt(method=method, sent=True, **failed), low) is None
        assert decide(POLICY, attempt(method=method, sent=False, **failed), low)
        assert decide(POLICY, attempt(method=method, status=503), low) is None
    for method in IDEMPOTENT:
        assert decide(POLICY, attempt(method=method, sent=True, **failed), low)
    assert decide(RetrySettings(methods=["POST"]), attempt(method="POST", **failed), low)


def test_retry_after_is_the_least_that_is_waited_and_is_asked_of_the_host():
    assert decide(POLICY, attempt(retry_after=7.0), low) == Retry(7.0)
    assert decide(POLICY, attempt(retry_after=7.0), high) == Retry(7.5)
    assert decide(POLICY, attempt(retry_after=0.0), low) == Retry(0.0)
    assert decide(POLICY, attempt(retry_after=1e12), low) == Retry(120.0)
    assert decide(POLICY, attempt(retry_after=float("inf")), low) == Retry(120.0)
    assert decide(RetrySettings(max_retry_after="5s"), attempt(retry_after=9.0), low) == Retry(5.0)


def test_what_is_spread_out_waits_longer_and_is_given_up_no_earlier():
    policy = RetrySettings(backoff="1s", max_backoff="10s", deadline="60s")
    assert decide(policy, attempt(2), lambda: 0.5, spread=True) == Retry(5.0)
    assert decide(RetrySettings(backoff="1s", max_backoff="1h"), attempt(2), high, spread=True) == Retry(16.0)
    assert decide(policy, attempt(2, retry_after=7.0), high, spread=True) == Retry(17.0)
    assert decide(policy, attempt(2, age=57.0), high, spread=True) == Retry(3.0)
    assert decide(policy, attempt(2, age=59.0), high, spread=True) is None
    assert decide(policy, attempt(2, age=59.0), high) is None


def test_the_host_rests_whether_or_not_the_job_is_tried_again():
    last = attempt(number=POLICY.attempts, retry_after=7.0)
    assert decide(POLICY, last, low) is None
    assert host_rest(POLICY, last) == 7.0
    assert host_rest(POLICY, attempt(retry_after=1e12)) == 120.0
    assert host_rest(POLICY, attempt()) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("0000000000120", 120.0),
        ("9" * 400, float("inf")),
        ("99999999999", 99999999999.0),
        # The three forms of a date (RFC 9110, section 5.6.7), each 25 seconds from now
        ("Fri, 02 Jan 2026 03:04:30 GMT", 25.0),
        ("Friday, 02-Jan-26 03:04:30 GMT", 25.0),
        ("Fri Jan  2 03:04:30 2026", 25.0),
        # What servers write instead
        ("Fri, 02 Jan 2026 03:04:30 UTC", 25.0),
        ("Fri, 02 Jan 2026 04:04:30 +0100", 25.0),
        ("2 Jan 2026 03:04:30 GMT", 25.0),
        # The past, or a clock that is behind
        ("Fri, 02 Jan 2026 03:04:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value, expected):
    assert parse_retry_after(value, NOW) == expected


IN_A_MINUTE = "Fri, 02 Jan 2026 03:05:05 GMT"


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (None, 60.0),
        ("Fri, 02 Jan 2026 03:04:05 GMT", 60.0),
        # Its clock is half a minute ahead, or twenty seconds behind: it means 30 seconds, or 80, by its own.
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 03:03:45 GMT", 80.0),
        ("Fri, 02 Jan 2026 03:09:05 GMT", 0.0),
        # No clock at all
        ("Thu, 01 Jan 1970 00:00:00 GMT", 60.0),
        ("Fri, 02 Jan 2099 03:04:05 GMT", 60.0),
        ("yesterday", 60.0),
        ("", 60.0),
    ],
)
def test_a_time_is_taken_by_the_clock_of_the_server_if_that_is_sane(date, expected):
    assert parse_retry_after(IN_A_MINUTE, NOW, date) == expected


def test_a_number_of_seconds_needs_no_clock():
    assert parse_retry_after("7", NOW, "Fri, 02 Jan 2026 03:09:05 GMT") == 7.0


@pytest.mark.parametrize(
    "value",
    [  # noqa: RUF005  clearer
        None,
        "",
        " ",
        "-5",
        "+5",
        "3.5",
        "1e3",
        "soon",
        "5 s",
        "5, 6",
        "٣",
        "²",
        "NaN",
        "inf",
        "\x00",
        ",",
        "0x10",
    ]
    + [
        "Fri, 99 Jan 2026 03:04:30 GMT",
        "Fri, 02 Foo 2026 03:04:30 GMT",
        "Fri, 02 Jan 2026 99:99:99 GMT",
        "Fri",
    ],
)
def test_garbage_is_ignored(value):
    assert parse_retry_after(value, NOW) is None


PIECES = st.sampled_from(
    ["Fri", ",", " ", "02", "Jan", "-", "+", ":", "2026", "99999999999", "GMT", "0", ".", "+9999", "A"]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join)))
def test_no_header_raises_or_asks_for_less_than_nothing(value):
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(9000, 1, 1)))  # noqa: DTZ001  made aware below
def test_every_date_is_read_to_the_second(when):
    when = when.replace(tzinfo=UTC, microsecond=0)
    expected = max(0.0, (when - NOW) / timedelta(seconds=1))
    assert parse_retry_after(format_datetime(when, usegmt=True), NOW) == expected


def test_an_unexpected_answer_is_tried_again_if_its_kind_is_whatever_its_status():
    unexpected = attempt(kind=ErrorKind.UNEXPECTED, status=503)
    assert decide(POLICY, unexpected, low) is None
    tried = RetrySettings(errors=[ErrorKind.UNEXPECTED])
    assert decide(tried, unexpected, low) == Retry(0.0)
    assert decide(tried, attempt(kind=ErrorKind.UNEXPECTED, status=200, method="POST"), low) is None


def test_what_is_not_ready_yet_says_when_it_is_and_nothing_of_its_host():
    policy = RetrySettings(errors=[ErrorKind.UNEXPECTED])
    early = attempt(kind=ErrorKind.UNEXPECTED, status=202, retry_after=7.0)
    assert decide(policy, early, low) == Retry(7.0)
    assert host_rest(policy, early) is None
