"""Rates, latency and failures of late, on a clock that the test moves."""

from __future__ import annotations

import pytest

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result
from fetcher.service.observing.recent import WINDOW, Rate, Recent


def ok(seconds=0.1, size=100):
    return Result(
        batch="b",
        job_id="1",
        url="http://h.test/",
        outcome=Outcome.OK,
        attempts=1,
        status=200,
        total_s=seconds,
        wire_size=size,
    )


def failed(number=0, **more):
    given = {"batch": "b", "url": f"http://me:secret@h.test/{number}", "error_message": "x" * 5000} | more
    return Result(
        job_id=str(number),
        outcome=Outcome.FAILED,
        attempts=2,
        error_kind=ErrorKind.READ_TIMEOUT,
        body=b"y" * 1000,
        **given,
    )


def test_a_rate_is_that_of_the_last_seconds():
    rate = Rate()
    assert rate.value == 0.0
    rate.update(0, 0.0)
    assert rate.value == 0.0
    for second in range(1, 31):
        rate.update(min(second, 20) * 100, float(second))
    # 100/s until the twentieth second, nothing since: it was a window ago.
    assert rate.value == pytest.approx(0.0)
    rate.update(2500, 31.0)
    assert rate.value == pytest.approx(500 / WINDOW)


def test_a_count_that_begins_anew_is_no_negative_rate():
    rate = Rate()
    rate.update(1000, 0.0)
    rate.update(1100, 1.0)
    rate.update(0, 2.0)
    assert rate.value == 0.0
    rate.update(50, 3.0)
    assert rate.value == pytest.approx(50.0)


def test_counts_go_on_though_only_the_last_minute_is_kept():
    recent = Recent(0.0)
    for second in range(1, 200):
        recent.observe([ok(), failed()])
        recent.tick(float(second))
    assert recent.outcomes == {Outcome.OK: 199, Outcome.FAILED: 199, Outcome.SKIPPED: 0}
    assert recent.wire_bytes == 199 * 100
    assert recent.rate == pytest.approx(2.0)
    assert recent.wire_rate == pytest.approx(100.0)


def test_latency_is_that_of_the_last_minute():
    recent = Recent(0.0)
    recent.observe([ok(10.0)] * 100)
    recent.tick(1.0)
    assert recent.latency.p50 == pytest.approx(10.0, rel=0.02)
    recent.tick(65.0)
    recent.observe([ok(0.1)])
    assert recent.latency.p99 == pytest.approx(0.1, rel=0.02)
    recent.tick(1000.0)
    assert recent.latency.p50 is None


def test_the_latest_failures_are_kept_without_bodies_and_passwords():
    recent = Recent(0.0)
    recent.ids = {"b": "b-2026"}
    recent.observe([failed(number) for number in range(1000)])
    recent.observe([failed(1000, batch="c")])
    found = recent.failures()
    assert len(found) == 50
    assert [failure.url for failure in found[:2]] == ["http://***@h.test/1000", "http://***@h.test/999"]
    assert [failure.batch for failure in found[:2]] == ["c", "b-2026"]
    assert len(found[0].message) <= 600
    assert found[0].attempts == 2
