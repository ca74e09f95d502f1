"""Budgets: what no window of time ever has more of, and what servers say is left. Hours pass in no time."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.budgets import Allowance
from fetcher.engine.hosts.quota import LONGEST_TOLD, Quota
from fetcher.model import RateLimit

DAY = 86_400.0


def spent(quota: Quota, until: float, late=lambda: 0.0, idle=lambda: 0.0, begin: float = 0.0) -> list[float]:
    """Start as often as may be, ``late()`` after that; return when."""
    now, starts = begin, []
    while now < until:
        at = quota.opens_at(now)
        if at <= now:
            quota.take(now)
            quota.done(now)
            starts.append(now)
            now += idle()
        else:
            now = at + late()
    return starts


def most(starts: list[float], period: float) -> int:
    """Return the most starts of any window of a length."""
    return max((bisect_left(starts, at + period) - index for index, at in enumerate(starts)), default=0)


def test_within_a_second_starts_are_evenly_spaced():
    starts = spent(Quota([Allowance(10, 1)]), 3.0)
    assert starts == pytest.approx([index / 10 for index in range(30)], abs=1e-6)


def test_a_minute_may_be_used_up_at_once_and_comes_back_as_it_passes():
    quota = Quota([Allowance(600, 60)])
    starts = spent(quota, 59.0)
    assert len(starts) == 600
    assert starts[-1] == 0.0
    assert 60.0 <= quota.opens_at(59.0) <= 60.5
    assert quota.opens_at(30.0) == quota.opens_at(59.0)


def test_a_window_slides_and_is_not_a_minute_of_the_clock():
    quota = Quota([Allowance(10, 60)])
    for second in range(10):
        quota.take(50.0 + second)
    assert 110 <= quota.opens_at(60.0) <= 110.5
    assert quota.room(110.5, 0.25) == 1


def test_a_day_is_used_up_within_that_many_starts_and_costs_no_more_memory_than_its_parts():
    quota = Quota([Allowance(10, 1), Allowance(600, 60), Allowance(50_000, DAY)])
    starts = spent(quota, DAY)
    assert len(starts) == 50_000
    assert most(starts, 1) <= 10
    assert most(starts, 60) <= 600
    assert all(len(getattr(bound, "parts", ())) <= 122 for bound in quota.bounds)


def test_late_starts_are_made_up_for_so_that_hardly_any_of_a_budget_is_lost():
    chance = random.Random(1)
    starts = spent(Quota([Allowance(200, 1)]), 60.0, late=lambda: chance.random() * 0.004)
    assert most(starts, 1.0) <= 200
    assert len(starts) > 0.97 * 200 * 60


@given(
    st.lists(
        st.builds(Allowance, st.integers(1, 50), st.sampled_from([1.0, 60.0, 3600.0, DAY])), min_size=1, max_size=3
    ),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    st.sampled_from([0.0, 0.02, 5.0, 1000.0]),
)
def test_no_window_ever_has_more_than_the_budget(allowances, seed, late, idle):
    chance = random.Random(seed)
    quota = Quota(allowances)
    longest = max(allowance.period for allowance in allowances)
    starts = spent(
        quota,
        begin=1_000.0,
        until=1_000.0 + min(3 * longest, 4_000.0),
        late=lambda: late * chance.random(),
        idle=lambda: idle * chance.random(),
    )
    for allowance in allowances:
        assert most(starts, allowance.period) <= allowance.count


def test_a_start_that_was_none_is_given_back():
    quota = Quota([Allowance(2, 1), Allowance(3, 60)])
    quota.take(0.0)
    before = quota.opens_at(0.0)
    quota.take(0.5)
    quota.give_back()
    quota.done(0.5)
    assert quota.opens_at(0.5) == pytest.approx(before)
    assert quota.room(0.5, 0.25) == 1
    quota.take(0.5)
    quota.take(1.0)
    assert quota.opens_at(2.0) > 59


@pytest.mark.parametrize("allowance", [Allowance(2, 1), Allowance(2, 60)])
def test_more_may_be_given_back_than_still_counts(allowance):
    quota = Quota([allowance])
    starts = spent(quota, 4 * allowance.period)
    assert len(starts) > allowance.count
    for _ in starts:
        quota.give_back()
    now = starts[-1]
    assert quota.opens_at(now) <= now
    later = spent(quota, now + 2 * allowance.period, begin=now)
    assert most(later, allowance.period) == allowance.count


def test_other_allowances_count_on_from_what_has_been_counted():
    quota = Quota([Allowance(10, 60)])
    for _ in range(6):
        quota.take(0.0)
    quota.aim([Allowance(5, 60), Allowance(8, 60)])
    assert quota.opens_at(1.0) > 59
    quota.aim([Allowance(7, 60)])
    assert quota.opens_at(1.0) <= 1.0
    quota.aim([])
    assert (quota.opens_at(1.0), quota.bounds) == (0.0, [])


def test_it_knows_for_how_long_it_let_nothing_start():
    quota = Quota([Allowance(10, 1), Allowance(30, 60)])
    spent(quota, 2.0)
    assert quota.closed(2.0) == pytest.approx(2.0, abs=0.11)
    spent(quota, 61.0, begin=2.0)
    assert quota.closed(61.0) == pytest.approx(60.5, abs=0.6)
    other = Quota()
    other.take(0.0)
    assert other.closed(100.0) == 0.0
    other.tell(RateLimit(0, 30.0), 100.0, 100.0)
    assert (other.closed(100.0), other.closed(110.0), other.closed(500.0)) == (0.0, 10.0, 30.0)
    other.tell(RateLimit(5, 30.0), 110.0, 110.0)
    assert other.closed(500.0) == 10.0


def test_it_can_be_forgotten_when_nothing_of_it_counts_any_more():
    quota = Quota([Allowance(10, 1), Allowance(10, 60)])
    assert quota.is_idle(0.0)
    quota.take(100.0)
    assert not quota.is_idle(500.0)  # in flight
    quota.done(100.0)
    assert not quota.is_idle(159.0)
    assert quota.is_idle(161.0)
    quota.tell(RateLimit(3, 30.0), 200.0, 200.0)
    assert not quota.is_idle(229.0)
    assert quota.is_idle(231.0)


# What is told


def started(quota: Quota, count: int, at: float) -> None:
    for _ in range(count):
        assert quota.opens_at(at) <= at
        quota.take(at)


def test_of_a_budget_of_which_nothing_is_left_nothing_more_starts_until_it_is_reset():
    quota = Quota()
    started(quota, 1, 0.0)
    assert quota.tell(RateLimit(0, 30.0), 0.0, 1.0) is False
    quota.done(1.0)
    assert quota.opens_at(1.0) == 31.0
    assert quota.room(1.0, 0.25) == 0
    assert quota.opens_at(31.0) <= 31.0


def test_those_in_flight_are_not_counted_by_the_server_as_far_as_anybody_knows():
    quota = Quota()
    started(quota, 4, 0.0)
    quota.tell(RateLimit(5, 30.0), 0.0, 1.0)
    quota.done(1.0)
    started(quota, 2, 1.0)
    assert quota.opens_at(1.0) == 31.0


def test_answers_may_come_in_any_order():
    quota = Quota()
    started(quota, 3, 0.0)
    quota.tell(RateLimit(2, 30.0), 0.0, 1.0)  # what was answered last comes first: two of three in flight were counted
    quota.done(1.0)
    quota.tell(RateLimit(4, 30.0), 0.0, 1.1)
    quota.done(1.1)
    assert quota.opens_at(1.1) == 31.0
    quota.tell(RateLimit(3, 30.0), 0.0, 1.2)
    assert quota.opens_at(1.2) == 31.0


def test_a_request_that_began_later_knows_better():
    quota = Quota()
    started(quota, 2, 0.0)
    quota.tell(RateLimit(2, 30.0), 0.0, 1.0)
    quota.done(1.0)
    quota.done(1.0)
    started(quota, 1, 2.0)
    assert quota.opens_at(2.0) == 31.0
    assert quota.tell(RateLimit(9, 30.0), 2.0, 3.0) is True
    assert quota.opens_at(3.0) <= 3.0


def test_after_a_reset_a_single_request_asks_how_much_there_is():
    quota = Quota()
    started(quota, 1, 0.0)
    quota.tell(RateLimit(0, 10.0), 0.0, 0.0)
    quota.done(0.0)
    started(quota, 1, 10.0)
    assert quota.opens_at(10.0) == 15.0
    assert quota.tell(RateLimit(4, 10.0), 10.0, 10.5) is True
    quota.done(10.5)
    started(quota, 4, 10.5)
    assert quota.opens_at(10.5) == 20.5


def test_who_is_not_told_any_more_is_free_after_a_few_requests():
    quota = Quota()
    started(quota, 1, 0.0)
    quota.tell(RateLimit(0, 10.0), 0.0, 0.0)
    quota.done(0.0)
    for number in range(3):
        started(quota, 1, 10.0 + number)
        assert quota.opens_at(10.0 + number) > 10.0 + number
        assert quota.done(10.5 + number) is True
    started(quota, 100, 13.0)


def test_an_answer_that_does_not_come_holds_nothing_up_for_long():
    quota = Quota()
    started(quota, 1, 0.0)
    quota.tell(RateLimit(0, 10.0), 0.0, 0.0)
    started(quota, 1, 10.0)
    assert quota.opens_at(14.0) == 15.0
    started(quota, 1, 15.0)
    assert quota.opens_at(15.0) == 20.0


@pytest.mark.parametrize(("reset", "until"), [(0.0, 1.0), (1e9, LONGEST_TOLD), (math.inf, LONGEST_TOLD)])
def test_a_reset_is_neither_now_nor_never(reset: float, until: float):
    quota = Quota()
    started(quota, 1, 0.0)
    quota.tell(RateLimit(0, reset), 0.0, 0.0)
    assert quota.opens_at(0.0) == until


def test_what_is_told_and_what_is_configured_hold_both():
    quota = Quota([Allowance(2, 60)])
    started(quota, 1, 0.0)
    quota.tell(RateLimit(100, 10.0), 0.0, 0.0)
    started(quota, 1, 0.0)
    assert quota.opens_at(0.0) > 59


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 20))
def test_a_server_is_never_asked_for_more_once_it_has_said_what_is_left(seed, concurrency, limit):
    """A server that enforces and counts: fixed windows of ten seconds, answers late and in any order."""
    chance, quota = random.Random(seed), Quota()
    in_flight: list[tuple[float, float, float, int]] = []  # when it ends, began, arrived, and which one of its window
    used: Counter[int] = Counter()
    now, known, over = 0.0, math.inf, 0
    for _ in range(400):
        if len(in_flight) < concurrency and quota.opens_at(now) <= now:
            quota.take(now)
            arrives = now + chance.random() * 0.01
            used[int(arrives // 10)] += 1
            count = used[int(arrives // 10)]
            over += count > limit and now > known
            heappush(in_flight, (arrives + chance.random() * 0.3, now, arrives, count))
            now += 0.011
        elif in_flight:
            ends, began, arrived, count = heappop(in_flight)
            now = max(now, ends)
            reset = math.ceil((arrived // 10 + 1) * 10 - arrived)
            quota.tell(RateLimit(max(0, limit - count), float(reset)), began, now)
            quota.done(now)
            known = min(known, now)
        else:
            now = quota.opens_at(now)
    assert not over
    assert now > 10
