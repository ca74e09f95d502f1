"""The one boundary at which whatever a fetch did becomes a Result. Nothing is raised past it but cancellation."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from fetcher.engine.retry import Attempt
from fetcher.errors import SKIPPING, ErrorKind, FetchError, SinkError, StateError
from fetcher.model import Outcome, Response, Result, method_with_body
from fetcher.retry_after import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fetcher.answers.expectations import Expectation
    from fetcher.interfaces import Transport
    from fetcher.model import Job, Rejection

_REDIRECT_STATUS = 300
_NOT_MODIFIED = 304
_KIND_OF_CLASS = {3: ErrorKind.HTTP_3XX, 4: ErrorKind.HTTP_4XX}


class Worker:
    """Makes single attempts: picks the transport by the scheme of the URL and describes what came of it.

    ``deadline`` is how many seconds a job has from the start of its first attempt on, over all attempts.
    ``on_crawl_delay`` is told of responses that say how often their host wants to be asked, ``on_charge`` of those
    that say what is left of a budget, or that took more than one request of it, and how many seconds ago the attempt
    began. ``expect`` is what answers are held to, None if there is nothing but their status.
    """

    def __init__(
        self,
        batch: str,
        transports: Mapping[str, Transport],
        default_method: str,
        deadline: float = inf,
        on_crawl_delay: Callable[[Job, Response], None] | None = None,
        expect: Expectation | None = None,
        on_charge: Callable[[Job, Response, float], None] | None = None,
    ) -> None:
        self._batch = batch
        self._transports = transports
        self._default_method = default_method
        self._method_with_body = method_with_body(default_method)
        self._deadline = deadline
        self._on_crawl_delay = on_crawl_delay
        self._on_charge = on_charge
        self._expect = expect

    async def attempt(self, job: Job, queued: float) -> tuple[Result, Attempt | None]:
        """Make one attempt and return its result, and what there is to decide about if it did not end well.

        ``queued`` is how many seconds the job was held before.
        """
        started_at = time.time()
        started = time.perf_counter()
        age = 0.0 if job.first_started_at is None else started_at - job.first_started_at
        answer = await self._fetch(job, self._deadline - age)
        total = time.perf_counter() - started
        method = job.method
        if method is None:
            method = self._default_method if job.body is None and job.parts is None else self._method_with_body
        result = Result(
            batch=self._batch,
            job_id=job.id,
            url=job.url,
            method=method,
            outcome=Outcome.OK,
            attempts=job.attempts + 1,
            started_at=datetime.fromtimestamp(started_at, UTC),
            finished_at=datetime.fromtimestamp(started_at + total, UTC),
            queue_s=round(queued, 6),
            total_s=round(total, 6),
            meta=job.meta,
        )
        if job.parent is not None:
            result.parent_id, result.page = job.parent, job.page
        if isinstance(answer, Response):
            _describe(result, answer)
            if answer.rate_limit is not None or answer.more:
                self._charge(job, answer, total)
            if answer.crawl_delay is not None and self._on_crawl_delay is not None:
                self._on_crawl_delay(job, answer)
            if self._expect is not None:
                await _hold_to(self._expect, result, answer)
        else:
            _describe_error(result, answer)
            if answer.response is not None:
                self._charge(job, answer.response, total)
        if result.outcome is Outcome.OK:
            return result, None
        # What counts is the method that the job began with, whatever a redirect made of it.
        return result, _attempt(result, answer, method, age + total)

    def _charge(self, job: Job, response: Response, took: float) -> None:
        if self._on_charge is not None and (response.rate_limit is not None or response.more):
            self._on_charge(job, response, took)

    async def _fetch(self, job: Job, within: float) -> Response | FetchError:
        try:
            return await self._transports[job.url.partition(":")[0]].fetch(job, within)
        except FetchError as error:
            return error
        except asyncio.CancelledError:
            # A library that cancels what several tasks wait for must not end a worker, and with it the job.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return FetchError(ErrorKind.INTERNAL, "the transport cancelled its own fetch")
        except (SinkError, StateError):
            # A disk that takes no more bodies is no fault of any job: the run stops, and all of them are kept.
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours must cost one job, not the run
            return FetchError(ErrorKind.INTERNAL, f"{type(error).__name__}: {error}")

    def skip(self, job: Job, reason: Rejection) -> Result:
        """Return the result of a job that is not fetched, or not tried again, for a reason that is not its own."""
        now = datetime.now(UTC)
        return Result(
            batch=self._batch,
            job_id=job.id,
            parent_id=job.parent,
            page=None if job.parent is None else job.page,
            url=job.url,
            outcome=Outcome.SKIPPED,
            error_kind=reason.kind,
            error_message=reason.message,
            attempts=job.attempts,
            finished_at=now,
            meta=job.meta,
        )


def _describe(result: Result, response: Response) -> None:
    status = response.status
    result.final_url = response.final_url
    result.method = response.method
    result.status = status
    result.http_version = response.http_version
    result.remote_ip = response.remote_ip
    result.proxy = response.proxy
    result.verified = None if response.verified else False
    result.headers = response.headers
    result.content_type = response.content_type
    result.content_length = response.content_length
    result.body_size = response.body_size
    result.wire_size = response.wire_size
    result.truncated = response.truncated or None
    result.length_unknown = response.length_unknown or None
    result.content_encoding = response.content_encoding
    result.resumed_at = response.resumed_at
    result.revalidated = response.revalidated or None
    result.sha256 = response.sha256
    result.body = response.body
    result.body_path = response.body_path
    result.redirects = response.redirects or None
    timings = response.timings
    result.dns_s = timings.dns
    result.connect_s = timings.connect
    result.tls_s = timings.tls
    result.first_byte_s = timings.first_byte
    if status is not None and status >= _REDIRECT_STATUS and status != _NOT_MODIFIED:
        result.outcome = Outcome.FAILED
        result.error_kind = _KIND_OF_CLASS.get(status // 100, ErrorKind.HTTP_5XX)
        result.error_message = f"the server answered {status}"


async def _hold_to(expect: Expectation, result: Result, response: Response) -> None:
    """Change the outcome that an answer has by its status to the one that it has by what was expected of it."""
    usual = result.outcome is Outcome.OK
    if not expect.takes(response, usual=usual):
        missed = expect.status_missed(response) if usual else None
    else:
        result.outcome, result.error_kind, result.error_message = Outcome.OK, None, None
        if expect.takes_long(response):
            missed = await asyncio.to_thread(expect.missed, response)
        else:
            missed = expect.missed(response)
    if missed is not None:
        result.outcome, result.error_kind, result.error_message = Outcome.FAILED, ErrorKind.UNEXPECTED, missed


def _describe_error(result: Result, error: FetchError) -> None:
    if error.response is not None:
        _describe(result, error.response)
    result.outcome = Outcome.SKIPPED if error.kind in SKIPPING else Outcome.FAILED
    result.error_kind = error.kind
    result.error_message = error.message
    result.status = error.status
    result.redirects = list(error.redirects) or result.redirects


def _header(response: Response, wanted: str) -> str | None:
    return next((value for name, value in response.headers if name.lower() == wanted), None)


def _attempt(result: Result, answer: Response | FetchError, method: str, age: float) -> Attempt:
    retry_after = None
    head = answer if isinstance(answer, Response) else answer.response
    if head is not None:
        value = _header(head, "retry-after")
        if value is not None:
            retry_after = parse_retry_after(value, datetime.now(UTC), _header(head, "date"))
    return Attempt(
        number=result.attempts,
        age=age,
        method=method,
        status=result.status,
        kind=result.error_kind,
        sent=isinstance(answer, Response) or answer.sent,
        retry_after=retry_after,
        postpone=answer.postpone if isinstance(answer, FetchError) else None,
    )
