"""Row F111: what the metrics show of a million hosts, and of whatever else there may be a million of."""

from __future__ import annotations

import time
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result
from fetcher.service.observing.counting import MOST_SINKS, OTHER
from fetcher.service.observing.metrics import Metrics

MILLION = 1_000_000
_BATCH = 10_000
_SECRET = "s3cr3t"


class Service:
    concurrency = 100
    is_config_loaded = True

    def __init__(self, running=None):
        self.running = running or {}

    def states(self):
        return {}

    def bounds(self):
        return {}


def results(numbers):
    return [
        Result(
            batch=f"batch-{number}",
            job_id=str(number),
            url=f"http://user:{_SECRET}@host-{number}.test/{number}",
            outcome=Outcome.FAILED,
            status=number % 1000,
            error_kind=ErrorKind.HTTP_4XX,
            error_message=f"failure {number}",
            remote_ip=f"10.0.{number % 256}.1",
            attempts=1,
            total_s=number / 1000,
        )
        for number in numbers
    ]


def samples(metrics):
    text, _ = metrics.render()
    found = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
    return text.decode(), [sample for sample in found if sample.name.startswith("fetcher_")]


def batches(*engines):
    return {str(number): SimpleNamespace(engine=engine) for number, engine in enumerate(engines)}


def engine(sinks, reasons):
    outlets = [SimpleNamespace(title=title, errors=1, dead_letters=1, flushes={0: 1}, flush_s=1.0) for title in sinks]
    return SimpleNamespace(
        retry_reasons=reasons,
        postponed=SimpleNamespace(count=0),
        running={},
        queued=0,
        left=0,
        scheduler=SimpleNamespace(waiting=0),
        delivery=SimpleNamespace(outlets=outlets),
    )


def test_f111_a_million_hosts_make_no_more_labels_than_one():
    metrics = Metrics(Service())
    metrics.observe(results(range(1000)))
    _, few = samples(metrics)
    for first in range(0, MILLION, _BATCH):
        metrics.observe(results(range(first, first + _BATCH)))
    started = time.perf_counter()
    text, many = samples(metrics)
    assert time.perf_counter() - started < 5
    assert len(many) == len(few) < 300
    assert "host-" not in text
    assert "10.0." not in text
    assert _SECRET not in text
    assert sum(sample.value for sample in many if sample.name == "fetcher_requests_total") == MILLION + 1000


def test_f111_sinks_that_users_name_are_counted_under_a_bounded_number_of_labels():
    service = Service()
    metrics = Metrics(service)
    for number in range(0, 2000, 10):
        service.running = batches(engine([f"sink {one}" for one in range(number, number + 10)], {}))
        metrics.counts()  # as a scrape does
    service.running = {}
    _, found = samples(metrics)
    errors = {sample.labels["sink"]: sample.value for sample in found if sample.name == "fetcher_sink_errors_total"}
    assert len(errors) == MOST_SINKS + 1
    assert sum(errors.values()) == 2000
    assert errors[OTHER] == 2000 - MOST_SINKS


def test_f111_a_hostile_name_of_a_sink_is_a_label_and_nothing_else():
    name = 'a"} 1\nfetcher_dead_letter_total 99\n' + "x" * 10_000
    metrics = Metrics(Service(batches(engine([name], {}))))
    text, found = samples(metrics)
    assert [sample.value for sample in found if sample.name == "fetcher_dead_letter_total"] == [1]
    labels = [sample.labels["sink"] for sample in found if sample.name == "fetcher_sink_errors_total"]
    assert labels == [name[:100]]
    assert len(max(text.splitlines(), key=len)) < 300


def test_f111_kinds_that_a_plugin_invents_are_counted_together():
    service = Service(batches(engine([], {f"invented {number}": 1 for number in range(1000)} | {"http_5xx": 3})))
    metrics = Metrics(service)
    made_up = [
        Result(batch="b", job_id="1", url="x:", outcome=Outcome.FAILED, error_kind=f"new {number}", attempts=1)
        for number in range(1000)
    ]
    metrics.observe(made_up)
    _, found = samples(metrics)
    retries = {sample.labels["reason"]: sample.value for sample in found if sample.name == "fetcher_retries_total"}
    assert retries == {OTHER: 1000, "http_5xx": 3}
    kinds = {sample.labels["error_kind"]: sample.value for sample in found if sample.name == "fetcher_requests_total"}
    assert kinds == {OTHER: 1000}
