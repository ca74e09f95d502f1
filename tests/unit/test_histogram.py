"""Quantiles that are off by one per cent at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.histogram import bucket_of, merged, middle_of, quantile

DURATIONS = st.floats(1e-6, 1e5)


@given(DURATIONS)
def test_a_bucket_stands_for_what_is_in_it(seconds):
    assert middle_of(bucket_of(seconds)) == pytest.approx(seconds, rel=0.0101)


@given(st.lists(DURATIONS, min_size=1), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles(values, q):
    histogram = merged({bucket_of(value): 1} for value in values)
    exact = sorted(values)[max(0, -(-int(q * 100) * len(values) // 100) - 1)]
    assert quantile(histogram, q) == pytest.approx(exact, rel=0.0101)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9])
def test_what_is_shorter_than_can_be_is_the_shortest(seconds):
    assert bucket_of(seconds) == bucket_of(1e-6)


def test_nothing_has_no_quantile():
    assert quantile({}, 0.5) is None
    assert merged([]) == {}
