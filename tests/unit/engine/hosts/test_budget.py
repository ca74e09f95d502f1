"""Retries of retries are bounded by what goes well, and a little more."""

from __future__ import annotations

from fetcher.engine.hosts.budget import BURST, PER_SECOND, RATIO, Budget


def spent(budget, count, now=0.0):
    """Return how many of so many retries are within the budget."""
    return sum(budget.spend(now) for _ in range(count))


def test_a_burst_is_free_and_then_time_gives_a_few():
    budget = Budget(0.0)
    assert spent(budget, 1000) == BURST
    assert spent(budget, 1000, now=3.0) == 3 * PER_SECOND
    assert spent(budget, 1000, now=1e6) == BURST


def test_answers_give_a_share():
    budget = Budget(0.0)
    spent(budget, 1000)
    for _ in range(200):
        budget.earn()
    assert abs(spent(budget, 1000) - 200 * RATIO) <= 1


def test_it_never_holds_more_than_the_burst():
    budget = Budget(0.0)
    for _ in range(10_000):
        budget.earn()
    assert spent(budget, 1000) == BURST
