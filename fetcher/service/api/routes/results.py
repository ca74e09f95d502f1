"""The records of a batch, as lines of JSON."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from aiohttp import web
from pydantic import Field

from fetcher.errors import ErrorKind
from fetcher.model import Outcome
from fetcher.service.api.operations import WHOLE, Operation, Query, Reply
from fetcher.service.api.problems import ProblemError
from fetcher.service.api.routes.batches import PATH, TAG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fetcher.service.api.desk import Desk

MEDIA_TYPE = "application/x-ndjson"
NEXT = "Fetcher-Next-Cursor"
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends after so many bytes, if not before by its ``limit``."""
_MOST_CURSOR = 10**18


class ResultsQuery(Query):
    """Which records."""

    outcome: Outcome | None = None
    """Only those with this outcome."""
    kind: ErrorKind | None = None
    """Only those with this error kind."""
    cursor: Annotated[int, Field(ge=0, le=_MOST_CURSOR), WHOLE] = 0
    """Where to go on: ``Fetcher-Next-Cursor`` of the answer before; 0 is the beginning."""
    limit: Annotated[int, Field(ge=1, le=10_000), WHOLE] | None = None
    """How many records at most; without it, all that there are now."""


def operation(desk: Desk) -> Operation:
    """Return how records are asked for."""

    async def handle(request: web.Request, query: ResultsQuery) -> web.StreamResponse:
        batch_id = request.match_info["batch_id"]
        end = desk.keeper.acknowledged(batch_id)
        if query.cursor > end:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"cursor {query.cursor} lies behind the last record")
        parts = desk.keeper.results(
            batch_id, cursor=query.cursor, end=end, outcome=query.outcome, kind=query.kind, limit=query.limit
        )
        if query.limit is not None:
            return await _page(request, query.cursor, end, parts)
        return await _stream(request, end, parts)

    return Operation(
        "getResults",
        "GET",
        f"{PATH}/results",
        "The records of a batch, as lines of JSON",
        handle,
        (
            Reply(
                200,
                "WHOLE records, one a line, in the order in which they were written.",
                (MEDIA_TYPE,),
                headers=((NEXT, "The cursor that goes on after these."), ("Link", "rel=next, if there are more now.")),
            ),
        ),
        TAG,
        description="Without limit, all records that there are at this moment are streamed. A batch that runs will "
        "have more later: ask again with the cursor that the answer names. A record that was given is final.",
        query=ResultsQuery,
        problems=frozenset({HTTPStatus.NOT_FOUND.value}),
    )


async def _page(
    request: web.Request, cursor: int, end: int, parts: AsyncIterator[tuple[bytes, int]]
) -> web.StreamResponse:
    """Answer with a few records, which are few enough to be held."""
    page = bytearray()
    async with aclosing(parts) as reading:  # type: ignore[type-var]
        async for lines, after in reading:
            page += lines
            cursor = after
            if len(page) >= PAGE_BYTES:
                break
    headers = {NEXT: str(cursor)}
    if cursor < end:
        headers["Link"] = f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'
    return web.Response(body=bytes(page), content_type=MEDIA_TYPE, headers=headers)


async def _stream(request: web.Request, end: int, parts: AsyncIterator[tuple[bytes, int]]) -> web.StreamResponse:
    """Answer with all records up to the end that was known at the beginning, as fast as the client takes them."""
    response = web.StreamResponse(headers={NEXT: str(end)})
    response.content_type = MEDIA_TYPE
    async with aclosing(parts) as reading:  # type: ignore[type-var]
        # A cursor that is none is found before the answer has begun.
        first = await anext(reading, None)
        await response.prepare(request)
        if first is not None:
            await response.write(first[0])
        async for lines, _ in reading:
            await response.write(lines)
    return response
