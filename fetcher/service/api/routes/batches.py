"""Batches: which there are, how far they are, and what is to become of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from aiohttp import web
from pydantic import Field

from fetcher.service.api.operations import WHOLE, Operation, Query, Reply, reply_json
from fetcher.service.models import BatchPage, BatchView, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.service.api.desk import Desk

TAG = "Batches"
PATH = "/v1/batches/{batch_id}"
_UNKNOWN = frozenset({HTTPStatus.NOT_FOUND.value})
_REFUSED = _UNKNOWN | {HTTPStatus.CONFLICT.value}


class ListQuery(Query):
    """Which batches."""

    state: State | None = None
    """Only those in this state."""
    limit: Annotated[int, Field(ge=1, le=500), WHOLE] = 50
    """How many at most."""
    cursor: str | None = Field(default=None, min_length=1, max_length=200)
    """``next`` of the page before."""


def operations(desk: Desk) -> list[Operation]:
    """Return what can be asked about batches that there are."""
    keeper = desk.keeper

    async def list_batches(_: web.Request, query: ListQuery) -> web.Response:
        state = None if query.state is None else query.state.value
        return reply_json(keeper.list(state=state, limit=query.limit, cursor=query.cursor))

    async def get_batch(request: web.Request, _: None) -> web.Response:
        return reply_json(keeper.get(request.match_info["batch_id"]))

    async def delete_batch(request: web.Request, _: None) -> web.Response:
        await keeper.delete(request.match_info["batch_id"])
        return web.Response(status=HTTPStatus.NO_CONTENT)

    listing = Operation(
        "listBatches",
        "GET",
        "/v1/batches",
        "List batches, the latest first",
        list_batches,
        (Reply(200, "A page of batches.", model=BatchPage),),
        TAG,
        query=ListQuery,
    )
    getting = Operation(
        "getBatch",
        "GET",
        PATH,
        "How far a batch is: progress, rates, error kinds with examples",
        get_batch,
        (Reply(200, "The batch.", model=BatchView),),
        TAG,
        problems=_UNKNOWN,
    )
    deleting = Operation(
        "deleteBatch",
        "DELETE",
        PATH,
        "Forget a batch that has ended, with its results",
        delete_batch,
        (Reply(204, "It is gone.", media_types=()),),
        TAG,
        scope="write",
        problems=_REFUSED,
    )
    return [
        listing,
        getting,
        _action("pause", keeper.pause, "End the requests in flight, and start no more until the batch is resumed"),
        _action("resume", keeper.resume, "Let a paused batch go on where it stopped"),
        _action("cancel", keeper.cancel, "End a batch at once; what it has got by then is kept"),
        _retry(desk),
        deleting,
    ]


def _action(
    name: Literal["pause", "resume", "cancel"], act: Callable[[str], Awaitable[BatchView]], summary: str
) -> Operation:
    async def handle(request: web.Request, _: None) -> web.Response:
        return reply_json(await act(request.match_info["batch_id"]))

    return Operation(
        f"{name}Batch",
        "POST",
        f"{PATH}/{name}",
        summary,
        handle,
        (Reply(200, "The batch.", model=BatchView),),
        TAG,
        scope="write",
        problems=_REFUSED,
    )


def _retry(desk: Desk) -> Operation:
    async def handle(request: web.Request, _: None) -> web.Response:
        batch_id = request.match_info["batch_id"]
        view = await desk.keeper.retry(batch_id)
        if view.id == batch_id:
            return reply_json(view)
        return reply_json(view, HTTPStatus.CREATED, {"Location": f"/v1/batches/{view.id}"})

    return Operation(
        "retryBatch",
        "POST",
        f"{PATH}/retry",
        "Try again what has failed",
        handle,
        (
            Reply(200, "The batch, which goes on where it stopped: it had not done all of its jobs.", model=BatchView),
            Reply(
                201,
                "A new batch of the failed jobs of one that was done.",
                model=BatchView,
                headers=(("Location", "The path of the new batch."),),
            ),
        ),
        TAG,
        scope="write",
        problems=_REFUSED,
    )
