"""Whatever a fetch does becomes a result."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC

import pytest

from fetcher.answers.expectations import LARGE, Expectation, ExpectSettings
from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job, Outcome, Redirect, Rejection, Response, Timings
from fetcher.testing import MockTransport, ok

JOB = Job(id="0-1", url="http://a.test/", host="a.test", meta={"x": 1})


def worker(respond=None, **settings):
    return Worker("b", {"http": MockTransport(respond, **settings)}, "GET")


def expecting(response, **expected):
    expectation = ExpectSettings(**expected).build()
    expectation.check()
    return Worker("b", {"http": MockTransport(lambda _: response)}, "GET", expect=expectation)


def raising(error):
    def respond(job):
        raise error

    return worker(respond)


async def test_a_response_is_described_in_full():
    response = Response(
        status=200,
        method="HEAD",
        final_url="http://b.test/",
        headers=[("A", "1"), ("A", "2")],
        body=b"x",
        body_size=1,
        wire_size=2,
        truncated=True,
        content_type="text/html",
        content_length=3,
        sha256="s",
        http_version="1.1",
        remote_ip="::1",
        redirects=[Redirect("http://a.test/", 301, "/b")],
        timings=Timings(1, 2, 3, 4),
    )
    result, attempt = await worker(lambda _: response).attempt(JOB, 0.5)
    assert attempt is None
    assert (result.outcome, result.attempts, result.batch, result.job_id, result.url) == (
        Outcome.OK, 1, "b", "0-1", "http://a.test/",
    )  # fmt: skip
    for name in (
        "status",
        "method",
        "final_url",
        "headers",
        "body",
        "body_size",
        "wire_size",
        "truncated",
        "sha256",
    ):
        assert getattr(result, name) == getattr(response, name)
    for name in ("content_type", "content_length", "http_version", "remote_ip", "redirects"):
        assert getattr(result, name) == getattr(response, name)
    assert (result.dns_s, result.connect_s, result.tls_s, result.first_byte_s) == (1, 2, 3, 4)
    assert (result.queue_s, result.meta) == (0.5, {"x": 1})
    assert result.started_at.tzinfo is UTC
    assert (result.finished_at - result.started_at).total_seconds() == pytest.approx(result.total_s, abs=1e-5)


@pytest.mark.parametrize(
    ("status", "kind"),
    [  # noqa: RUF005  clearer
        (200, None),
        (204, None),
        (299, None),
        (304, None),
        (300, "http_3xx"),
        (302, "http_3xx"),
        (404, "http_4xx"),
    ]
    + [(429, "http_4xx"), (500, "http_5xx"), (599, "http_5xx"), (999, "http_5xx")],
)
async def test_a_status_decides_the_outcome(status, kind):
    result, attempt = await worker(lambda job: ok(job, status=status)).attempt(JOB, 0)
    assert result.error_kind == kind
    assert result.outcome is (Outcome.FAILED if kind else Outcome.OK)
    assert (attempt is None) == (kind is None)
    assert result.status == status


async def test_a_fetch_error_keeps_its_kind_and_what_was_sent():
    error = FetchError(ErrorKind.READ_TIMEOUT, "slow", sent=False, status=200)
    result, attempt = await raising(error).attempt(JOB, 0)
    assert (result.outcome, result.error_kind, result.error_message, result.status) == (
        Outcome.FAILED, ErrorKind.READ_TIMEOUT, "slow", 200,
    )  # fmt: skip
    assert (attempt.kind, attempt.sent, attempt.status, attempt.number) == (
        ErrorKind.READ_TIMEOUT,
        False,
        200,
        1,
    )


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("http"), OSError(24, "files"), MemoryError(), TimeoutError()]
)
async def test_any_other_exception_is_internal_and_named(error):
    result, attempt = await raising(error).attempt(JOB, 0)
    assert result.error_kind is ErrorKind.INTERNAL
    assert result.error_message.startswith(type(error).__name__)
    assert attempt.sent


async def test_a_scheme_without_a_transport_is_internal_too():
    result, _ = await worker().attempt(Job(id="1", url="gopher://a/", host="a"), 0)
    assert result.error_kind is ErrorKind.INTERNAL


async def test_a_fetch_that_cancels_itself_is_a_failure_and_a_real_cancellation_is_not():
    result, _ = await raising(asyncio.CancelledError()).attempt(JOB, 0)
    assert result.error_kind is ErrorKind.INTERNAL
    task = asyncio.ensure_future(worker(gate=asyncio.Event()).attempt(JOB, 0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_attempts_and_age_go_on_from_those_before():
    job = Job(id="1", url="http://a.test/", host="a.test", method="POST", attempts=2, first_started_at=1.0)
    result, attempt = await worker(lambda job: ok(job, status=500)).attempt(job, 0)
    assert (result.attempts, attempt.number, attempt.method) == (3, 3, "POST")
    assert attempt.age > 1e9
    assert job.attempts == 2  # the engine counts, once the attempt is over


@pytest.mark.parametrize(("status", "expected"), [(503, 7.0), (429, 7.0), (404, 7.0)])
async def test_retry_after_is_read_from_an_error_response(status, expected):
    def respond(job):
        response = ok(job, status=status)
        response.headers.append(("RETRY-after", "7"))
        return response

    _, attempt = await worker(respond).attempt(JOB, 0)
    assert attempt.retry_after == expected


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (200, {"status": [200, 404]}, None),
        (404, {"status": [200, 404]}, None),
        (500, {"status": "5xx"}, None),
        (200, {"status": 204}, "unexpected"),
        (404, {"status": 200}, "http_4xx"),
        (429, {"status": 200, "json": "never"}, "http_4xx"),
        (503, {"json": "never"}, "http_5xx"),
        (200, {"json": "never"}, "unexpected"),
        (404, {"status": 404, "json": "never"}, "unexpected"),
    ],
)
async def test_what_is_expected_decides_the_outcome(status, expected, kind):
    response = ok(JOB, status=status)
    response.body = b"{}"
    result, attempt = await expecting(response, **expected).attempt(JOB, 0)
    assert (result.outcome, result.error_kind) == (Outcome.FAILED if kind else Outcome.OK, kind)
    assert (result.error_message is None) is (kind is None)
    assert (result.status, result.body) == (status, b"{}")
    assert (attempt and attempt.kind) == kind


async def test_a_large_body_is_looked_at_on_another_thread(monkeypatch):
    threads = []
    missed = Expectation.missed

    def noted(self, response):
        threads.append(threading.current_thread() is threading.main_thread())
        return missed(self, response)

    monkeypatch.setattr(Expectation, "missed", noted)
    response = ok(JOB)
    for size in (LARGE, LARGE + 1):
        response.body = b"[" + b" " * (size - 2) + b"]"
        result, _ = await expecting(response, json="length(@) == `0`").attempt(JOB, 0)
        assert result.outcome is Outcome.OK
    assert threads == [True, False]


async def test_what_was_not_had_is_not_held_to_anything():
    error = FetchError(ErrorKind.BODY_INCOMPLETE, "half", response=ok(JOB), status=200)

    def respond(_):
        raise error

    expectation = ExpectSettings(status=200).build()
    result, _ = await Worker("b", {"http": MockTransport(respond)}, "GET", expect=expectation).attempt(JOB, 0)
    assert result.error_kind is ErrorKind.BODY_INCOMPLETE


def test_a_rejected_row_is_a_record_without_an_attempt():
    job = Job(id="1", url="??", host="", meta={"a": 1}, rejected=Rejection(ErrorKind.INVALID_URL, "no URL"))
    result = worker().skip(job, job.rejected)
    assert (result.outcome, result.error_kind, result.error_message, result.attempts, result.meta) == (
        Outcome.SKIPPED, ErrorKind.INVALID_URL, "no URL", 0, {"a": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("default", "fields", "method"),
    [
        ("GET", {}, "GET"),
        ("GET", {"body": b""}, "POST"),
        ("GET", {"parts": []}, "POST"),
        ("GET", {"body": b"x", "method": "GET"}, "GET"),
        ("PUT", {"body": b"x"}, "PUT"),
        ("HEAD", {}, "HEAD"),
    ],
)
async def test_a_request_with_a_body_is_a_post_unless_somebody_says_otherwise(default, fields, method):
    def respond(job):
        raise FetchError(ErrorKind.CONNECT_REFUSED, "no", sent=False)

    job = Job(id="1", url="http://a.test/", host="a.test", **fields)
    result, attempt = await Worker("b", {"http": MockTransport(respond)}, default).attempt(job, 0)
    assert (result.method, attempt.method) == (method, method)
