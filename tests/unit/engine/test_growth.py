"""``concurrency: auto`` on simulated targets: it finds the knee, and does no harm where there is none."""

from __future__ import annotations

import random

import pytest

from fetcher.engine.growth import LEAST_AUTO, MOST_AUTO, Growth, Sample


def run(target, seconds=300, growth=None, hosts_allow=10_000):
    """Let a controller run on ``target(in_flight, now) -> (good, bad, cpu)`` per second; return every concurrency."""
    growth, history = growth or Growth(), []
    for second in range(seconds):
        in_flight = min(growth.concurrency, hosts_allow)
        good, bad, cpu = target(in_flight, second)
        history.append(growth.update(Sample(good, bad, in_flight, cpu), float(second)))
        assert LEAST_AUTO <= growth.concurrency <= MOST_AUTO
    return history


def knee(at, latency=0.1, noise=0.0):
    """A target that gets no faster beyond ``at`` in flight."""
    chance = random.Random(1)

    def target(in_flight, _now):
        rate = min(in_flight, at) / latency * (1 + noise * chance.uniform(-1, 1))
        return int(rate), 0, 0.2

    return target


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("at", [20, 60, 200, 700])
def test_it_finds_the_knee_and_stays_there(at, noise):
    history = run(knee(at, noise=noise))
    late = sorted(history[100:])
    middle = late[len(late) // 2]
    assert 0.65 * at <= middle <= 1.6 * at


def test_it_grows_as_far_as_it_may_while_that_helps():
    assert run(knee(5000))[60] == MOST_AUTO


def test_it_starts_quickly():
    assert run(knee(5000))[20] >= 100


def test_it_does_not_grow_if_hosts_are_what_limits():
    assert set(run(knee(5000), hosts_allow=8)) == {20}


def test_it_does_not_grow_while_this_process_is_at_its_limit():
    assert set(run(lambda n, _now: (n * 10, 0, 0.97))) == {20}


def test_a_step_that_brings_errors_is_taken_back():
    def target(in_flight, _now):
        bad = in_flight * 5 if in_flight > 50 else 0
        return in_flight * 10, bad, 0.2

    history = run(target)
    assert sum(value > 50 for value in history[30:]) < 0.3 * len(history[30:])


def test_errors_that_come_later_bring_it_down():
    def target(in_flight, now):
        if now <= 60:
            return in_flight * 10, 0, 0.2
        return min(in_flight, 100) * 10, max(0, in_flight - 100) * 10, 0.2

    history = run(target)
    assert history[60] > 300
    late = sorted(history[120:])
    assert late[len(late) // 2] <= 150


def test_errors_that_have_nothing_to_do_with_it_do_not_bring_it_down_to_nothing():
    history = run(lambda n, _now: (n * 5, n * 5, 0.2))
    assert history[-1] > 100


def test_a_target_that_answers_nothing_for_long_is_left_as_it_is():
    assert set(run(lambda _n, _now: (0, 0, 0.1))) == {20}
