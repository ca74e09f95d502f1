"""Once a second: is this process itself too busy, and how many requests may be in flight."""

from __future__ import annotations

import pytest

from fetcher.engine.growth import Growth
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.pulse import Pulse
from fetcher.engine.scheduler import Scheduler


def make(growth=None):
    scheduler = Scheduler(LimitSettings())
    pulse = Pulse(scheduler, 100, growth)
    pulse.begin(1000.0, 5.0)
    return scheduler, pulse


@pytest.mark.parametrize(
    ("took", "cpu", "strained"),
    [(1.0, 0.1, False), (1.0, 0.69, False), (1.0, 0.75, True), (1.2, 0.1, True), (1.04, 0.1, False)],
    ids=["idle", "busy", "at its limit", "late", "a little late"],
)
def test_a_process_that_is_busy_or_late_is_strained(took, cpu, strained):
    scheduler, pulse = make()
    pulse.beat(1000.0 + took, 5.0 + cpu, 8)
    assert scheduler.strained is strained


def test_it_is_judged_anew_every_time():
    scheduler, pulse = make()
    pulse.beat(1001.0, 5.9, 8)
    assert scheduler.strained
    pulse.beat(1002.0, 6.0, 8)
    assert not scheduler.strained


def test_a_number_stays_as_it_is():
    _, pulse = make()
    for second in range(1, 60):
        pulse.beat(1000.0 + second, 5.0, 100)
        assert pulse.allowed == 100


def test_auto_follows_what_was_answered():
    scheduler, pulse = make(Growth())
    for second in range(1, 30):
        scheduler.answered += pulse.allowed * 10
        pulse.beat(1000.0 + second, 5.0, pulse.allowed)
    assert pulse.allowed > 100


def test_other_limits_hold_at_once_and_auto_goes_on_from_where_it_is():
    _, pulse = make()
    pulse.reconfigure(30, None)
    assert pulse.allowed == 30
    growth = Growth()
    pulse.reconfigure(1000, growth)
    assert pulse.allowed == growth.concurrency
    growth.concurrency = pulse.allowed = 77
    pulse.reconfigure(1000, Growth())
    assert pulse.allowed == 77
    pulse.reconfigure(5, None)
    pulse.beat(1001.0, 5.0, 5)
    assert pulse.allowed == 5
