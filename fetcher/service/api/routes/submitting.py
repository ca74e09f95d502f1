"""``POST /v1/batches``: a config, a file of URLs, or both."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import Field

from fetcher.config import ConfigProblems
from fetcher.config.model import BatchName
from fetcher.service.api import idempotency
from fetcher.service.api.forms import FormReader
from fetcher.service.api.operations import (
    CALLER,
    DECIMAL,
    SUBJECT,
    WHOLE,
    Body,
    Header,
    Operation,
    Query,
    Reply,
    reply_json,
)
from fetcher.service.api.problems import ProblemError
from fetcher.service.api.reception import in_time, read_text, ready_for_body
from fetcher.service.api.routes.batches import TAG
from fetcher.service.batches.submission import UPLOAD
from fetcher.service.batches.texts import from_json, renamed
from fetcher.service.models import BatchView

if TYPE_CHECKING:
    from pathlib import Path

    from fetcher.service.api.desk import Desk
    from fetcher.service.api.reception import Reception
    from fetcher.service.keeper import Keeper
    from fetcher.service.settings import ServiceSettings

YAML = ("application/yaml", "application/x-yaml", "text/yaml")
JSON = "application/json"
UPLOADS = {
    "text/plain": ".txt",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}
"""What a file of URLs may be, and the suffix that says so."""
MULTIPART = "multipart/form-data"
_LONGEST_NAME = 100
_JSON_NAME = "batch.json"


class UploadQuery(Query):
    """What is said of a file of URLs that comes without a config. A config says it itself."""

    name: BatchName | None = None
    """What the batch is called."""
    priority: Annotated[int, Field(ge=-1000, le=1000), WHOLE] | None = None
    """A batch of a higher priority goes before all others."""
    weight: Annotated[float, Field(ge=0.001, le=1000), DECIMAL] | None = None
    """A batch of weight 2 gets twice as much as one of weight 1."""
    column: str | None = Field(default=None, min_length=1, max_length=200)
    """The csv column, or the field of each line of JSON, that holds the URL."""


@dataclass
class Submission:
    """What has come so far."""

    config: str | None = None
    upload: Path | None = None
    name: str = "batch.yaml"
    """What messages call the config; a batch that has no name is called after it."""
    file_name: str = "urls"
    """What messages call the file of URLs."""


def operation(desk: Desk, reception: Reception) -> Operation:
    """Return how a batch is submitted."""

    async def handle(request: web.Request, query: UploadQuery) -> web.Response:
        batch_id = idempotency.batch_id(request, request[CALLER].name)
        repeated = batch_id is not None and desk.keeper.find(batch_id) is not None
        async with AsyncExitStack() as stack:
            submission = await _receive(request, query, desk.config.service, reception, stack)
            try:
                view = await _submit(desk.keeper, submission, batch_id)
            except ConfigProblems as error:
                raise ConfigProblems([_told(line, submission) for line in error.problems]) from None
        request[SUBJECT] = view.id
        status = HTTPStatus.OK if repeated else HTTPStatus.CREATED
        return reply_json(view, status, {"Location": f"/v1/batches/{view.id}"})

    return Operation(
        "submitBatch",
        "POST",
        "/v1/batches",
        "Submit a batch: a config, a file of URLs, or both",
        handle,
        _REPLIES,
        TAG,
        description="The batch is durable when this is answered. With an Idempotency-Key, a submission may be repeated "
        "until there is an answer: it is taken once.",
        scope="write",
        query=UploadQuery,
        headers=(
            Header(
                "Idempotency-Key",
                "Any text of the client's choosing. A batch that was submitted with the same key is returned, and no "
                "second one made.",
                {"type": "string", "pattern": idempotency.PATTERN},
            ),
        ),
        bodies=_BODIES,
        problems=frozenset({408, 413, 415, 422, 503, 507}),
    )


async def _submit(keeper: Keeper, submission: Submission, batch_id: str | None) -> BatchView:
    """Have the batch taken. One with the id of an earlier one is that one, if it is the same."""
    text, upload = submission.config or "{}", submission.upload
    if batch_id is None:
        return await keeper.submit(text, submission.name, "api", upload=upload)
    text = await asyncio.to_thread(idempotency.signed, text, upload)
    view = await keeper.submit(text, submission.name, "api", upload=upload, batch_id=batch_id)
    idempotency.check_same(text, await asyncio.to_thread(keeper.text, view.id))
    return view


def _told(problem: str, submission: Submission) -> str:
    """Return a problem in which the file of URLs has the name that the client knows it by."""
    return problem if submission.upload is None else renamed(problem, submission.upload, submission.file_name)


async def _receive(
    request: web.Request, query: UploadQuery, settings: ServiceSettings, reception: Reception, stack: AsyncExitStack
) -> Submission:
    """Read what was sent. Files are deleted when the stack is left, unless they were moved away."""
    stack.enter_context(reception.room())
    kind = request.content_type
    if "Content-Type" not in request.headers:
        raise _unsupported("nothing says what is sent")
    if kind in UPLOADS:
        read = await ready_for_body(request, settings.max_upload)
        path = await stack.enter_async_context(reception.file(read, UPLOADS[kind], settings.max_upload))
        _check_not_empty(path)
        return Submission(_config_of(query), path, "urls.yaml")
    if query != UploadQuery():
        raise ProblemError(
            HTTPStatus.BAD_REQUEST, "the query is for a file of URLs that comes alone; write this into the config"
        )
    if kind == MULTIPART:
        return await _receive_parts(request, settings, reception, stack)
    if kind != JSON and kind not in YAML:
        raise _unsupported(f"{kind[:100]} is nothing that a batch can be made of")
    text = await read_text(await ready_for_body(request, settings.max_config), settings.max_config)
    return Submission(from_json(text, _JSON_NAME), name=_JSON_NAME) if kind == JSON else Submission(text)


def _unsupported(what: str) -> ProblemError:
    known = ", ".join([YAML[0], JSON, *UPLOADS, MULTIPART])
    return ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{what}; Content-Type should be one of {known}", headers={"Accept": known}
    )


def _check_not_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the file of URLs is empty")


def _config_of(query: UploadQuery) -> str:
    """Return the config of a batch that is a file of URLs, and what the query says."""
    config: dict[str, Any] = query.model_dump(exclude_none=True, exclude={"column"})
    if query.column is not None:
        config["sources"] = [{"type": "file", "path": UPLOAD, "column": query.column}]
    return json.dumps(config, ensure_ascii=False)


async def _receive_parts(
    request: web.Request, settings: ServiceSettings, reception: Reception, stack: AsyncExitStack
) -> Submission:
    """Read the parts ``config`` and ``urls`` of a form."""
    await ready_for_body(request, settings.max_config + settings.max_upload)
    submission = Submission()
    try:
        reader = FormReader(request.headers, request.content)
        while True:
            async with in_time():
                part = await reader.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader):
                raise ProblemError(HTTPStatus.BAD_REQUEST, "a part of the form has parts itself")
            await _receive_part(part, submission, settings, reception, stack)
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        # What aiohttp says of a form that is none, in many ways.
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the form is not framed as multipart/form-data has it") from error
    if submission.config is None and submission.upload is None:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the form has neither a part config nor a part urls")
    return submission


async def _receive_part(
    part: BodyPartReader,
    submission: Submission,
    settings: ServiceSettings,
    reception: Reception,
    stack: AsyncExitStack,
) -> None:
    if "Content-Encoding" in part.headers or "Content-Transfer-Encoding" in part.headers:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a part of the form is encoded; send it as it is")
    kind = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if part.name == "config" and submission.config is None:
        text = await read_text(part.read_chunk, settings.max_config)
        submission.config = from_json(text, _JSON_NAME) if kind == JSON else text
    elif part.name == "urls" and submission.upload is None:
        suffix = "".join(PurePath(part.filename or "").suffixes[-2:]).lower()
        suffix = suffix if re.fullmatch(r"[.a-z0-9]{1,20}", suffix) else UPLOADS.get(kind, ".txt")
        submission.file_name = _file_name(part.filename)
        submission.upload = await stack.enter_async_context(
            reception.file(part.read_chunk, suffix, settings.max_upload)
        )
        _check_not_empty(submission.upload)
    else:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "the form should have a part config, a part urls, and no others")


def _file_name(given: str | None) -> str:
    """Return what messages call a file that its client calls so."""
    name = PurePath(given or "").name[:_LONGEST_NAME]
    return name if name and name.isprintable() else "urls"


_CONFIG_TEXT = "name: weekly\nsources:\n  - urls.csv\nlimits:\n  per_host:\n    rate: 5/s\n"
_RAW: dict[str, Any] = {}  # bytes, of which JSON Schema can say nothing (OpenAPI 3.1.1, section 4.8.14)
_FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
_REPLIES = (
    Reply(201, "The batch was taken.", model=BatchView, headers=(("Location", "The path of the batch."),)),
    Reply(
        200,
        "It was taken before, with the same Idempotency-Key.",
        model=BatchView,
        headers=(("Location", "The path of the batch."),),
    ),
)
_BODIES = (
    Body(
        "A config, as `fetcher run` has it; `fetcher schema` prints its schema.", YAML, {"type": "string"}, _CONFIG_TEXT
    ),
    Body("The same as JSON.", (JSON,), {"type": "object"}, {"name": "weekly", "sources": ["urls.csv"]}),
    Body("URLs, one a line.", ("text/plain",), _RAW),
    Body(
        "A table with a column of URLs.",
        ("text/csv", "text/tab-separated-values"),
        _RAW,
    ),
    Body("A JSON object a line.", ("application/x-ndjson", "application/jsonl"), _RAW),
    Body(
        "A config and a file of URLs, either of which may be missing. A source of the config names the file as the "
        f"path {UPLOAD}; otherwise it is added to the sources.",
        (MULTIPART,),
        {
            "type": "object",
            "properties": {"config": {"type": "string"}, "urls": _FILE},
            "additionalProperties": False,
            "minProperties": 1,
        },
    ),
)
