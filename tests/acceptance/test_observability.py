"""A real service under watch: what it tells Prometheus, OpenTelemetry, people and the log of one and the same batch."""

from __future__ import annotations

import asyncio
import json

from collector import Collector
from origin_process import origin_process
from prometheus_client.parser import text_string_to_metric_families
from serve_process import serve_process

JOBS = 60


def metrics(service):
    text = service.ask("GET", "/metrics").decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def watch_a_batch(folder, endpoint):
    telemetry = json.dumps({"endpoint": endpoint, "sample": 1, "headers": {"x-key": "s3cr3t"}})
    with origin_process() as origin, serve_process(folder, f"service.telemetry={telemetry}") as service:
        good = f"{origin.url}/delay/0.2/bytes/100?n={{1..{JOBS}}}"
        limits = {"per_host": {"concurrency": 4}}
        batch = service.submit(name="pages", sources=[good, f"{origin.url}/status/404"], limits=limits)
        service.wait_for(batch, lambda view: view["progress"]["outcomes"].get("ok", 0) >= JOBS / 2)
        during, why = metrics(service), service.ask("GET", "/v1/why")
        service.wait_for_end(batch)
        after = metrics(service)
        assert service.stop() == 0
        return during, why, after, service.log_path.read_text()


async def test_one_batch_as_everybody_sees_it(tmp_path):
    collector = Collector()
    await collector.start()
    try:
        during, why, after, log = await asyncio.to_thread(watch_a_batch, tmp_path, collector.url)
    finally:
        await collector.stop()
    assert during["fetcher_batches", "running"] == 1
    assert during["fetcher_inflight_requests",] == 4
    assert sum(during["fetcher_queue_depth", where] for where in ("queued", "window")) > 0
    assert why["bounds"][0]["name"] == "host limits"
    assert why["bounds"][0]["details"] == ["127.0.0.1 (100%)"]
    assert "limits.per_host.concurrency" in why["bounds"][0]["advice"]
    assert during["fetcher_bound_ratio", "host limits"] > 0.5
    assert after["fetcher_batches", "done"] == 1
    assert after["fetcher_requests_total", "", "ok", "2xx"] == JOBS
    assert after["fetcher_requests_total", "http_4xx", "failed", "4xx"] == 1
    assert after["fetcher_request_duration_seconds_count", "total"] == JOBS + 1
    assert after["fetcher_inflight_requests",] == 0
    assert len(collector.spans) == JOBS + 1
    assert sum(point.count for point in collector.points) == JOBS + 1
    assert "s3cr3t" not in log
    assert all(line.startswith("{") and json.loads(line)["event"] for line in log.splitlines())
