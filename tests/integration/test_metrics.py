"""``/metrics`` after real runs, checked as promtool checks it."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest
from aiohttp import ClientSession, web
from batches import TEST_HOSTS
from origin_process import origin_process
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fetcher.assembly import Batch, Shared
from fetcher.config import Config
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.why.advice import Bound
from fetcher.model import Outcome, Result
from fetcher.registry import config_class
from fetcher.service.observing.metrics import Metrics

OURS = {
    "fetcher_requests": "counter",
    "fetcher_retries": "counter",
    "fetcher_postponed": "counter",
    "fetcher_request_duration_seconds": "histogram",
    "fetcher_inflight_requests": "gauge",
    "fetcher_concurrency_limit_requests": "gauge",
    "fetcher_queue_depth": "gauge",
    "fetcher_response_bytes": "counter",
    "fetcher_sink_flush_seconds": "histogram",
    "fetcher_sink_errors": "counter",
    "fetcher_dead_letter": "counter",
    "fetcher_loop_lag_seconds": "histogram",
    "fetcher_batches": "gauge",
    "fetcher_bound_ratio": "gauge",
    "fetcher_config_reload_success": "gauge",
    "fetcher_build": "info",
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Service:
    """What metrics ask, of batches that a test has open."""

    concurrency = 40
    is_config_loaded = True

    def __init__(self):
        self.running = {}

    def states(self):
        return {"running": len(self.running), "done": 3}

    def bounds(self):
        return {Bound.RATE: 0.75, Bound.SINK: 0.25}


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def metrics(service):
    return Metrics(service)


async def run(service, metrics, folder, paths, **sections):
    """Run a batch to its end as the service does, and return it."""
    config = {
        "name": folder.name,
        "sources": [{"type": "inline", "jobs": [{"url": path} for path in paths]}],
        "queue": "memory",
        "http": TEST_HOSTS,
        "sinks": [{"type": "file", "path": str(folder / "out.jsonl"), "format": "jsonl"}],
    }
    config = Config.model_validate(config | sections)
    shared = Shared(LimitSettings(), config_class("transports", "http").model_validate(TEST_HOSTS), metrics.observe)
    await shared.open()
    batch = Batch(config, fresh=True, shared=shared)
    await batch.open()
    service.running[folder.name] = batch
    metrics.follow(batch.engine)
    try:
        await batch.run()
    finally:
        del service.running[folder.name]
        await batch.close()
        await shared.close()
    return batch


def families(metrics):
    body, _ = metrics.render(OPENMETRICS)
    return {family.name: family for family in parse_openmetrics(body.decode())}


def values(metrics, name):
    """Return the values of a sample by the values of its labels, which are in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == name
    }


async def test_after_a_run_the_figures_are_those_of_the_batch(origin, service, metrics, tmp_path):
    good = [f"{origin.url}/bytes/{100 + number}" for number in range(40)]
    bad = [f"{origin.url}/status/404?n={number}" for number in range(7)]
    flaky = [f"{origin.url}/flaky/1/bytes/5?n={number}" for number in range(3)]
    batch = await run(service, metrics, tmp_path, [*good, *bad, *flaky], retry={"backoff": "1ms"})
    tally = batch.engine.delivery.tally
    assert values(metrics, "fetcher_requests_total") == {("", "ok", "2xx"): 43, ("http_4xx", "failed", "4xx"): 7}
    assert tally.outcomes == {Outcome.OK: 43, Outcome.FAILED: 7}
    assert values(metrics, "fetcher_response_bytes_total") == {(): tally.wire_bytes}
    assert sum(values(metrics, "fetcher_retries_total").values()) == tally.retries == 3
    counts = values(metrics, "fetcher_request_duration_seconds_count")
    assert counts["total",] == counts["queue",] == counts["first_byte",] == 50
    assert 1 <= counts["connect",] <= 50
    assert counts["dns",] <= counts["connect",]
    assert counts["tls",] == 0
    sums = values(metrics, "fetcher_request_duration_seconds_sum")
    assert 0 < sums["first_byte",] <= sums["total",]
    assert values(metrics, "fetcher_sink_flush_seconds_count")["file-1",] >= 1
    assert values(metrics, "fetcher_queue_depth") == {
        ("queued",): 0,
        ("window",): 0,
        ("inflight",): 0,
        ("delivering",): 0,
    }


async def test_counters_go_on_over_the_end_of_batches(origin, service, metrics, tmp_path):
    def read():
        return {
            name: sum(values(metrics, name).values())
            for name in ("fetcher_requests_total", "fetcher_retries_total", "fetcher_sink_flush_seconds_count")
        }

    before = read()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        paths = [f"{origin.url}/flaky/1/bytes/5?{name}={number}" for number in range(5)]
        await run(service, metrics, folder, paths, retry={"backoff": "1ms"})
        after = read()
        assert all(after[key] > before[key] for key in before)
        before = after
    assert before["fetcher_retries_total"] == 10
    assert not metrics._followed


async def test_while_a_batch_runs_its_jobs_are_where_they_are(origin, service, metrics, tmp_path):
    paths = [f"{origin.url}/delay/30/bytes/5?n={number}" for number in range(20)]
    limits = {"per_host": {"concurrency": 3}}
    running = asyncio.create_task(run(service, metrics, tmp_path, paths, limits=limits, shutdown_timeout="500ms"))
    while values(metrics, "fetcher_inflight_requests") != {(): 3}:  # noqa: ASYNC110  a figure, which tells nobody
        await asyncio.sleep(0.01)
    depths = values(metrics, "fetcher_queue_depth")
    assert depths["inflight",] == 3
    assert sum(depths.values()) == 20
    service.running[tmp_path.name].drain()
    await running


async def test_failures_of_sinks_and_dead_letters_are_counted(origin, service, metrics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sinks = [
        {"type": "file", "path": str(tmp_path / "out.jsonl"), "format": "jsonl"},
        {"type": "webhook", "name": "away", "url": "http://127.0.0.1:1/", "required": False, "patience": 0},
    ]
    await run(service, metrics, tmp_path, [f"{origin.url}/bytes/{number}" for number in range(5)], sinks=sinks)
    assert values(metrics, "fetcher_sink_errors_total")["away",] >= 1
    assert values(metrics, "fetcher_sink_errors_total")["file-1",] == 0
    assert values(metrics, "fetcher_dead_letter_total") == {(): 5}


def test_names_and_words_keep_to_the_conventions(metrics):
    found = families(metrics)
    ours = {name: family.type for name, family in found.items() if name.startswith("fetcher_")}
    assert ours == OURS
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds", "python_info"} <= {
        *found,
        *(f"{name}_info" for name in found),
    }
    for name in OURS:
        family = found[name]
        assert family.documentation.endswith(".")
        assert name == name.lower()
        assert "__" not in name
        if family.unit:
            assert family.unit in {"seconds", "bytes"}
            assert name.endswith(family.unit)
        for label in {key for sample in family.samples for key in sample.labels}:
            assert label not in {"url", "host", "job", "instance", "batch"}


async def test_histograms_are_consistent(origin, service, metrics, tmp_path):
    for seconds in (0.0, 0.001, 0.0011, 0.3, 1000):
        metrics.observe_lag(seconds)
    await run(service, metrics, tmp_path, [f"{origin.url}/bytes/{number}" for number in range(5)])
    buckets = {}
    for name in OURS:
        for (bound, *labels), count in values(metrics, f"{name}_bucket").items():
            buckets.setdefault((name, *labels), []).append((float(bound), count))
    assert len(buckets) == 8  # of six phases, a sink and the loop
    for series in buckets.values():
        bounds, counts = zip(*series, strict=True)
        assert list(bounds) == sorted(set(bounds))
        assert list(counts) == sorted(counts)
        assert bounds[-1] == float("inf")
    lags = values(metrics, "fetcher_loop_lag_seconds_bucket")
    assert lags["0.001",] == 2
    assert lags["0.0025",] == 3
    assert lags["60",] == 4
    assert lags["+Inf",] == values(metrics, "fetcher_loop_lag_seconds_count")[()] == 5


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=nonsense", "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=nonsense;escaping=\u2028", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_what_was_asked_for(metrics, accept, expected):
    body, content_type = metrics.render(accept)
    assert content_type.startswith(expected)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    assert any(family.name.startswith("fetcher_") for family in parse(body.decode()))


async def test_answers_are_compressed_if_that_is_understood(metrics):
    app = web.Application()
    app.router.add_get("/metrics", metrics.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with ClientSession(auto_decompress=False) as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
            async with session.get(url, headers={"Accept-Encoding": "gzip"}) as response:
                assert response.headers["Content-Encoding"] == "gzip"
                assert b"fetcher_build_info" in gzip.decompress(await response.read())
            async with session.get(url, headers={"Accept-Encoding": "identity"}) as response:
                assert b"fetcher_build_info" in await response.read()
    finally:
        await runner.cleanup()


def test_counting_a_result_takes_microseconds(metrics):
    results = [
        Result(
            batch="b",
            job_id=str(number),
            url="http://h/",
            status=200,
            outcome=Outcome.OK,
            attempts=1,
            queue_s=0.001,
            first_byte_s=0.02,
            total_s=0.03,
            wire_size=100,
        )
        for number in range(512)
    ]

    def cost():
        started = time.perf_counter()
        metrics.observe(results)
        return (time.perf_counter() - started) / len(results)

    # The least of many: others are at the same core.
    assert min(cost() for _ in range(50)) < 3e-6
