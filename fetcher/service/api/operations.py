"""What an operation of the API is.

One declaration registers its route, checks who asks and what is asked, and becomes its part of the OpenAPI document,
so that the document can not say something else than what happens.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from fetcher.config.problems import sentence
from fetcher.service.api.access import Caller, authorize
from fetcher.service.api.problems import ProblemError, status_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from fetcher.service.settings import Scope, TokenSettings

JSON = "application/json"
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
"""Who asks, in a request that was let through."""
SUBJECT: web.RequestKey[str] = web.RequestKey("subject", str)
"""Which batch it turned out to be about, for the log."""
_WHOLE_TEXT = re.compile(r"-?[0-9]{1,18}")
_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")

log = structlog.get_logger()


class Query(BaseModel):
    """The parameters in the query of a URL, each of them text. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _written(pattern: re.Pattern[str], what: str) -> BeforeValidator:
    def check(value: object) -> object:
        # pydantic takes more than JSON does: 1_000, 5.0 for a whole number, spaces.
        if isinstance(value, str) and not pattern.fullmatch(value):
            raise PydanticCustomError("number", "should be {what}", {"what": what})
        return value

    return BeforeValidator(check)


# To be the last annotation of a parameter: its bounds are on the number.
WHOLE = _written(_WHOLE_TEXT, "a whole number")
DECIMAL = _written(_DECIMAL_TEXT, "a number")

Handler = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]
"""Takes the request and its query, which has been checked."""


class Reply(NamedTuple):
    """What an operation answers when all is well. Each header has a sentence that says what is in it."""

    status: int
    description: str
    media_types: tuple[str, ...] = (JSON,)
    model: type[BaseModel] | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Body(NamedTuple):
    """What may be sent along: its media types, and its schema (JSON Schema 2020-12)."""

    description: str
    media_types: tuple[str, ...]
    schema: dict[str, Any]
    example: str | dict[str, Any] | None = None


class Header(NamedTuple):
    """A field of the request that the operation looks at."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One thing to ask for."""

    id: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Names in braces are parts of the path."""
    summary: str
    handler: Handler
    replies: tuple[Reply, ...]
    tag: str
    description: str = ""
    scope: Scope | None = "read"
    """What the token has to allow; None takes no token."""
    query: type[Query] | None = None
    headers: tuple[Header, ...] = ()
    bodies: tuple[Body, ...] = ()
    problems: frozenset[int] = frozenset()
    """The statuses of problems of its own, beside those that any operation may have."""


def register(
    app: web.Application, operations: Sequence[Operation], tokens: Callable[[], Sequence[TokenSettings]]
) -> None:
    """Have the application answer the operations, to those who have one of the tokens as they are then."""
    for operation in operations:
        handler = _guarded(operation, tokens)
        app.router.add_route(operation.method, operation.path, handler, expect_handler=_expect_nothing)
        if operation.scope is None:
            # Some probes ask for no body.
            app.router.add_route("HEAD", operation.path, handler, expect_handler=_expect_nothing)


async def _expect_nothing(_: web.Request) -> None:
    """Leave it to whoever reads the body to ask for it (RFC 9110, section 10.1.1): it may well be refused before."""


def _guarded(
    operation: Operation, tokens: Callable[[], Sequence[TokenSettings]]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Return the handler of a route: who asks, what is asked, and a line in the log for what changes something."""

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = authorize(request.headers, tokens(), operation.scope)
        request[CALLER] = caller
        query = _read_query(operation.query, request)
        if operation.scope != "write":
            return await operation.handler(request, query)
        return await _noted(operation, request, query)

    return handle


async def _noted(operation: Operation, request: web.Request, query: Query | None) -> web.StreamResponse:
    """Answer a request that changes something, and write down who has asked for what."""
    try:
        response = await operation.handler(request, query)
    except Exception as error:
        _note(operation, request, status_of(error))
        raise
    _note(operation, request, response.status)
    return response


def _note(operation: Operation, request: web.Request, status: int) -> None:
    batch = request.get(SUBJECT) or request.match_info.get("batch_id")
    log.info("api_write", operation=operation.id, who=request[CALLER].name, batch=batch, status=int(status))


def _read_query(model: type[Query] | None, request: web.Request) -> Query | None:
    given = request.query
    twice = sorted({name for name in given if len(given.getall(name)) > 1})
    if twice:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "the query can not be used as it stands",
            problems=[f"{_shown(name)}: is given more than once" for name in twice],
        )
    if model is None:
        if given:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "this takes no parameters in the query")
        return None
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problems = [f"{_shown(problem['loc'][0])}: {_sentence(problem)}" for problem in error.errors()]
    raise ProblemError(HTTPStatus.BAD_REQUEST, "the query can not be used as it stands", problems=problems)


def _shown(name: object) -> str:
    return str(name)[:60]


def _sentence(problem: ErrorDetails) -> str:
    return "is not a parameter of this" if problem["type"] == "extra_forbidden" else sentence(problem)


def reply_json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a model as the answer."""
    return web.Response(
        status=status, body=model.model_dump_json().encode(), content_type=JSON, charset="utf-8", headers=headers
    )
