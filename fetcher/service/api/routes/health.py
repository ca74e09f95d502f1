"""What probes and Prometheus ask for."""

from __future__ import annotations

import asyncio
import shutil
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from fetcher.service.api.operations import Operation, Reply
from fetcher.service.api.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fetcher.service.api.desk import Desk
    from fetcher.service.models import SinkView, Snapshot

TAG = "Operating"
SINK_SECONDS = 60.0
"""A sink that is needed may be away for so long before the service says that it is not ready."""
LEAST_FREE = 64 * 1024 * 1024
"""With less room on the disk than that, in bytes, no batch can be taken durably."""
_TEXT = ("text/plain",)


def unready(snapshot: Snapshot, free: int) -> list[str]:
    """Return why no more work should be sent here, nothing if all is well.

    Anybody may ask, so it names neither batches nor hosts; the snapshot does.
    """
    reasons = [] if snapshot.state == "ready" else [f"the service is {snapshot.state}"]
    stuck = _stuck(snapshot.sinks)
    if stuck:
        reasons.append(f"{stuck} required sink(s) of running batches have taken nothing for more than a minute")
    if free < LEAST_FREE:
        reasons.append(f"the disk of service.state_dir has {free // 2**20} MiB left")
    return reasons


def _stuck(sinks: Iterable[SinkView]) -> int:
    return sum(sink.required and sink.trouble is not None and sink.trouble_seconds > SINK_SECONDS for sink in sinks)


def operations(desk: Desk) -> list[Operation]:
    """Return what says how the service is doing."""

    async def livez(_: web.Request, __: None) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request, __: None) -> web.Response:
        free = (await asyncio.to_thread(shutil.disk_usage, desk.config.service.state_dir)).free
        reasons = unready(desk.snapshot(), free)
        if reasons:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "the service takes no work now", problems=reasons)
        return web.Response(text="ready\n")

    async def metrics(request: web.Request, _: None) -> web.StreamResponse:
        if desk.metrics is None:
            raise web.HTTPNotFound
        return await desk.metrics(request)

    return [
        Operation(
            "livez",
            "GET",
            "/livez",
            "Whether the process answers",
            livez,
            (Reply(200, "It does.", _TEXT),),
            TAG,
            scope=None,
        ),
        Operation(
            "readyz",
            "GET",
            "/readyz",
            "Whether batches can be sent to the service",
            readyz,
            (Reply(200, "They can.", _TEXT),),
            TAG,
            scope=None,
            problems=frozenset({HTTPStatus.SERVICE_UNAVAILABLE.value}),
        ),
        Operation(
            "metrics",
            "GET",
            "/metrics",
            "Figures for Prometheus",
            metrics,
            (Reply(200, "The figures.", ("text/plain", "application/openmetrics-text")),),
            TAG,
            problems=frozenset({HTTPStatus.NOT_FOUND.value}),
        ),
    ]
