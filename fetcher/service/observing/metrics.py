"""``/metrics``: what Prometheus, or whatever reads its formats, is told of the service.

Names are those of the design and follow Prometheus' conventions: base units, ``_total`` for counters. No label has a
URL or a host in it. Everything is read when it is asked for, but for results, which are counted in batches as they are
acknowledged.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from fetcher import __version__
from fetcher.engine.why.advice import Bound
from fetcher.service.observing.counting import DURATIONS, Counts, Histogram, Names, Requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from fetcher.assembly import Batch
    from fetcher.engine.engine import Engine

_OPENMETRICS = "application/openmetrics-text"
_BOUNDS = [f"{bound:g}" for bound in DURATIONS] + ["+Inf"]


class Measured(Protocol):
    """What the metrics ask the service."""

    @property
    def running(self) -> Mapping[str, Batch]:
        """The batches that are open, by id."""

    def states(self) -> Mapping[str, int]:
        """Return how many batches there are by state."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight now."""

    def bounds(self) -> Mapping[Bound, float]:
        """Return what bounds the throughput, with shares from 0 to 1."""

    @property
    def is_config_loaded(self) -> bool:
        """Whether the config could be loaded when it was last changed."""


class Metrics:
    """Counts for as long as the service runs. ``observe`` is told of results as they are acknowledged.

    ``follow`` is to be called for every batch that is opened: what its engine counts stays counted when it has ended.
    """

    def __init__(self, measured: Measured) -> None:
        self._requests = Requests()
        self._lags = Histogram()
        self._followed: dict[int, Engine] = {}
        self._before = Counts()
        self._names = Names()
        self.observe = self._requests.observe
        self.observe_lag = self._lags.add
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Families(self, measured))
        self._measured = measured

    def follow(self, engine: Engine) -> None:
        """Count what an engine counts for itself from now on."""
        self._settle()
        self._followed[id(engine)] = engine

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics in the format that an Accept header asks for, and its content type."""
        # Not the header as it is: what a client may write there, the library does not expect.
        encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept.lower() else "")
        return encode(self._registry), content_type

    async def handle(self, request: web.Request) -> web.Response:
        """Answer ``GET /metrics``."""
        body, content_type = self.render(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"})
        response.enable_compression()
        return response

    # For what is collected

    @property
    def requests(self) -> Requests:
        """Jobs that have ended."""
        return self._requests

    @property
    def lags(self) -> Histogram:
        """How late timers of the event loop were."""
        return self._lags

    def counts(self) -> Counts:
        """Return what all engines have counted so far, those that have ended included."""
        for batch in self._measured.running.values():
            self._followed.setdefault(id(batch.engine), batch.engine)
        self._settle()
        counts = self._before.copy()
        for engine in self._followed.values():
            counts.add(_retries(engine), engine.delivery.outlets, self._names)
            counts.postponed += engine.postponed.count
        return counts

    def _settle(self) -> None:
        """Keep the counts of engines that have ended, and not the engines."""
        running = {id(batch.engine) for batch in self._measured.running.values()}
        for key in [key for key in self._followed if key not in running]:
            engine = self._followed.pop(key)
            self._before.add(_retries(engine), engine.delivery.outlets, self._names)
            self._before.postponed += engine.postponed.count


def _retries(engine: Engine) -> Mapping[str, int]:
    return engine.retry_reasons


class _Families(Collector):
    """Makes the families of metrics whenever they are asked for."""

    def __init__(self, metrics: Metrics, measured: Measured) -> None:
        self._metrics = metrics
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Yield everything that is ours."""
        yield from self._of_requests()
        yield from self._of_engines()
        yield from self._of_service()

    def _of_requests(self) -> Iterator[Metric]:
        requests = self._metrics.requests
        ended = CounterMetricFamily(
            "fetcher_requests",
            "Jobs that have ended, by outcome (ok, failed, skipped), class of the status and error kind.",
            labels=["outcome", "status_class", "error_kind"],
        )
        for labels, count in sorted(requests.ended().items()):
            ended.add_metric(labels, count)
        yield ended
        yield _histograms(
            "fetcher_request_duration",
            "How long jobs waited for a slot (queue), what the last hop of their last attempt took by phase, and all "
            "hops of that attempt (total).",
            "phase",
            requests.phases,
        )
        bytes_family = CounterMetricFamily(
            "fetcher_response", "Bytes of bodies received, as they travelled.", unit="bytes"
        )
        bytes_family.add_metric([], requests.bytes)
        yield bytes_family

    def _of_engines(self) -> Iterator[Metric]:
        counts = self._metrics.counts()
        retries = CounterMetricFamily(
            "fetcher_retries", "Attempts that were followed by another, by error kind.", labels=["reason"]
        )
        for reason, count in sorted(counts.retries.items()):
            retries.add_metric([reason], count)
        yield retries
        postponed = CounterMetricFamily(
            "fetcher_postponed", "Times that jobs could not begin, as a token was not to be had; none is an attempt."
        )
        postponed.add_metric([], counts.postponed)
        yield postponed
        sinks = dict(sorted(counts.sinks.items()))
        yield _histograms(
            "fetcher_sink_flush",
            "How long writes of batches to sinks took, those that succeeded.",
            "sink",
            {title: sink.flushes for title, sink in sinks.items()},
        )
        errors = CounterMetricFamily("fetcher_sink_errors", "Writes to sinks that failed.", labels=["sink"])
        for title, sink in sinks.items():
            errors.add_metric([title], sink.errors)
        yield errors
        dead = CounterMetricFamily("fetcher_dead_letter", "Records that a sink did not take and no job waited for.")
        dead.add_metric([], counts.dead_letters)
        yield dead

    def _of_service(self) -> Iterator[Metric]:
        engines = [batch.engine for batch in self._measured.running.values()]
        in_flight = sum(len(engine.running) for engine in engines)
        yield _gauge("fetcher_inflight_requests", "Requests in flight.", in_flight)
        yield _gauge(
            "fetcher_concurrency_limit_requests", "Requests that may be in flight now.", self._measured.concurrency
        )
        yield _gauges(
            "fetcher_queue_depth",
            "Jobs of running batches that have not ended: in the queue (queued), leased and waiting for their host "
            "(window), in flight (inflight), on their way to the sinks (delivering).",
            "state",
            _depths(engines),
        )
        yield _gauges("fetcher_batches", "Batches by state.", "state", self._measured.states())
        bounds = self._measured.bounds()
        yield _gauges(
            "fetcher_bound_ratio",
            "What bounds the throughput: its share of all waiting of late, from 0 to 1.",
            "bound",
            {bound.value: bounds.get(bound, 0.0) for bound in Bound},
        )
        lags = HistogramMetricFamily("fetcher_loop_lag", "How late timers of the event loop were.", unit="seconds")
        _add_histogram(lags, [], self._metrics.lags)
        yield lags
        yield _gauge(
            "fetcher_config_reload_success",
            "Whether the config could be loaded when it was last changed (1), or the one before holds on (0).",
            float(self._measured.is_config_loaded),
        )
        yield InfoMetricFamily("fetcher_build", "The version of fetcher.", {"version": __version__})


def _depths(engines: Sequence[Engine]) -> dict[str, int]:
    depths = {"queued": 0, "window": 0, "inflight": 0, "delivering": 0}
    for engine in engines:
        window, in_flight = engine.scheduler.waiting, len(engine.running)
        queued = max(0, engine.queued - window)
        depths["queued"] += queued
        depths["window"] += window
        depths["inflight"] += in_flight
        depths["delivering"] += max(0, engine.left - queued - window - in_flight)
    return depths


def _gauge(name: str, about: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, about)
    family.add_metric([], value)
    return family


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _histograms(name: str, about: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, about, labels=[label], unit="seconds")
    for key, histogram in histograms.items():
        _add_histogram(family, [key], histogram)
    return family


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    cumulative = accumulate(histogram.counts)
    family.add_metric(labels, list(zip(_BOUNDS, map(float, cumulative), strict=True)), histogram.total)
