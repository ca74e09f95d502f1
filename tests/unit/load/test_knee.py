"""The search finds the knee of targets whose capacity is known."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.load.simulated import SimulatedTarget, search

from fetcher.load.knee import Goal, Trial, Try, Verdict, levels_of, next_step, noise_of


def near(knee, slots):
    return abs(knee - slots) <= 0.2 * slots


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 37, 100, 177])
@pytest.mark.parametrize("service", [0.001, 2.0])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_it_finds_the_knee_of_a_queue(slots, service, jitter):
    for seed in range(3):
        # Few slots answer little in a window; what is measured there is longer for it.
        target = SimulatedTarget(slots, service, jitter, seed=seed * 100, window=max(40, 1000 / slots))
        verdict, trials = search(target.trial, Goal())
        assert near(verdict.knee, slots), (slots, service, jitter, seed, verdict, trials)


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 13, 20, 37, 64, 100, 300, 500])
def test_it_finds_the_knee_through_noise(slots):
    for seed in range(40):
        chance = random.Random(seed)

        def measure(concurrency, chance=chance):
            throughput = min(concurrency, slots) * chance.gauss(1, 0.02)
            return Trial(concurrency=concurrency, throughput=throughput)

        verdict, trials = search(measure, Goal())
        assert near(verdict.knee, slots), (slots, seed, verdict, trials)


@given(slots=st.integers(1, 3000), most=st.integers(1, 2000), breaks=st.integers(0, 3000))
@settings(max_examples=300)
def test_it_always_ends_with_something_acceptable(slots, most, breaks):
    def measure(concurrency):
        return Trial(
            concurrency=concurrency,
            throughput=min(concurrency, slots),
            error_rate=0.5 if concurrency > breaks else 0.0,
        )

    verdict, trials = search(measure, Goal(max_concurrency=most))
    assert all(1 <= trial.concurrency <= most for trial in trials)
    if not breaks:
        assert verdict.knee is None
        return
    limit = min(slots, most, breaks)
    assert verdict.knee <= min(most, breaks)
    assert 0.8 * limit <= verdict.knee <= max(1.2 * limit, limit + 1)


@given(st.lists(st.floats(0, 1e6), min_size=50, max_size=50), st.lists(st.floats(0, 1), min_size=50, max_size=50))
def test_whatever_is_measured_the_search_is_bounded(throughputs, errors):
    values = iter(zip(throughputs, errors, strict=True))

    def measure(concurrency):
        throughput, error_rate = next(values)
        return Trial(concurrency=concurrency, throughput=throughput, error_rate=error_rate, p99=throughput)

    verdict, trials = search(measure, Goal(max_p99=1e5))
    assert len(trials) <= Goal().max_trials
    assert verdict.knee is None or verdict.knee in {trial.concurrency for trial in trials}


def test_latency_bounds_the_knee():
    target = SimulatedTarget(slots=50, service=0.01)

    def measure(concurrency):
        trial = target.trial(concurrency)
        # Every worker makes the others a little slower, long before the slots are full.
        p99 = trial.p99 * (1 + concurrency / 10)
        return Trial(concurrency=concurrency, throughput=trial.throughput, p99=p99)

    verdict, _ = search(measure, Goal(max_p99=0.03))
    assert 16 <= verdict.knee <= 20
    assert "p99" in verdict.why


def test_errors_bound_the_knee():
    target = SimulatedTarget(slots=100, service=0.01, breaks=30)
    verdict, trials = search(target.trial, Goal())
    assert 25 <= verdict.knee <= 30
    assert "errors" in verdict.why
    assert max(trial.concurrency for trial in trials) == 32


def test_nothing_acceptable_has_no_knee():
    verdict, trials = search(lambda c: Trial(concurrency=c, throughput=0.0, error_rate=1.0), Goal())
    assert verdict == Verdict(None, "even concurrency 1 gives 100.0% errors, more than 1.0%")
    assert len(trials) == 3


def test_a_target_that_answers_nothing_has_no_knee():
    verdict, _ = search(lambda c: Trial(concurrency=c, throughput=0.0), Goal(max_concurrency=4))
    assert verdict.knee is None


def test_a_target_faster_than_the_most_that_may_be_tried():
    verdict, trials = search(lambda c: Trial(concurrency=c, throughput=c), Goal(max_concurrency=100))
    assert 95 <= verdict.knee <= 100
    assert "100, the most that may be tried" in verdict.why
    assert max(trial.concurrency for trial in trials) == 100


def test_one_bad_moment_does_not_end_the_search():
    bad = iter([True])

    def measure(concurrency):
        hiccup = concurrency == 8 and next(bad, False)
        if hiccup:
            return Trial(concurrency=concurrency, throughput=0.0, error_rate=1.0)
        return Trial(concurrency=concurrency, throughput=min(concurrency, 64))

    verdict, _ = search(measure, Goal())
    assert near(verdict.knee, 64)


def test_it_is_pure():
    trials = [Trial(concurrency=1, throughput=10.0)]
    assert next_step(trials, Goal()) == next_step(list(trials), Goal()) == Try(2, "throughput still grows")
    assert next_step([], Goal()) == Try(1, "the start")


def test_trials_of_one_concurrency_count_by_their_median():
    trials = [Trial(concurrency=4, throughput=value, p99=value) for value in (10.0, 90.0, 12.0)]
    (level,) = levels_of(trials)
    assert (level.throughput, level.p99, level.trials) == (12.0, 12.0, 3)


def test_noise_is_learnt_from_repeats():
    quiet = [Trial(concurrency=4, throughput=100.0)] * 10
    loud = [Trial(concurrency=4, throughput=value) for value in (50.0, 150.0) * 5]
    assert noise_of(quiet) < noise_of([]) < noise_of(loud)
