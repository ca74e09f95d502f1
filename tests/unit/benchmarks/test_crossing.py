"""Where blocking and not blocking cross, in numbers that can be done in the head."""

from __future__ import annotations

import pytest

from benchmarks.crossing import Way, concurrency_of, latency_of, threads_for, where_lines_cross

THREADS = Way(10, 0.001)
MANY = Way(1000, 0.002)


def test_the_rate_is_bounded_by_waiting_and_by_work():
    assert THREADS.rate(0.0) == 1000
    assert THREADS.rate(0.099) == pytest.approx(100)


def test_above_the_crossing_many_are_faster_and_below_it_threads_are():
    crossing = latency_of(THREADS, MANY)
    assert crossing == pytest.approx(0.019)
    assert MANY.rate(crossing) == pytest.approx(THREADS.rate(crossing))
    assert MANY.rate(crossing * 1.1) > THREADS.rate(crossing * 1.1)
    assert MANY.rate(crossing * 0.9) < THREADS.rate(crossing * 0.9)


@pytest.mark.parametrize(
    ("threads", "many", "crossing"),
    [(THREADS, Way(1000, 0.001), 0.0), (THREADS, Way(10, 0.002), None)],
    ids=["always", "never"],
)
def test_they_need_not_cross(threads, many, crossing):
    assert latency_of(threads, many) == crossing


def test_how_many_it_takes_to_be_as_fast():
    assert concurrency_of(THREADS, MANY, 0.099) == 10
    assert threads_for(THREADS, MANY, 0.099) == 50
    assert concurrency_of(THREADS, MANY, 0.0) is None
    assert threads_for(Way(10, 0.01), MANY, 0.1) is None


@pytest.mark.parametrize(
    ("first", "second", "crossing"),
    [
        ([3, 2, 1], [2, 2.5, 2], 1 + 2 / 3),
        ([1, 1, 1], [2, 2, 2], 0.0),
        ([3, 3, 3], [2, 2, 2], None),
        ([3, 1, 3, 1], [2, 2, 2, 2], 3.5),
    ],
    ids=["once", "before", "never", "for good"],
)
def test_where_measured_lines_cross(first, second, crossing):
    xs = [1.0, 2.0, 3.0, 4.0][: len(first)]
    assert where_lines_cross(xs, first, second) == (None if crossing is None else pytest.approx(crossing))
