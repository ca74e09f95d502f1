"""What is learnt about a host, put together: which limits hold."""

from __future__ import annotations

import pytest

from fetcher.engine.hosts.care import UNLIMITED, Care, Failure
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.engine.hosts.signs import Sign
from fetcher.errors import ErrorKind

URL = "http://a.test/"
CONFIGURED = HostLimits(concurrency=8, rate="100/s")


def make(**limits):
    return Care.begin(LimitSettings(**limits), CONFIGURED)


def failure(sign=Sign.DOWN):
    return Failure(sign, ErrorKind.CONNECT_REFUSED, first=True)


def pause(care, times, now=0.0):
    return [care.pause(URL, failure(), now, now) for _ in range(times)][-1]


def test_a_host_of_which_nothing_is_known_has_the_configured_limits_themselves():
    care = make()
    assert care.limits(CONFIGURED) is CONFIGURED
    assert not care.notable


def test_what_is_stricter_holds():
    care = make()
    care.crawl_delay = 2.0
    assert (care.limits(CONFIGURED).interval, care.limits(CONFIGURED).concurrency) == (2.0, 8)
    care.crawl_delay = 0.001
    assert care.limits(CONFIGURED).interval == 0.01
    for now in range(20):
        care.slower(URL, failure(Sign.REFUSED), float(now), float(now), in_flight=8)
    assert care.limits(CONFIGURED).concurrency == 1
    assert care.limits(CONFIGURED).interval == care.pace.interval > 1
    assert care.limits(CONFIGURED).rate == 100
    assert care.notable


def test_a_paused_host_is_asked_once_and_an_answer_opens_it():
    care = make()
    assert pause(care, 10) == 10.0
    assert care.limits(CONFIGURED).concurrency == 1
    assert care.answered(URL, 10.0, 10.1, None)
    assert care.limits(CONFIGURED) is CONFIGURED
    assert not care.notable


def test_an_answer_ends_a_row_of_failures():
    care = make()
    assert pause(care, 9) is None
    assert not care.answered(URL, 1.0, 1.1, None)
    assert pause(care, 9) is None


def test_a_host_that_was_given_up_has_no_limits_left():
    care = make(breaker={"failures": 1, "give_up": 1, "pause": 1})
    assert pause(care, 1) == 1.0
    assert pause(care, 1, now=1.0) == 0.0
    assert care.limits(CONFIGURED) is UNLIMITED
    assert not care.answered(URL, 2.0, 2.1, None)  # too late
    assert care.limits(CONFIGURED) is UNLIMITED


@pytest.mark.parametrize("sign", [Sign.REFUSED, Sign.PRESSED, Sign.ANSWERED, Sign.NOTHING])
def test_answers_of_any_kind_open_no_breaker(sign):
    care = make(breaker={"failures": 1})
    assert care.pause(URL, failure(sign), 0.0, 0.0) is None
    assert not care.breakers


def test_a_refusal_of_a_probe_proves_that_somebody_is_there():
    care = make()
    assert pause(care, 10) == 10.0
    assert care.slower(URL, failure(Sign.REFUSED), 10.0, 10.1, in_flight=1)
    assert not care.breakers
    assert not care.paused


def test_what_is_off_does_nothing():
    care = make(adapt=False, breaker="off")
    assert pause(care, 1000) is None
    assert not care.slower(URL, failure(Sign.REFUSED), 0.0, 0.0, in_flight=8)
    assert not care.answered(URL, 0.0, 0.0, 1.0)
    assert care.limits(CONFIGURED) is CONFIGURED


def test_a_batch_that_asks_for_less_than_the_config_of_the_process_has_that():
    care = make()
    assert care.limits(HostLimits(concurrency=2, rate="100/s")).concurrency == 2
    assert care.slower(URL, failure(Sign.REFUSED), 0.0, 0.0, in_flight=2)
    assert care.limits(HostLimits(concurrency=2, rate="100/s")).concurrency == 2
    assert care.limits(HostLimits(concurrency=5, rate="100/s")).concurrency < 5


def test_other_settings_keep_what_has_been_learnt_as_far_as_they_have_a_place_for_it():
    care = make()
    care.slower(URL, failure(Sign.REFUSED), 0.0, 0.0, in_flight=8)
    reduced = care.pace.concurrency
    assert reduced < 8
    assert pause(care, 10) == 10.0
    care.follow(LimitSettings(breaker={"pause": "3s"}), HostLimits(concurrency=20))
    assert (care.paused, len(care.breakers), care.pace.concurrency, care.pace.ceiling) == (True, 1, reduced, 20)
    care.follow(LimitSettings(adapt=False, breaker="off"), HostLimits(concurrency=20))
    assert care.limits(HostLimits(concurrency=20)).concurrency == 20
    care.follow(LimitSettings(), HostLimits(concurrency=3))
    assert (care.pace.concurrency, care.rules) == (3, LimitSettings().breaker)
