"""What bounds the throughput, told from constructed looks."""

from __future__ import annotations

import json
import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config.schema import json_schema
from fetcher.engine.advice import ADVICE, USUAL, Bound
from fetcher.engine.bounds import (
    _MOST_KEPT,
    AtWork,
    HeldBack,
    Looks,
    Sample,
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


def first(sample):
    return findings(attribute(sample))[0]


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
    found = findings(attribute(sample))
    assert [(one.bound, round(one.share, 2)) for one in found] == [(Bound.RATE, 0.95), (Bound.CPU, 0.05)]


def test_what_few_jobs_of_a_host_hold_back_leaves_the_rest_to_the_source():
    sample = Sample(allowed=ALLOWED, held_back=held(Bound.HOST_LIMITS, jobs=20), reading=True)
    found = {one.bound: one.share for one in findings(attribute(sample))}
    assert found == {Bound.SOURCE: pytest.approx(0.8), Bound.HOST_LIMITS: pytest.approx(0.2)}


def test_at_the_end_of_a_batch_idle_slots_do_not_count():
    assert attribute(Sample(allowed=ALLOWED)) == {}
    assert sum(attribute(Sample(allowed=ALLOWED, at_work=at_work(3))).values()) == 3


def test_hosts_that_take_all_slots_share_the_blame_with_the_concurrency():
    sample = Sample(allowed=8, at_work=at_work(8), held_back=held(Bound.HOST_LIMITS), queued=100)
    found = {one.bound: one.share for one in findings(attribute(sample))}
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
    found = attribute(sample)
    slots = sum(found.values())
    most = max(sample.allowed, len(sample.at_work))
    assert slots <= most + 1e-6
    if sample.queued or sample.reading or sample.full is not None:
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
    assert [(one.bound, pytest.approx(0.5)) for one in looks.findings()] == [(Bound.RATE, 0.5), (Bound.SOURCE, 0.5)]
    assert looks.seconds(999) == 999
    assert len(looks._buckets) == 1
    assert len(looks._buckets[0][1]) < 100


def test_looks_weigh_engines_by_their_slots():
    looks = Looks()
    looks.add(
        [
            Sample(allowed=75, held_back=held(Bound.RATE), queued=100),
            Sample(allowed=25, reading=True),
        ],
        0,
    )
    assert [(one.bound, one.share) for one in looks.findings()] == [(Bound.RATE, 0.75), (Bound.SOURCE, 0.25)]


def test_looks_at_a_million_hosts_stay_small():
    looks = Looks(window=30)
    for second in range(60):
        hosts = [HeldBack(Bound.RATE, f"h{second}-{number}.test", 1) for number in range(1000)]
        looks.add([Sample(allowed=1000, held_back=[*hosts, HeldBack(Bound.RATE, "most.test", 9)], queued=1)], second)
    kept = [cause for _, bucket in list(looks._buckets)[:-1] for cause in bucket]
    assert len(kept) <= 31 * (_MOST_KEPT + 1)
    found = looks.findings()
    assert sum(one.share for one in found) == pytest.approx(1)
    assert found[0].details[0].startswith("most.test (")


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
    found = findings(attribute(sample))
    assert verdict(found) == "The throughput is bound by host limits (100%), most of all by slow.test."
    assert verdict([]) == "Nothing is being fetched."


def test_every_bound_is_explained_with_keys_that_a_config_has():
    assert set(ADVICE) == set(Bound)
    known = json.dumps([json_schema(), json_schema(ServiceConfig)])
    for explanation, advice in ADVICE.values():
        assert explanation.endswith(".")
        assert advice.endswith(".")
        for path in re.findall(r"\b(?:limits|http|retry|request|body|queue|service|sinks\[\])\.[a-z_.]*[a-z_]", advice):
            for key in path.split(".")[1:]:
                assert f'"{key}": ' in known, path
