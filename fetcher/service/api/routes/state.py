"""The service as a whole: what the page shows, at once or as it changes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fetcher.service.api.operations import Operation, Reply, reply_json
from fetcher.service.models import FailureList, HostList, ScheduleList, SinkList, Snapshot, Why

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from pydantic import BaseModel

    from fetcher.service.api.desk import Desk

TAG = "Service"
NOT_MEASURED = Why(seconds=0.0, verdict="nothing is being fetched, so nothing bounds it")


def operations(desk: Desk) -> list[Operation]:
    """Return what can be asked about the service."""

    async def events(request: web.Request, _: None) -> web.StreamResponse:
        return await desk.events.handle(request, desk.snapshot, desk.history)

    async def schedules(_: web.Request, __: None) -> web.Response:
        return reply_json(desk.schedules())

    def of_snapshot(
        name: str, path: str, summary: str, model: type[BaseModel], part: Callable[[Snapshot], BaseModel]
    ) -> Operation:
        async def handle(_: web.Request, __: None) -> web.Response:
            return reply_json(part(desk.snapshot()))

        return Operation(name, "GET", path, summary, handle, (Reply(200, f"{summary}.", model=model),), TAG)

    return [
        of_snapshot("getSnapshot", "/v1/snapshot", "The service at this moment", Snapshot, lambda now: now),
        Operation(
            "listen",
            "GET",
            "/v1/events",
            "The service as it is, once a second, as server-sent events",
            events,
            (Reply(200, "Events named snapshot, each with a Snapshot as JSON.", ("text/event-stream",)),),
            TAG,
            problems=frozenset({HTTPStatus.SERVICE_UNAVAILABLE.value}),
        ),
        of_snapshot("why", "/v1/why", "What bounds the throughput right now", Why, lambda now: now.why or NOT_MEASURED),
        of_snapshot(
            "listHosts",
            "/v1/hosts",
            "The busiest hosts, and those in trouble",
            HostList,
            lambda now: HostList(hosts=now.hosts, total=now.hosts_total),
        ),
        of_snapshot(
            "listSinks", "/v1/sinks", "The sinks of running batches", SinkList, lambda now: SinkList(sinks=now.sinks)
        ),
        of_snapshot(
            "listFailures",
            "/v1/failures",
            "The jobs that failed last",
            FailureList,
            lambda now: FailureList(failures=now.failures),
        ),
        Operation(
            "listSchedules",
            "GET",
            "/v1/schedules",
            "What is submitted again and again",
            schedules,
            (Reply(200, "The schedules, with their last and next times.", model=ScheduleList),),
            TAG,
        ),
    ]
