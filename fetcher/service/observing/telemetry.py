"""OpenTelemetry: traces and metrics of requests, sent to a collector by OTLP over HTTP.

Names are those of the semantic conventions for HTTP clients (1.40). Both are made of results once these are
acknowledged: nothing happens while a request is made. A span is one job, its last attempt with all its hops. Metrics
are counted here and handed to the exporter as they are, which costs a hundredth of what its own instruments do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import structlog

from fetcher import __version__
from fetcher.extras import load_extra
from fetcher.jobs.intake import mask_userinfo
from fetcher.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fetcher.model import Result
    from fetcher.service.settings import TelemetrySettings

_log = logging.getLogger("opentelemetry.fetcher")
DURATION = "http.client.request.duration"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""In seconds, as the conventions have them."""
MOST_SERIES = 2000
_OVERFLOW = ("otel.metric.overflow",)
_TIMEOUT = 3.0  # seconds for one request to the collector
_LONGEST_URL = 2048
_LONGEST_MESSAGE = 300
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
# Values of these parameters are credentials, say the conventions for url.full.
_SIGNATURES = frozenset({"awsaccesskeyid", "signature", "sig", "x-goog-signature", "x-amz-signature", "access_token"})
_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"[^/?#]*//[^/?#]*")
_Attributes = dict[str, str | int | float]


class Telemetry:
    """``observe`` is told of results, ``run`` sends metrics until cancelled, ``close`` sends what is left.

    Raises MissingExtraError if the extra is not installed. A collector that is away is a line in the log; what can not
    be sent for long is lost.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self._sample = settings.sample
        self._interval = settings.interval
        resources = _load("opentelemetry.sdk.resources")
        attributes = {"service.name": settings.service_name, "service.version": __version__}
        self._resource = resources.Resource.create(attributes)
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        where = {"headers": headers, "timeout": _TIMEOUT}
        root = settings.endpoint.rstrip("/")
        self._tracing = _Tracing(self._resource, {"endpoint": f"{root}/v1/traces"} | where)
        exporter = _load("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        self._exporter: Any = exporter.OTLPMetricExporter(endpoint=f"{root}/v1/metrics", **where)
        self._durations = Durations()
        _log_by_structlog()

    def observe(self, results: Sequence[Result]) -> None:
        """Count results, and trace some of them."""
        self._durations.observe(results)
        if self._sample:
            for result in results:
                if random.random() < self._sample:
                    self._tracing.add(result)

    async def run(self) -> None:
        """Send metrics again and again."""
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.to_thread(self._send)

    async def close(self) -> None:
        """Send what is left, within seconds, and end."""
        await asyncio.to_thread(self._end)

    # On a thread

    def _send(self) -> None:
        try:
            self._export()
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, what it looks at must go on
            _log.warning("metrics could not be sent: %s: %s", type(error).__name__, error)

    def _export(self) -> None:
        self._exporter.export(self._durations.export(self._resource), timeout_millis=_TIMEOUT * 1000)

    def _end(self) -> None:
        self._send()
        self._exporter.shutdown()
        self._tracing.end()


def _load(module: str) -> Any:
    return load_extra(module, "otel", "service.telemetry")


class _Tracing:
    """Spans of results."""

    def __init__(self, resource: Any, where: Mapping[str, Any]) -> None:
        api, sdk = _load("opentelemetry.trace"), _load("opentelemetry.sdk.trace")
        exporting = _load("opentelemetry.sdk.trace.export")
        exporter = _load("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter(**where)
        self._client = api.SpanKind.CLIENT
        self._failed = api.StatusCode.ERROR
        self._status: Any = api.Status
        self._provider: Any = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(exporting.BatchSpanProcessor(exporter))
        self._tracer: Any = self._provider.get_tracer("fetcher", __version__)

    def add(self, result: Result) -> None:
        """Make the span of a result that was begun."""
        if result.started_at is None or result.finished_at is None:
            return
        span = self._tracer.start_span(
            _method(result.method),
            kind=self._client,
            start_time=_nanoseconds(result.started_at.timestamp()),
            attributes=span_attributes(result),
        )
        if result.outcome is Outcome.FAILED:
            span.set_status(self._status(self._failed, _text(result.error_message or "")[:_LONGEST_MESSAGE]))
        span.end(_nanoseconds(result.finished_at.timestamp()))

    def end(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _method(method: str | None) -> str:
    return method if method in _METHODS else "HTTP"


def metric_attributes(result: Result) -> _Attributes:
    """Return what the duration of a request is counted by."""
    method = result.method or "GET"
    attributes: _Attributes = {"http.request.method": method if method in _METHODS else "_OTHER"}
    host, port = _server(result.url)
    if host is not None:
        attributes["server.address"] = host
    if port is not None:
        attributes["server.port"] = port
    if result.status is not None:
        attributes["http.response.status_code"] = result.status
    if result.error_kind is not None:
        attributes["error.type"] = str(result.error_kind) if result.status is None else str(result.status)
    if result.http_version is not None:
        attributes["network.protocol.version"] = result.http_version
    return attributes


def span_attributes(result: Result) -> _Attributes:
    """Return what is said of one request."""
    attributes = metric_attributes(result) | {"url.full": shown_url(result.url), "fetcher.batch": result.batch}
    if attributes["http.request.method"] == "_OTHER":
        attributes["http.request.method_original"] = str(result.method)
    if result.remote_ip is not None:
        attributes["network.peer.address"] = result.remote_ip
    if result.attempts > 1:
        attributes["http.request.resend_count"] = result.attempts - 1
    if result.wire_size is not None:
        attributes["http.response.body.size"] = result.wire_size
    return attributes


def shown_url(url: str) -> str:
    """Return a URL without credentials, as the conventions want it."""
    url = mask_userinfo(url)
    head, mark, query = url.partition("?")
    if mark and any(name in query.lower() for name in _SIGNATURES):
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(name, "REDACTED" if name.lower() in _SIGNATURES else value) for name, value in pairs])
    return _text(f"{head}{mark}{query}"[:_LONGEST_URL])


def _text(text: str) -> str:
    """Return text that can be encoded: one lone surrogate would cost all spans that are sent with it."""
    return text.encode("utf-8", "replace").decode()


def _server(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None, None


class _Series:
    """One histogram, and the attributes that it is of."""

    __slots__ = ("attributes", "counts", "least", "most", "total")

    def __init__(self, attributes: _Attributes) -> None:
        self.attributes = attributes
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.least, self.most = float("inf"), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)


class Durations:
    """How long requests took, as ``http.client.request.duration``.

    There are `MOST_SERIES` sets of attributes at most; what comes later is counted together, as the specification of
    the SDK has it.
    """

    def __init__(self) -> None:
        self._started = time.time_ns()
        self._series: dict[tuple[Any, ...], _Series] = {}

    def observe(self, results: Sequence[Result]) -> None:
        """Count results that were requests."""
        for result in results:
            if result.total_s is None:
                continue
            origin = _ORIGIN.match(result.url)
            key = origin and origin[0], result.method, result.status, result.error_kind, result.http_version
            series = self._series.get(key)
            if series is None:
                series = self._new(key, result)
            series.add(result.total_s)

    def _new(self, key: tuple[Any, ...], result: Result) -> _Series:
        if len(self._series) < MOST_SERIES:
            series = self._series[key] = _Series(metric_attributes(result))
            return series
        return self._series.setdefault(_OVERFLOW, _Series({_OVERFLOW[0]: True}))

    def export(self, resource: Any) -> Any:
        """Return everything so far, as the exporter takes it."""
        data, now = _load("opentelemetry.sdk.metrics.export"), time.time_ns()
        scope = _load("opentelemetry.sdk.util.instrumentation").InstrumentationScope("fetcher", __version__)
        # Results may be counted meanwhile, on the loop: what is told of a series has to fit together.
        copies = [(series, series.total, list(series.counts)) for series in list(self._series.values())]
        points = [
            data.HistogramDataPoint(
                attributes=series.attributes,
                start_time_unix_nano=self._started,
                time_unix_nano=now,
                count=sum(counts),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=BOUNDS,
                min=series.least,
                max=series.most,
            )
            for series, total, counts in copies
        ]
        histogram = data.Histogram(points, data.AggregationTemporality.CUMULATIVE)
        metric = data.Metric(DURATION, "Duration of HTTP client requests.", "s", histogram)
        of_scope = data.ScopeMetrics(scope, [metric], "")
        return data.MetricsData([data.ResourceMetrics(resource, [of_scope], "")])


class _ToStructlog(logging.Handler):
    """Says what the exporters say as a line of our own log."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("telemetry_problem", message=record.getMessage()[:_LONGEST_MESSAGE])


def _log_by_structlog() -> None:
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _ToStructlog) for handler in logger.handlers):
        logger.addHandler(_ToStructlog(logging.WARNING))
        logger.propagate = False
