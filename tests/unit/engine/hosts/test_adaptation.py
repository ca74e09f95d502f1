"""How a host that has trouble is asked for less, and one that has none is not; over minutes, simulated."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.engine.simulated_host import ask

from fetcher.engine.hosts.adaptation import Pace
from fetcher.engine.hosts.signs import Sign


def make(ceiling=8):
    return Pace(ceiling, ceiling)


def lowest(asked, since=0.0):
    return min([limit for when, limit in asked.limits if when >= since] + [asked.at(since)])


# Hosts that keep up


def mixed(chance):
    return lambda _now, _n: (Sign.ANSWERED, chance.choice([0.02, 0.02, 0.1, 3.0]))


def heavy_tailed(chance):
    return lambda _now, _n: (Sign.ANSWERED, 0.05 * chance.paretovariate(1.2))


@pytest.mark.parametrize(
    "host",
    [
        lambda now, n: (Sign.ANSWERED, 0.02),
        lambda now, n: (Sign.ANSWERED, 5.0),
        lambda now, n: (Sign.ANSWERED, 0.2 + 0.005 * n),
        lambda now, n: (Sign.ANSWERED, 0.3 if now < 60 else 0.7),
        lambda now, n: (Sign.ANSWERED, 0.02 if now < 60 else 0.3),
        mixed(random.Random(1)),
        heavy_tailed(random.Random(1)),
        # Drifts from fast to slow over minutes, as a crawl does that goes from small pages to large.
        lambda now, n: (Sign.ANSWERED, 0.1 + now / 300),
    ],
    ids=[
        "fast",
        "slow",
        "queues a little",
        "changes a little",
        "slow by no standard",
        "mixed",
        "heavy tailed",
        "drifts",
    ],
)
@pytest.mark.parametrize("ceiling", [1, 2, 8, 100])
def test_a_host_without_trouble_is_never_asked_for_less(host, ceiling):
    asked = ask(make(ceiling), host, 120.0)
    assert asked.limits == [(0.0, ceiling)]


def test_a_host_that_becomes_slow_little_by_little_is_not_asked_for_less():
    asked = ask(make(50), lambda now, n: (Sign.ANSWERED, 0.3 + now / 300), 600.0)
    assert asked.limits == [(0.0, 50)]


def test_a_host_that_became_slow_for_another_reason_than_load_gets_its_concurrency_back():
    asked = ask(make(), lambda now, n: (Sign.ANSWERED, 0.1 if now < 60 else 3.0), 400.0)
    assert lowest(asked) < 8  # it was tried
    assert asked.at(90.0) == 8
    assert lowest(asked, 90.0) == 8


def test_a_few_failures_among_many_answers_are_no_load():
    chance = random.Random(2)
    asked = ask(make(), lambda now, n: (Sign.LOST if chance.random() < 0.1 else Sign.ANSWERED, 0.1), 300.0)
    assert lowest(asked) == 8


def test_pages_that_fail_by_themselves_are_no_load():
    """Every other request fails however few are asked at once, as with a batch of URLs that each fail once."""
    chance = random.Random(2)
    asked = ask(make(), lambda now, n: (Sign.PRESSED if chance.random() < 0.5 else Sign.ANSWERED, 0.05), 300.0)
    assert sum(asked.at(second) for second in range(300)) / 300 > 6


# Hosts that do not


def at_most(capacity, refusing, latency=0.05, refusal=0.005):
    return lambda now, n: (Sign.ANSWERED, latency) if n <= capacity else (refusing, refusal)


@pytest.mark.parametrize("ceiling", [8, 50, 500])
@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_it_comes_to_what_a_host_takes_and_stays_near_it(capacity, ceiling):
    asked = ask(make(ceiling), at_most(capacity, Sign.REFUSED), 120.0)
    answered = asked.count(Sign.ANSWERED, since=20.0)
    assert answered > 0.9 * (100.0 / 0.05) * capacity
    assert asked.share(Sign.REFUSED, since=20.0) < 0.02


def test_a_host_that_says_503_instead_is_asked_for_less_too():
    asked = ask(make(50), at_most(5, Sign.PRESSED), 120.0)
    assert max(asked.at(second) for second in range(20, 120)) <= 12


@pytest.mark.parametrize("per_second", [0.5, 2.0, 20.0])
def test_a_host_that_takes_so_many_a_second_is_asked_about_so_often(per_second):
    tokens, then = [per_second], [0.0]

    def host(now, n):
        tokens[0] = min(max(1.0, per_second), tokens[0] + (now - then[0]) * per_second)
        then[0] = now
        if tokens[0] < 1:
            return Sign.REFUSED, 0.005
        tokens[0] -= 1
        return Sign.ANSWERED, 0.02

    asked = ask(make(), host, 600.0)
    assert asked.count(Sign.ANSWERED, since=60.0) > 0.5 * 540 * per_second
    assert asked.count(Sign.REFUSED, since=60.0) < 0.7 * 540 * max(per_second, 1.0)


def test_one_refusal_costs_no_minutes():
    pace = make()
    asked = ask(pace, lambda now, n: (Sign.REFUSED if 10.0 <= now < 10.03 else Sign.ANSWERED, 0.02), 60.0)
    assert lowest(asked) == 5
    assert asked.at(12.0) == 7
    assert asked.at(22.0) == 8
    assert not pace.reduced


def test_a_host_that_refuses_everything_is_asked_ever_more_rarely_and_soon_as_before_when_it_does_not():
    asked = ask(make(), lambda now, n: (Sign.REFUSED if now < 120 else Sign.ANSWERED, 0.01), 300.0)
    assert asked.count(Sign.REFUSED, since=5.0) < 12
    assert asked.at(240.0) == 8


def test_a_host_that_refuses_from_the_first_request_on_has_been_asked_few_times_after_a_second():
    asked = ask(make(), lambda now, n: (Sign.REFUSED, 0.002), 1.0)
    assert asked.count(Sign.REFUSED) < 30
    pace = make(1)
    assert pace.refused(started=0.0, now=0.1, in_flight=1)
    assert pace.interval == 0.25
    assert pace.refused(started=0.1, now=0.11, in_flight=1)
    assert pace.interval == 0.5


@pytest.mark.parametrize("ceiling", [8, 32])
def test_pages_that_are_refused_for_themselves_are_no_load(ceiling):
    chance = random.Random(3)
    asked = ask(make(ceiling), lambda now, n: (Sign.REFUSED if chance.random() < 0.05 else Sign.ANSWERED, 0.02), 60.0)
    assert sum(asked.at(second) for second in range(60)) / 60 > ceiling / 2
    assert asked.count(Sign.ANSWERED) > 60 * 50 * ceiling / 3


def test_what_is_left_at_the_end_of_a_batch_may_be_refused_again():
    pace = make(32)
    for _ in range(500):
        pace.answered(0.0, 0.1, None)
    assert not any(pace.refused(1.0, 1.0 + n / 10, 5, first=False) for n in range(75))
    # Pages that nobody has asked for before say more.
    assert [pace.refused(20.0, 20.0, 5) for _ in range(3)] == [False, False, True]


def test_a_host_that_asks_for_rest_is_asked_as_before_after_it_and_for_less_if_it_refuses_at_once():
    pace = make()
    assert not pace.refused(1.0, 1.1, 8, rest=2.0)
    assert not pace.refused(1.0, 1.2, 8, rest=2.0)  # began before
    assert pace.concurrency == 8
    pace.answered(3.2, 3.3, 0.1)
    assert not pace.refused(3.2, 3.4, 8, rest=2.0)
    assert pace.concurrency == 8
    assert pace.refused(5.5, 5.6, 8, rest=2.0)
    assert pace.concurrency == 5


def test_a_host_that_refuses_whatever_it_is_asked_is_hopeless_and_no_other_is():
    pace = make()
    ask(pace, lambda now, n: (Sign.REFUSED, 0.01), 30.0)
    assert not pace.hopeless
    ask(pace, lambda now, n: (Sign.REFUSED, 0.01), 120.0)
    assert pace.hopeless
    resting, now = make(), 0.0
    while not resting.hopeless:
        resting.refused(now, now, 8, rest=60.0)
        now += 60.0
    assert now <= 600.0


def test_requests_that_were_under_way_do_not_slow_down_twice():
    pace = make()
    assert pace.refused(started=0.0, now=1.0, in_flight=8)
    after = pace.limit
    for _ in range(7):
        assert not pace.refused(started=0.5, now=1.5, in_flight=8)
    assert pace.limit == after
    assert pace.refused(started=1.2, now=1.5, in_flight=8)
    assert pace.limit < after


def test_a_limit_that_was_not_used_up_is_not_what_was_too_much():
    full, few = make(10), make(10)
    assert full.refused(started=0.0, now=1.0, in_flight=10)
    assert few.refused(started=0.0, now=1.0, in_flight=1)
    assert (full.concurrency, few.concurrency) == (7, 3)


def test_queueing_at_the_host_is_seen_and_relieved():
    """The host works on one request at a time, one second each: all that more does is wait."""
    asked = ask(make(16), lambda now, n: (Sign.ANSWERED, 1.0 * n if now > 30 else 0.1), 300.0)
    assert lowest(asked, 60.0) <= 8


def test_a_trial_that_does_not_help_is_taken_back_in_full():
    pace = make()
    pace.base, pace.low, pace.samples = 0.1, 3.0, 100
    assert pace.answered(9.0, 10.0, 3.0)
    assert pace.concurrency == 5
    for n in range(40):
        pace.answered(10.0 + n / 10, 13.0 + n / 10, 2.9)
    assert pace.concurrency == 8
    assert pace.base == 2.9


SIGNS = st.sampled_from([Sign.ANSWERED, Sign.REFUSED, Sign.PRESSED])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 1000),
    st.lists(st.tuples(SIGNS, st.floats(0, 100), st.floats(0, 10), st.integers(0, 1000)), max_size=200),
)
def test_whatever_happens_the_pace_stays_within_its_bounds(ceiling, ends):
    pace, now = make(ceiling), 0.0
    for sign, latency, gap, in_flight in ends:
        now += gap
        before = (pace.limit, pace.interval)
        if sign is Sign.ANSWERED:
            changed = pace.answered(now - latency, now, latency)
        elif sign is Sign.REFUSED:
            changed = pace.refused(now - latency, now, in_flight)
        else:
            changed = pace.pressed(now - latency, now, in_flight)
        assert 1 <= pace.concurrency <= ceiling
        assert 0 <= pace.interval <= 30
        assert not pace.interval or pace.limit == 1
        assert changed or before == (pace.limit, pace.interval)


@pytest.mark.parametrize(("ceiling", "limit"), [(4, 4), (2, 2), (30, 10)])
def test_a_pace_that_was_reduced_stays_so_under_another_ceiling(ceiling, limit):
    pace = make(20)
    pace.limit = 10.0
    pace.aim(ceiling)
    assert (pace.ceiling, pace.concurrency) == (ceiling, limit)
    assert pace.reduced is (limit < ceiling)


def test_a_pace_that_was_not_reduced_goes_where_its_ceiling_goes():
    pace = make(20)
    for ceiling in (50, 3, 8):
        pace.aim(ceiling)
        assert (pace.concurrency, pace.reduced) == (ceiling, False)


def test_a_trial_that_ends_under_a_lower_ceiling_goes_no_higher():
    pace = make(20)
    pace.on_trial, pace.limit, pace.low, pace.samples = (1.0, 20.0), 14.0, 1.0, 16
    pace.aim(6)
    assert pace._judge_latency(99.0)
    assert pace.concurrency == 6
