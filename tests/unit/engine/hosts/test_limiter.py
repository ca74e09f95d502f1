"""Spacing of starts, and whose limits a host has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.engine.growth import MOST_AUTO
from fetcher.engine.hosts.limiter import CATCH_UP, HostLimits, LimitSettings, next_start, strictest


def starts(limits, asked, count):
    """Return when a host is started that is asked at ``asked`` at the earliest, again and again."""
    free_at, made = 0.0, []
    for _ in range(count):
        now = max(asked, free_at)
        made.append(now)
        free_at = next_start(free_at, now, limits)
    return made


def test_the_interval_is_the_stricter_of_rate_and_delay():
    assert HostLimits().interval == 0
    assert HostLimits(rate="4/s").interval == 0.25
    assert HostLimits(rate="4/s", delay="1s").interval == 1.0
    assert HostLimits(rate="1/m", delay="1s").interval == pytest.approx(60.0)


def test_a_delay_is_kept_between_all_starts():
    limits = HostLimits(delay="500ms")
    assert starts(limits, 100.0, 4) == [100.0, 100.5, 101.0, 101.5]
    # A start that came late is not made up for.
    assert next_start(100.5, 100.9, limits) == pytest.approx(101.4)


def test_a_rate_makes_up_for_lateness_but_not_for_idleness():
    limits = HostLimits(rate="10/s")
    assert next_start(100.0, 100.0, limits) == pytest.approx(100.1)
    assert next_start(100.0, 100.03, limits) == pytest.approx(100.1)
    assert next_start(100.0, 200.0, limits) == pytest.approx(200.1)


@given(
    rate=st.floats(0.1, 5000),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_no_stretch_of_time_has_more_starts_than_its_rate_allows(rate, gaps):
    limits = HostLimits(rate=rate)
    free_at, now, made = 0.0, 100.0, []
    for gap in gaps:
        now = max(now + gap, free_at)
        made.append(now)
        free_at = next_start(free_at, now, limits)
    tolerance = min(CATCH_UP, limits.interval)
    for first in range(len(made)):
        for last in range(first, len(made)):
            allowed = 1 + (made[last] - made[first] + tolerance) * rate
            assert last - first + 1 <= allowed + 1e-6


@given(delay=st.floats(0.001, 10), gaps=st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_no_two_starts_are_closer_than_the_delay(delay, gaps):
    limits = HostLimits(delay=delay, rate="1000/s")
    free_at, now, previous = 0.0, 100.0, None
    for gap in gaps:
        now = max(now + gap, free_at)
        assert previous is None or now - previous >= delay - 1e-9
        previous = now
        free_at = next_start(free_at, now, limits)


def test_a_steady_rate_is_reached_on_average_in_spite_of_lateness():
    limits, free_at, now = HostLimits(rate="100/s"), 0.0, 100.0
    for number in range(1000):
        now = max(now, free_at) + (0.004 if number % 2 else 0.0)
        free_at = next_start(free_at, now, limits)
    assert now - 100.0 == pytest.approx(10.0, rel=0.01)


def test_a_name_wins_over_patterns_and_the_first_pattern_over_others():
    settings = LimitSettings(
        per_host={"concurrency": 1},
        hosts={
            "*.example.org": {"concurrency": 2},
            "api.example.org": {"concurrency": 3},
            "a*.example.org": {"concurrency": 4},
            "Upper.Test": {"concurrency": 5},
            "?.test": {"concurrency": 6},
        },
    )
    limits = settings.lookup()
    found = {
        host: limits(host).concurrency
        for host in ("api.example.org", "a.example.org", "example.org", "upper.test", "x.test", "xy.test", "")
    }
    assert found == {
        "api.example.org": 3,
        "a.example.org": 2,
        "example.org": 1,
        "upper.test": 5,
        "x.test": 6,
        "xy.test": 1,
        "": 1,
    }


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"rate": 0}, {"rate": "-1/s"}, {"delay": -1}, {"delay": "inf"}])
def test_limits_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValidationError):
        HostLimits(**bad)


def test_the_most_in_flight_is_known_even_if_how_many_is_found_out():
    assert LimitSettings().most == 100
    assert LimitSettings(concurrency=7).most == 7
    assert LimitSettings(concurrency="auto").most == MOST_AUTO


@pytest.mark.parametrize("bad", ["many", 0, -1, 1.5, None, 10**9])
def test_a_concurrency_is_a_number_or_auto(bad):
    with pytest.raises(ValidationError, match="concurrency"):
        LimitSettings(concurrency=bad)


def test_limits_can_be_written_out_and_read_again():
    for limits in (LimitSettings(), LimitSettings(concurrency="auto", breaker="off", adapt=False)):
        assert LimitSettings.model_validate_json(limits.model_dump_json()) == limits


def test_the_strictest_of_limits_is_what_each_of_them_sets_itself():
    configured = HostLimits(concurrency=6, rate="10/s")
    assert strictest(configured, []) is configured
    assert strictest(configured, [HostLimits(), HostLimits(concurrency=9, rate="20/s")]) is configured
    held = strictest(configured, [HostLimits(concurrency=3), HostLimits(delay=0.5), HostLimits(rate="4/s")])
    assert (held.concurrency, held.rate, held.delay, held.interval) == (3, 4.0, 0.5, 0.5)
    assert strictest(HostLimits(concurrency=50), [HostLimits(rate="2/s")]) == HostLimits(concurrency=50, rate="2/s")
