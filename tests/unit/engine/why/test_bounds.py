"""What bounds the throughput, told from constructed looks."""

from __future__ import annotations

import json
import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config.schema import json_schema
from fetcher.engine.why.advice import ADVICE, OF_SERVICE, USUAL, Bound
from fetcher.engine.why.bounds import (
    _LEAST_LOOKS,
    _MOST_CAUSES,
    _MOST_KEPT,
    _OPENING,
    AtWork,
    HeldBack,
    Looks,
    Sample,
    Service,
    attribute,
    findings,
    strain,
    verdict,
)
from fetcher.service.settings import ServiceConfig
from fetcher.transports.watchdog import Phase

ALLOWED = 100
QUICK, LONG = USUAL / 5, USUAL * 4


def at_work(count, phase=Phase.FIRST_BYTE, seconds=QUICK, host="h.test"):
    return [AtWork(phase, seconds, host)] * count


def held(why, jobs=1000, host="h.test"):
    return [HeldBack(why, host, jobs)]


def slots_of(sample):
    return attribute([sample])[0]


def shares(*samples):
    """Return what one look at engines tells."""
    looks = Looks()
    looks.add(samples, 0)
    return {one.bound: one.share for one in looks.findings()}


def first(sample):
    return findings(slots_of(sample))[0]


@pytest.mark.parametrize(
    ("sample", "bound", "whom"),
    [
        (
            Sample(allowed=ALLOWED, at_work=at_work(8), held_back=held(Bound.HOST_LIMITS), queued=5000),
            Bound.HOST_LIMITS,
            "h.test",
        ),
        (Sample(allowed=ALLOWED, at_work=at_work(1), held_back=held(Bound.RATE), queued=5000), Bound.RATE, "h.test"),
        (Sample(allowed=ALLOWED, held_back=held(Bound.BREAKER), queued=5000), Bound.BREAKER, "h.test"),
        (
            Sample(allowed=ALLOWED, at_work=at_work(ALLOWED), startable=500, queued=5000, batch="b"),
            Bound.CONCURRENCY,
            "b",
        ),
        # That other hosts hold jobs back does not matter while all slots are taken and others could start.
        (
            Sample(allowed=2, at_work=at_work(2), startable=1, held_back=held(Bound.RATE), queued=9, batch="b"),
            Bound.CONCURRENCY,
            "b",
        ),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, seconds=LONG), startable=500), Bound.ORIGIN, "h.test"),
        (
            Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.BODY, LONG), startable=500),
            Bound.TRANSFER,
            "h.test",
        ),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.DNS), startable=500), Bound.DNS, "h.test"),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.CONNECT), startable=500), Bound.CONNECT, "h.test"),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.TLS), startable=500), Bound.TLS, "h.test"),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.PROXY), startable=500), Bound.PROXY, "h.test"),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.ROBOTS), startable=500), Bound.ROBOTS, "h.test"),
        (Sample(allowed=ALLOWED, at_work=at_work(ALLOWED, Phase.TOKEN), startable=500), Bound.TOKEN, "h.test"),
        (
            Sample(allowed=ALLOWED, at_work=at_work(10), startable=500, waits_for_service=True),
            Bound.SERVICE,
            None,
        ),
        (Sample(allowed=ALLOWED, at_work=at_work(3), startable=9, full=["postgres-1"]), Bound.SINK, "postgres-1"),
        (Sample(allowed=ALLOWED, full=[], queued=1), Bound.SINK, "the queue"),
        (Sample(allowed=ALLOWED, at_work=at_work(4), reading=True, batch="b"), Bound.SOURCE, "b"),
        (Sample(allowed=ALLOWED, at_work=at_work(4), queued=70, batch="b"), Bound.QUEUE, "b"),
        (Sample(allowed=ALLOWED, queued=70, delayed=True, batch="b"), Bound.RETRIES, "b"),
        (Sample(allowed=ALLOWED, at_work=at_work(90), startable=500, queued=5000, strain=1.0), Bound.CPU, None),
        # Whom nobody waits for is the end of the batch: what is left is with the origins.
        (Sample(allowed=ALLOWED, at_work=at_work(3, seconds=LONG)), Bound.ORIGIN, "h.test"),
    ],
)
def test_names_what_most_slots_wait_for(sample, bound, whom):
    found = first(sample)
    assert found.bound is bound
    assert found.share > 0.5
    assert (found.details[0].rpartition(" (")[0] if found.details else None) == whom


def test_a_strained_process_is_no_reason_for_what_hosts_forbid():
    sample = Sample(allowed=ALLOWED, at_work=at_work(5), held_back=held(Bound.RATE), queued=5000, strain=1.0)
    found = findings(slots_of(sample))
    assert [(one.bound, round(one.share, 2)) for one in found] == [(Bound.RATE, 0.95), (Bound.CPU, 0.05)]


def test_what_few_jobs_of_a_host_hold_back_leaves_the_rest_to_the_source():
    sample = Sample(allowed=ALLOWED, held_back=held(Bound.HOST_LIMITS, jobs=20), reading=True)
    found = {one.bound: one.share for one in findings(slots_of(sample))}
    assert found == {Bound.SOURCE: pytest.approx(0.8), Bound.HOST_LIMITS: pytest.approx(0.2)}


def test_at_the_end_of_a_batch_idle_slots_do_not_count():
    assert slots_of(Sample(allowed=ALLOWED)) == {}
    assert sum(slots_of(Sample(allowed=ALLOWED, at_work=at_work(3))).values()) == 3


def test_hosts_that_take_all_slots_share_the_blame_with_the_concurrency():
    sample = Sample(allowed=8, at_work=at_work(8), held_back=held(Bound.HOST_LIMITS), queued=100)
    found = {one.bound: one.share for one in findings(slots_of(sample))}
    assert found == {Bound.CONCURRENCY: 0.5, Bound.HOST_LIMITS: 0.5}


REQUESTS = st.builds(AtWork, st.sampled_from([*Phase, "unheard of"]), st.floats(0, 60), st.sampled_from("abc"))
HELD = st.builds(HeldBack, st.sampled_from([Bound.HOST_LIMITS, Bound.RATE]), st.sampled_from("abc"), st.integers(1, 99))


@given(
    st.builds(
        Sample,
        batch=st.just("b"),
        allowed=st.integers(1, 50),
        at_work=st.lists(REQUESTS, max_size=60),
        startable=st.integers(0, 100),
        held_back=st.lists(HELD, max_size=5),
        waits_for_service=st.booleans(),
        full=st.none() | st.lists(st.sampled_from("xyz"), max_size=2),
        queued=st.integers(0, 100),
        delayed=st.booleans(),
        reading=st.booleans(),
        strain=st.floats(0, 1),
    )
)
def test_every_slot_is_counted_once_or_has_nothing_to_do(sample):
    found = slots_of(sample)
    slots = sum(found.values())
    most = max(sample.allowed, len(sample.at_work))
    assert slots <= most + 1e-6
    if sample.queued >= most or sample.reading or sample.full is not None:
        assert slots == pytest.approx(most)
    else:
        assert slots >= len(sample.at_work) - 1e-6
    if found:
        assert sum(one.share for one in findings(found)) == pytest.approx(1)


def test_looks_forget_what_was_before_their_window():
    looks = Looks(window=10)
    looks.add([Sample(allowed=1, held_back=held(Bound.RATE), queued=1)], 0)
    assert looks.findings()[0].bound is Bound.RATE
    for now in range(1, 12):
        looks.add([Sample(allowed=1, reading=True)], now)
    assert [one.bound for one in looks.findings()] == [Bound.SOURCE]
    assert looks.seconds(11) == 10


def test_looks_without_a_window_keep_the_sum_of_all_the_time():
    looks = Looks(window=inf)
    for now in range(1000):
        hosts = [HeldBack(Bound.RATE, f"h{now}-{number}.test", 1) for number in range(50)]
        looks.add([Sample(allowed=10, held_back=hosts, queued=1), Sample(allowed=10, reading=True)], now)
    found = {one.bound: one.share for one in looks.findings()}
    assert found == {Bound.RATE: pytest.approx(0.5), Bound.SOURCE: pytest.approx(0.5)}
    assert looks.seconds(999) == 999
    assert len(looks._looks) == 0
    assert len(looks._total) <= _MOST_CAUSES


def test_looks_weigh_engines_by_their_slots():
    looks = Looks()
    looks.add(
        [
            Sample(batch="a", allowed=75, held_back=held(Bound.RATE), queued=100),
            Sample(batch="b", allowed=25, reading=True),
        ],
        0,
    )
    assert [(one.bound, one.share) for one in looks.findings()] == [(Bound.RATE, 0.75), (Bound.SOURCE, 0.25)]


def test_looks_at_a_million_hosts_stay_small():
    looks = Looks(window=30)
    for second in range(60):
        hosts = [HeldBack(Bound.RATE, f"h{second}-{number}.test", 1) for number in range(1000)]
        looks.add([Sample(allowed=1000, held_back=[*hosts, HeldBack(Bound.RATE, "most.test", 9)], queued=1)], second)
    kept = [cause for _, seen in looks._looks for causes in seen.values() for cause in causes]
    assert len(kept) <= 31 * (_MOST_KEPT + 1)
    found = looks.findings()
    assert sum(one.share for one in found) == pytest.approx(1)
    assert found[0].details[0].startswith("most.test (")


FULL = Service(allowed=ALLOWED, free=0)


def at_its_most(**more):
    """Return a look at a batch that has all slots of the service."""
    return Sample(
        batch="busy", allowed=ALLOWED, at_work=at_work(ALLOWED), startable=500, queued=5000, service=FULL, **more
    )


@pytest.mark.parametrize(
    ("allowed", "service", "bound"),
    [(3, 3, Bound.SERVICE), (3, 100, Bound.CONCURRENCY), (3, None, Bound.CONCURRENCY)],
)
def test_the_concurrency_that_binds_is_named_with_whom_it_belongs_to(allowed, service, bound):
    slots = None if service is None else Service(service, service - allowed)
    found = first(Sample(allowed=allowed, at_work=at_work(allowed), startable=50, queued=500, service=slots))
    assert found.bound is bound
    assert found.share == 1
    assert ("in the config of the service" in found.advice) is (bound is Bound.SERVICE)


@pytest.mark.parametrize("bound", OF_SERVICE)
@pytest.mark.parametrize("by_service", [True, False])
def test_what_a_host_may_be_asked_for_is_advised_on_where_it_is_configured(bound, by_service):
    held_back = [HeldBack(bound, "h.test", 1000, by_service), HeldBack(bound, "o.test", 10, not by_service)]
    found = first(Sample(allowed=ALLOWED, held_back=held_back, queued=5000))
    assert found.bound is bound
    assert found.share == 1
    assert ("in the config of the service" in found.advice) is by_service


def test_a_batch_that_waits_for_its_host_does_not_outweigh_one_that_has_all_slots():
    waits = Sample(
        batch="waits", allowed=ALLOWED, at_work=at_work(1), held_back=held(Bound.RATE), queued=99, service=FULL
    )
    found = shares(at_its_most(), waits)
    assert found == {Bound.SERVICE: pytest.approx(100 / 101), Bound.RATE: pytest.approx(1 / 101)}


def test_a_few_jobs_of_a_dead_host_do_not_count_while_no_slot_is_free():
    dead = Sample(batch="dead", allowed=ALLOWED, held_back=held(Bound.BREAKER, jobs=33), service=FULL)
    assert shares(at_its_most(), dead) == {Bound.SERVICE: 1}


def test_batches_have_a_part_of_what_is_free_by_what_each_could_use():
    some_free = Service(allowed=ALLOWED, free=30)
    few = Sample(batch="few", allowed=50, held_back=held(Bound.BREAKER, jobs=20), service=some_free)
    many = Sample(batch="many", allowed=ALLOWED, held_back=held(Bound.RATE), queued=99, service=some_free)
    alone = Sample(batch="ended", allowed=ALLOWED, service=some_free)
    slots = [sum(causes.values()) for causes in attribute([few, many, alone])]
    assert slots == [pytest.approx(5), pytest.approx(25), 0]


def test_jobs_that_could_start_wait_for_the_service_if_it_has_no_slot_free():
    samples = [
        Sample(batch=name, allowed=4, at_work=at_work(2), startable=50, queued=99, service=Service(4, 0))
        for name in "ab"
    ]
    assert shares(*samples) == {Bound.SERVICE: 1}


def test_what_the_last_jobs_can_not_fill_is_not_kept_idle_by_their_host():
    sample = Sample(allowed=ALLOWED, held_back=held(Bound.BREAKER, jobs=20), queued=13)
    assert slots_of(sample) == {(Bound.BREAKER, "h.test", False): 20}


def test_a_look_counts_the_same_however_much_is_in_flight():
    looks = Looks()
    for now in range(5):
        looks.add([Sample(allowed=1000, at_work=at_work(1000), startable=1, batch="b")], now)
        looks.add([Sample(allowed=1000, at_work=at_work(1, seconds=LONG), batch="b")], now + 0.5)
    assert {one.bound: one.share for one in looks.findings()} == {
        Bound.CONCURRENCY: pytest.approx(0.5),
        Bound.ORIGIN: pytest.approx(0.5),
    }


def test_of_a_batch_that_has_ended_nothing_is_told():
    looks = Looks()
    small = Sample(batch="small", allowed=1, reading=True)
    large = Sample(batch="large", allowed=1000, held_back=held(Bound.RATE), queued=5000)
    for now in range(5):
        looks.add([small, large], now)
    assert looks.findings()[0].bound is Bound.RATE
    looks.add([small], 5)
    assert [(one.bound, one.share) for one in looks.findings()] == [(Bound.SOURCE, 1)]
    looks.add([], 6)
    assert looks.findings() == []
    assert looks.seconds(6) == 0


def test_a_batch_of_the_same_name_is_another_one():
    looks = Looks()
    looks.add([Sample(batch="b", since=0, allowed=100, held_back=held(Bound.RATE), queued=500)], 0)
    looks.add([Sample(batch="b", since=1, allowed=1, reading=True)], 1)
    assert [one.bound for one in looks.findings()] == [Bound.SOURCE]
    assert looks.seconds(2) == 1


def test_rare_looks_are_kept_for_longer_than_their_window():
    looks = Looks(window=1)
    for now in range(100):
        looks.add([Sample(allowed=1, reading=True)], now)
    assert looks.seconds(99) == _LEAST_LOOKS - 1


@pytest.mark.parametrize("queued", [1, 1000])
def test_a_queue_is_not_slow_because_it_has_just_been_opened(queued):
    sample = Sample(allowed=ALLOWED, at_work=at_work(1), queued=queued, since=7)
    assert attribute([sample], 7 + _OPENING / 2) == [{}]
    found = findings(attribute([sample], 7 + _OPENING)[0])
    assert [one.bound for one in found] == [Bound.QUEUE]


@pytest.mark.parametrize(
    ("cpu", "late", "took", "expected"),
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.6, 0.001, 0.01, 0.0),
        (0.99, 0.0, 1.0, 1.0),
        (0.825, 0.0, 1.0, 0.5),
        # Late by a tenth of a second: little beside answers that take two, much beside those that take none.
        (0.3, 0.101, 2.0, 0.1),
        (0.3, 0.101, 0.4, 0.5),
        (0.3, 0.101, 0.01, 1.0),
        (0.3, 0.101, 0.0, 0.0),
    ],
)
def test_strain(cpu, late, took, expected):
    assert strain(cpu, late, took) == pytest.approx(expected)


def test_the_verdict_names_the_first_bound_and_whom_it_concerns():
    sample = Sample(allowed=ALLOWED, held_back=held(Bound.HOST_LIMITS, host="slow.test"), queued=1)
    found = findings(slots_of(sample))
    assert verdict(found) == "The throughput is bound by host limits (100%), most of all by slow.test."
    assert verdict([]) == "Nothing is being fetched."
    assert verdict([], engines=1) == "Nothing was seen yet that bounds the throughput."


def test_every_bound_is_explained_with_keys_that_a_config_has():
    assert set(ADVICE) == set(Bound)
    known = json.dumps([json_schema(), json_schema(ServiceConfig)])
    assert all("in the config of the service" in advice for advice in OF_SERVICE.values())
    for explanation, advice in [*ADVICE.values(), *(("It is.", advice) for advice in OF_SERVICE.values())]:
        assert explanation.endswith(".")
        assert advice.endswith(".")
        for path in re.findall(r"\b(?:limits|http|retry|request|body|queue|service|sinks\[\])\.[a-z_.]*[a-z_]", advice):
            for key in path.split(".")[1:]:
                assert f'"{key}": ' in known, path
