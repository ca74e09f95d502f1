"""A collector of OpenTelemetry data that keeps what it is sent, by OTLP over HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Keeps what it is sent."""

    def __init__(self):
        self.traces, self.metrics, self.headers = [], [], []
        self.arrived = asyncio.Event()

    async def start(self):
        app = web.Application()
        app.router.add_post("/v1/traces", self._take(ExportTraceServiceRequest, self.traces))
        app.router.add_post("/v1/metrics", self._take(ExportMetricsServiceRequest, self.metrics))
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self):
        await self._runner.cleanup()

    def _take(self, kind, into):
        async def take(request):
            self.headers.append(dict(request.headers))
            into.append(kind.FromString(await request.read()))
            self.arrived.set()
            return web.Response(content_type="application/x-protobuf")

        return take

    @property
    def spans(self):
        return [
            span
            for sent in self.traces
            for resource in sent.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def points(self):
        """Those of the last message."""
        (resource,) = self.metrics[-1].resource_metrics
        (scope,) = resource.scope_metrics
        (metric,) = scope.metrics
        assert (metric.name, metric.unit) == ("http.client.request.duration", "s")
        return list(metric.histogram.data_points)


def attributes(message):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in message.attributes}
