"""OpenTelemetry data, as a collector of our own receives them."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from collector import Collector, attributes
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fetcher.errors import ErrorKind, MissingExtraError
from fetcher.model import Outcome, Result
from fetcher.service.observing.telemetry import BOUNDS, MOST_SERIES, Durations, Telemetry, shown_url
from fetcher.service.settings import TelemetrySettings

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def collector():
    found = Collector()
    await found.start()
    yield found
    await found.stop()


def result(number=0, **fields):
    usual = {
        "batch": "pages",
        "job_id": str(number),
        "url": "http://user:pw@h.test:8080/a?n=1",
        "method": "GET",
        "outcome": Outcome.OK,
        "attempts": 1,
        "status": 200,
        "http_version": "1.1",
        "remote_ip": "127.0.0.1",
        "started_at": BEGAN,
        "finished_at": BEGAN + timedelta(seconds=0.25),
        "total_s": 0.25,
        "wire_size": 1000,
    }
    return Result(**(usual | fields))


def telemetry(url, **fields):
    return Telemetry(TelemetrySettings.model_validate({"endpoint": url, "sample": 1} | fields))


async def test_a_job_is_a_span_of_a_client(collector):
    sending = telemetry(collector.url, headers={"x-key": "s3cr3t"}, service_name="ours")
    sending.observe([result()])
    await sending.close()
    (span,) = collector.spans
    assert (span.name, span.kind) == ("GET", Span.SPAN_KIND_CLIENT)
    assert span.start_time_unix_nano == BEGAN.timestamp() * 1e9
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(0.25e9, abs=1000)
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.response.body.size": 1000,
        "server.address": "h.test",
        "server.port": 8080,
        "url.full": "http://***@h.test:8080/a?n=1",
        "network.protocol.version": "1.1",
        "network.peer.address": "127.0.0.1",
        "fetcher.batch": "pages",
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(collector.traces[0].resource_spans[0].resource)["service.name"] == "ours"
    assert {headers["x-key"] for headers in collector.headers} == {"s3cr3t"}
    assert "s3cr3t" not in repr(sending)


async def test_a_failure_says_what_it_was(collector):
    sending = telemetry(collector.url)
    failure = {"outcome": Outcome.FAILED, "error_message": "no", "attempts": 3}
    refused = {"status": None, "error_kind": ErrorKind.CONNECT_REFUSED, "http_version": None, "method": "BREW"}
    sending.observe([result(**failure, **refused), result(**failure, status=503, error_kind=ErrorKind.HTTP_5XX)])
    await sending.close()
    first, second = collector.spans
    assert first.name == "HTTP"
    assert (first.status.code, first.status.message) == (Status.STATUS_CODE_ERROR, "no")
    found = attributes(first)
    assert found["error.type"] == "connect_refused"
    assert found["http.request.method"] == "_OTHER"
    assert found["http.request.method_original"] == "BREW"
    assert found["http.request.resend_count"] == 2
    assert "http.response.status_code" not in found
    assert attributes(second)["error.type"] == "503"


async def test_what_can_not_be_encoded_costs_no_other_span(collector):
    sending = telemetry(collector.url)
    failure = {"outcome": Outcome.FAILED, "error_kind": ErrorKind.BAD_HTTP}
    sending.observe([result(), result(**failure, url="http://h.test/\udcff", error_message="\udc80")])
    await sending.close()
    good, bad = collector.spans
    assert attributes(bad)["url.full"] == "http://h.test/?"
    assert bad.status.message == "?"
    assert good.status.message == ""


async def test_a_fault_of_the_exporter_is_a_line_of_the_log(collector):
    with structlog.testing.capture_logs() as lines:
        sending = telemetry(collector.url)
        sending._exporter.export = None
        await sending.close()
    assert [line["event"] for line in lines] == ["telemetry_problem"]


async def test_metrics_count_all_jobs_and_traces_a_share_of_them(collector):
    sending = telemetry(collector.url, sample=0)
    sending.observe([result(number, total_s=seconds) for number, seconds in enumerate([0.001, 0.25, 0.3, 99.0])])
    sending.observe([result(outcome=Outcome.SKIPPED, started_at=None, total_s=None)])
    await sending.close()
    assert collector.spans == []
    (point,) = collector.points
    assert (point.count, point.sum, point.min, point.max) == (4, pytest.approx(99.551), 0.001, 99.0)
    assert tuple(point.explicit_bounds) == BOUNDS
    counts = dict(zip([*BOUNDS, "more"], point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {0.005: 1, 0.25: 1, 0.5: 1, "more": 1}
    assert attributes(point) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "h.test",
        "server.port": 8080,
        "network.protocol.version": "1.1",
    }


async def test_metrics_are_sent_again_and_again(collector):
    sending = telemetry(collector.url, sample=0)
    sending._interval = 0.01
    sending.observe([result()])
    running = asyncio.create_task(sending.run())
    await collector.arrived.wait()
    running.cancel()
    await asyncio.wait([running])
    await sending.close()
    assert collector.points[0].count == 1


async def test_hosts_without_end_make_a_bounded_number_of_series(collector):
    sending = telemetry(collector.url, sample=0)
    extra = 500
    sending.observe([result(url=f"http://h{number}.test?{number}") for number in range(MOST_SERIES + extra)])
    sending.observe([result(url=f"http://h0.test?{number}") for number in range(10)])
    await sending.close()
    points = collector.points
    assert len(points) == MOST_SERIES + 1
    assert {point.count for point in points if attributes(point) == {"otel.metric.overflow": True}} == {extra}
    assert sum(point.count for point in points) == MOST_SERIES + extra + 10


async def test_a_collector_that_is_away_is_a_line_of_the_log(unused_tcp_port):
    with structlog.testing.capture_logs() as lines:
        sending = telemetry(f"http://127.0.0.1:{unused_tcp_port}")
        sending.observe([result()])
        started = time.monotonic()
        await sending.close()
    assert time.monotonic() - started < 30
    assert {line["event"] for line in lines} == {"telemetry_problem"}


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(
        MissingExtraError, match=r"service\.telemetry needs opentelemetry, .*pip install .*opentelemetry"
    ):
        telemetry("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/?a=1&b=%2F", "http://h/?a=1&b=%2F"),
        ("http://u:p@h/?X-Goog-Signature=abc&a=1", "http://***@h/?X-Goog-Signature=REDACTED&a=1"),
        ("http://h/?sig=abc", "http://h/?sig=REDACTED"),
    ],
)
def test_urls_are_shown_without_credentials(url, shown):
    assert shown_url(url) == shown


def test_observing_a_result_costs_microseconds():
    durations = Durations()
    results = [result(number) for number in range(512)]

    def cost():
        started = time.perf_counter()
        durations.observe(results)
        return (time.perf_counter() - started) / len(results)

    assert min(cost() for _ in range(50)) < 5e-6
