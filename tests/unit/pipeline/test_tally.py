"""Numbers about a batch, and how exact they are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result
from fetcher.pipeline.tally import Kind, Tally


def result(total_s=0.1, status=200, outcome=Outcome.OK, attempts=1, **fields):
    return Result(
        batch="b",
        job_id="1",
        url="u",
        outcome=outcome,
        attempts=attempts,
        status=status,
        total_s=total_s,
        **fields,
    )


def test_everything_is_counted():
    tally = Tally()
    tally.add([result(body_size=5, wire_size=3), result(attempts=3), result(status=304)])
    tally.add([result(status=None, outcome=Outcome.SKIPPED, attempts=0, error_kind=ErrorKind.INVALID_URL)])
    for message in ("first", "second"):
        failed = {"outcome": Outcome.FAILED, "error_kind": ErrorKind.HTTP_5XX, "error_message": message}
        tally.add([result(status=503, **failed)])
    assert tally.outcomes == {Outcome.OK: 3, Outcome.SKIPPED: 1, Outcome.FAILED: 2}
    assert tally.total == 6
    assert tally.status_classes == {"2xx": 2, "3xx": 1, "5xx": 2}
    assert (tally.retries, tally.body_bytes, tally.wire_bytes) == (2, 5, 3)
    assert tally.kinds == {"invalid_url": Kind(1, "u", ""), "http_5xx": Kind(2, "u", "first")}


def test_an_answer_that_is_not_http_counts_without_a_status():
    tally = Tally()
    tally.add([result(status=None, final_url="ftp://h/file", body_size=5, wire_size=3)])
    assert (tally.body_bytes, tally.wire_bytes, tally.status_classes) == (5, 3, {})
    assert tally.quantile(0.5) is not None


def test_nothing_has_no_quantile():
    assert Tally().quantile(0.5) is None
    tally = Tally()
    tally.add([result(status=None)])
    assert tally.quantile(0.5) is None


def exact(times, q):
    """Return the smallest time that the share ``q`` of all does not exceed."""
    return sorted(times)[max(0, math.ceil(q * len(times) - 1e-9) - 1)]


@given(
    times=st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=200),
    q=st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_off_by_one_percent_at_most(times, q):
    tally = Tally()
    tally.add([result(time) for time in times])
    assert tally.quantile(q) == pytest.approx(exact(times, q), rel=0.0101)


@pytest.mark.parametrize("time", [0.981, 0.99, 0.999999, 1.0, 1.000001, 1.01, 1.019])
def test_buckets_around_a_second_are_no_wider_than_others(time):
    tally = Tally()
    tally.add([result(time)])
    assert tally.quantile(0.5) == pytest.approx(time, rel=0.0101)


@pytest.mark.parametrize("time", [0.0, None, 1e-9])
def test_times_too_short_to_measure_are_the_shortest(time):
    tally = Tally()
    tally.add([result(time)])
    assert tally.quantile(0.5) == pytest.approx(1e-6, rel=0.02)


def test_a_tally_does_not_grow_with_its_batch():
    tally = Tally()
    for number in range(1, 20_000):
        tally.add([result(number / 1000)])
    assert len(tally.latency) < 600


@given(st.lists(st.floats(0, 1e4), max_size=30), st.text())
def test_a_tally_comes_back_as_it_was(times, message):
    tally = Tally(elapsed=1.5)
    tally.add([result(time, error_kind=ErrorKind.INTERNAL, error_message=message) for time in times])
    assert Tally.load(tally.dump()) == tally


def test_no_tally_is_an_empty_one():
    assert Tally.load(None) == Tally.load("") == Tally.load(Tally().dump()) == Tally()


def test_tallies_share_nothing():
    first, second = Tally(), Tally()
    first.add([result()])
    assert second == Tally()


class Limit:
    def __init__(self, most):
        self.most = most

    def exceeded(self, failed, total):
        return failed > self.most


def skipped(kind, count=1):
    return [result(status=None, outcome=Outcome.SKIPPED, attempts=0, error_kind=kind) for _ in range(count)]


def test_what_was_skipped_though_it_was_wanted_is_missed_and_counts():
    tally = Tally()
    tally.add([result(), result(outcome=Outcome.FAILED, error_kind=ErrorKind.HTTP_5XX)])
    tally.add(skipped(ErrorKind.ROBOTS_DISALLOWED, 5) + skipped(ErrorKind.INVALID_ROW, 7))
    assert tally.missed == 1
    tally.add(skipped(ErrorKind.HOST_DOWN, 2) + skipped(ErrorKind.ROBOTS_UNREACHABLE, 3))
    assert tally.missed == 6
    assert not tally.exceeds(Limit(6), 19)
    assert tally.exceeds(Limit(5), 19)


def test_an_input_without_a_row_that_could_be_used_is_a_failure_whatever_the_limit():
    tally = Tally()
    assert not tally.exceeds(Limit(100), 0)
    bad = [ErrorKind.INVALID_URL, ErrorKind.INVALID_ROW, ErrorKind.UNSUPPORTED_SCHEME]
    tally.add([one for kind in bad for one in skipped(kind, 2)])
    assert tally.all_unusable
    assert tally.exceeds(Limit(100), 6)
    tally.add(skipped(ErrorKind.ROBOTS_DISALLOWED))
    assert not tally.exceeds(Limit(100), 7)
