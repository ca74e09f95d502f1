"""What the API says when it can not do what it was asked for: application/problem+json (RFC 9457)."""

from __future__ import annotations

import errno
import traceback
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from fetcher.config.problems import ConfigProblems
from fetcher.errors import BatchStateError, ConfigError, CursorError, FetcherError, StateError, UnknownBatchError
from fetcher.service.models import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

MEDIA_TYPE = "application/problem+json"
_KEPT = frozenset({"Allow", "Retry-After"})
_LATER = {"Retry-After": "5"}
_STATUSES = (
    (UnknownBatchError, HTTPStatus.NOT_FOUND),
    (BatchStateError, HTTPStatus.CONFLICT),
    (CursorError, HTTPStatus.BAD_REQUEST),
    (ConfigError, HTTPStatus.UNPROCESSABLE_ENTITY),
    # The service ends, or its disk is in trouble; /readyz says more.
    (StateError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger()


class ProblemError(Exception):
    """Ends a request with a problem: ``detail`` says what was wrong and what to do.

    ``close``: the connection ends with the answer, as there is no telling what else would come over it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        problems: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        """Keep what the answer is made of."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.problems = list(problems)
        self.headers = dict(headers or {})
        self.close = close


def respond(
    status: int, detail: str | None, *, problems: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return the answer that tells a problem."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, problems=list(problems))
    return web.Response(
        status=status, body=problem.model_dump_json().encode(), content_type=MEDIA_TYPE, headers=headers
    )


@web.middleware
async def tell_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer. What is a fault of ours is logged, and only its id is told."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001  the boundary of a request: nothing may pass it
        answer = _answer(error) or _fault(request, error)
        if request.writer.output_size > 0:
            _break_off(request, error)
        return answer


def status_of(error: Exception) -> int:
    """Return the status with which an error is answered."""
    answer = _answer(error)
    return HTTPStatus.INTERNAL_SERVER_ERROR if answer is None else answer.status


def _answer(error: Exception) -> web.Response | None:  # noqa: PLR0911  a table
    match error:
        case ProblemError():
            return _of_problem(error)
        case web.HTTPException():
            return _of_http(error)
        case ConfigProblems():
            return respond(422, "the config can not be used as it stands", problems=error.problems)
        case FetcherError():
            return _of_ours(error)
        case RequestPayloadError():
            return respond(400, "the body ends early, or is not framed as HTTP has it")
        case ConnectionError():
            # Nobody is there to read it; the connection finds that out by itself.
            return respond(400, "the connection was lost")
        case OSError() if error.errno in _DISK_FULL:
            return respond(507, "the disk of the service is full")
    return None


def _of_problem(error: ProblemError) -> web.Response:
    answer = respond(error.status, error.detail, problems=error.problems, headers=error.headers)
    if error.close:
        answer.force_close()
    return answer


def _of_ours(error: FetcherError) -> web.Response | None:
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if status is None:
        return None
    return respond(status, str(error), headers=_LATER if status == HTTPStatus.SERVICE_UNAVAILABLE else None)


def _of_http(error: web.HTTPException) -> web.Response:
    """Answer for what aiohttp refuses by itself: no such path, no such method, a body that is too large."""
    details = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; /openapi.json says what there is",
        HTTPStatus.METHOD_NOT_ALLOWED: f"this can not be asked with {getattr(error, 'method', 'this method')}",
    }
    kept = {name: value for name, value in error.headers.items() if name in _KEPT}
    return respond(error.status, details.get(HTTPStatus(error.status), error.text), headers=kept)


def trace(error: BaseException | None) -> str:
    """Return where an error comes from, for the log."""
    return "".join(traceback.format_exception(error, limit=-20))


def _break_off(request: web.Request, error: Exception) -> None:
    """End an answer that has begun in a way that nobody can take for its end."""
    if not isinstance(error, ConnectionError):
        log.error("api_answer_broken_off", path=request.path[:200], reason=str(error))
    if request.transport is not None:
        request.transport.abort()


def _fault(request: web.Request, error: Exception) -> web.Response:
    number = uuid.uuid4().hex[:12]
    log.error("api_fault", id=number, method=request.method, path=request.path[:200], trace=trace(error))
    return respond(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"this is a fault of the service; its log says more at api_fault {number}"
    )
