"""Batches that there are, and the service itself, as clients of the API see them: real sockets, a real keeper."""

from __future__ import annotations

import asyncio
import json
import re

import aiohttp
import pytest
from api_service import api_service, inline, records
from origin_process import origin_process
from structlog.testing import capture_logs

from fetcher.errors import CursorError, StateError
from fetcher.service.models import Snapshot
from fetcher.service.observing import snapshots


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


# Looking


async def test_batches_are_listed_page_by_page(tmp_path, origin):
    async with api_service(tmp_path) as api:
        made = [await api.finished(inline(f"{origin.url}/status/200")) for _ in range(5)]
        seen, query = [], {"limit": "2"}
        while True:
            _, _, page = await api.ask("GET", "/v1/batches", params=query)
            seen += [batch["id"] for batch in page["batches"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert seen == made[::-1]
        assert (await api.ask("GET", "/v1/batches?state=failed"))[2]["batches"] == []
        assert len((await api.ask("GET", "/v1/batches?state=done"))[2]["batches"]) == 5


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=1.0", "limit=1_0", "limit=", "state=gone", "cursor=x", "a=b", "limit=1&limit=2"],
)
async def test_queries_that_make_no_sense_are_refused(tmp_path, query):
    async with api_service(tmp_path) as api:
        status, _, body = await api.ask("GET", f"/v1/batches?{query}")
        assert (status, body["title"]) == (400, "Bad Request")


@pytest.mark.parametrize(
    ("method", "query", "said"),
    [
        (
            "POST",
            "name=a%20b",
            "name: should be letters, digits, '.', '-' and '_' (a letter or digit first, at most 100)",
        ),
        ("POST", "weight=0", "weight: should be at least 0.001, not '0'"),
        ("POST", "priority=1.5", "priority: should be a whole number, not '1.5'"),
        ("POST", "column=", "column: is empty; it needs at least one character"),
        ("GET", "limit=501", "limit: should be at most 500, not '501'"),
        ("GET", "a=b", "a: is not a parameter of this"),
        ("GET", "state=pausd", "state: should be 'queued', 'running', 'paused', 'done', 'failed' or 'cancelled'"),
    ],
)
async def test_what_is_wrong_with_a_query_is_said_as_of_a_config(tmp_path, method, query, said):
    async with api_service(tmp_path) as api:
        _, _, body = await api.ask(method, f"/v1/batches?{query}", data=b"x", headers={"Content-Type": "text/plain"})
        (problem,) = body["problems"]
        assert problem.startswith(said)


async def test_results_are_read_on_from_a_cursor(tmp_path, origin):
    urls = [f"{origin.url}/status/{code}?{n}" for n in range(30) for code in (200, 404)]
    async with api_service(tmp_path) as api:
        batch = await api.finished(inline(*urls, retry={"attempts": 1}))
        whole, end, more = await api.results(batch)
        assert (sorted(record["url"] for record in whole), more) == (sorted(urls), False)
        paged, cursor, more = [], 0, True
        while more:
            page, cursor, more = await api.results(batch, cursor=cursor, limit=7)
            paged += page
        assert (paged, cursor) == (whole, end)
        assert await api.results(batch, cursor=end) == ([], end, False)


async def test_the_link_of_a_page_leads_to_the_next(tmp_path, origin):
    async with api_service(tmp_path) as api:
        batch = await api.finished(inline(*(f"{origin.url}/status/404?{n}" for n in range(3))))
        path = f"/v1/batches/{batch}/results?limit=2&outcome=failed"
        _, headers, first = await api.ask("GET", path)
        _, headers, second = await api.ask("GET", re.fullmatch(r'<(.*)>; rel="next"', headers["Link"])[1])
        assert len(records(first) + records(second)) == 3
        assert "Link" not in headers


async def test_results_are_filtered_by_outcome_and_kind(tmp_path, origin):
    urls = [f"{origin.url}/status/{code}" for code in (200, 404, 500)]
    async with api_service(tmp_path) as api:
        batch = await api.finished(inline(*urls, retry={"attempts": 1}))
        found, end, _ = await api.results(batch, outcome="failed")
        assert sorted(record["status"] for record in found) == [404, 500]
        found, also, _ = await api.results(batch, kind="http_5xx")
        assert ([record["status"] for record in found], also) == ([500], end)


@pytest.mark.parametrize(
    "query", ["cursor=1", "cursor=99999999", "cursor=-1", "limit=0", "limit=99999", "kind=x", "outcome=x"]
)
async def test_results_that_can_not_be_asked_for(tmp_path, origin, query):
    async with api_service(tmp_path) as api:
        batch = await api.finished(inline(f"{origin.url}/status/200"))
        status, headers, _ = await api.ask("GET", f"/v1/batches/{batch}/results?{query}")
        assert (status, headers["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("failure", [CursorError("cut off"), OSError(5, "bad disk"), ValueError("a fault")])
async def test_an_answer_that_can_not_be_ended_is_not_taken_for_whole(tmp_path, monkeypatch, failure):
    async def broken(*_, **__):
        yield b"{}\n", 3
        raise failure

    async with api_service(tmp_path) as api:
        monkeypatch.setattr(api.keeper, "acknowledged", lambda _: 6)
        monkeypatch.setattr(api.keeper, "results", broken)
        with capture_logs() as logs, pytest.raises(aiohttp.ClientError):
            await api.ask("GET", "/v1/batches/x/results")
        assert [line["event"] for line in logs][-1] == "api_answer_broken_off"


async def test_the_service_is_shown_as_a_whole_and_in_parts(tmp_path):
    async with api_service(tmp_path) as api:
        Snapshot.model_validate((await api.ask("GET", "/v1/snapshot"))[2])
        assert (await api.ask("GET", "/v1/hosts"))[2] == {"hosts": [], "total": 0}
        assert (await api.ask("GET", "/v1/sinks"))[2] == {"sinks": []}
        assert (await api.ask("GET", "/v1/failures"))[2] == {"failures": []}
        assert (await api.ask("GET", "/v1/why"))[2]["bounds"] == []


async def test_events_come_as_they_happen(tmp_path):
    async with api_service(tmp_path) as api, api.client.get(f"{api.url}/v1/events") as answer:
        assert answer.content_type == "text/event-stream"
        lines = [(await answer.content.readline()).decode() for _ in range(8)]
        assert "event: snapshot\n" in lines


# Acting


async def test_a_batch_is_paused_resumed_cancelled_retried_and_deleted(tmp_path, origin):
    urls = [f"{origin.url}/delay/0.2?{n}" for n in range(40)]
    async with api_service(tmp_path) as api:
        batch = await api.submit(inline(*urls, limits={"concurrency": 2}))
        path = f"/v1/batches/{batch}"
        states = []
        for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            answer, _, _ = await api.ask("POST", f"{path}/{action}")
            assert answer == 200
            async with asyncio.timeout(20):
                while (found := (await api.ask("GET", path))[2]["state"]) != state:  # noqa: ASYNC110  as a client does
                    await asyncio.sleep(0.02)
            states.append(found)
        assert states == ["paused", "running", "cancelled"]
        answer, _, problem = await api.ask("POST", f"{path}/pause")
        assert (answer, "is cancelled" in problem["detail"]) == (409, True)
        answer, headers, body = await api.ask("POST", f"{path}/retry")
        assert (answer, body["id"]) == (200, batch)
        await api.keeper.wait(batch)
        found, _, _ = await api.results(batch)
        assert sorted(record["url"] for record in found) == sorted(urls)
        answer, headers, body = await api.ask("DELETE", path)
        assert (answer, body, headers.get("Content-Length")) == (204, "", None)
        assert (await api.ask("GET", path))[0] == 404


async def test_a_retry_of_what_was_done_is_a_batch_of_its_own(tmp_path, origin):
    async with api_service(tmp_path) as api:
        batch = await api.finished(inline(f"{origin.url}/status/200", f"{origin.url}/status/404"))
        status, headers, body = await api.ask("POST", f"/v1/batches/{batch}/retry")
        assert (status, body["retry_of"], headers["Location"]) == (201, batch, f"/v1/batches/{body['id']}")
        good = await api.finished(inline(f"{origin.url}/status/200"))
        assert (await api.ask("POST", f"/v1/batches/{good}/retry"))[0] == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/results"), ("DELETE", "")]
    + [("POST", f"/{action}") for action in ("pause", "resume", "cancel", "retry")],
)
async def test_a_batch_that_there_is_not(tmp_path, method, path):
    async with api_service(tmp_path) as api:
        for name in ("gone", "%2e%2e%2f%2e%2e", "a%00b", "x" * 3000):
            status, headers, body = await api.ask(method, f"/v1/batches/{name}{path}")
            assert (status, headers["Content-Type"], body["status"]) == (404, "application/problem+json", 404)


async def test_what_there_is_not_and_what_can_not_be_asked(tmp_path):
    async with api_service(tmp_path) as api:
        assert (await api.ask("GET", "/v2/batches"))[2]["status"] == 404
        assert (await api.ask("GET", "/static/../app.py"))[0] == 404
        status, headers, body = await api.ask("PATCH", "/v1/batches")
        assert (status, headers["Allow"], body["status"]) == (405, "GET,POST", 405)


# Operating


async def test_readiness_says_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "BEAT", 0.0)  # for which a snapshot is good
    async with api_service(tmp_path) as api:
        assert (await api.ask("GET", "/readyz"))[0] == (await api.ask("HEAD", "/readyz"))[0] == 200
        api.facts.state = "draining"
        status, _, body = await api.ask("GET", "/readyz")
        assert (status, body["problems"]) == (503, ["the service is draining"])
        assert (await api.ask("GET", "/livez"))[0] == 200


async def test_what_changes_something_is_written_down_and_nothing_else_is(tmp_path, origin):
    async with api_service(tmp_path) as api:
        with capture_logs() as logs:
            batch = await api.finished(inline(f"{origin.url}/status/200"))
            await api.ask("GET", "/livez")
            await api.ask("GET", f"/v1/batches/{batch}")
            await api.ask("POST", f"/v1/batches/{batch}/pause")
        written = [line for line in logs if line["event"].startswith("api_")]
        assert [(line["operation"], line["who"], line["batch"], line["status"]) for line in written] == [
            ("submitBatch", "anybody", batch, 201),
            ("pauseBatch", "anybody", batch, 409),
        ]


async def test_a_fault_of_ours_is_told_by_its_id_alone(tmp_path, monkeypatch):
    async with api_service(tmp_path) as api:
        monkeypatch.setattr(api.keeper, "list", lambda **_: 1 // 0)
        with capture_logs() as logs:
            status, _, body = await api.ask("GET", "/v1/batches")
        (line,) = logs
        assert (status, line["id"] in body["detail"]) == (500, True)
        assert "ZeroDivisionError" in line["trace"]
        assert "Zero" not in json.dumps(body)


async def test_a_service_whose_state_is_in_no_state_says_so(tmp_path, monkeypatch):
    async def refuse(*_, **__):
        raise StateError("state/service.db: is locked")

    async with api_service(tmp_path) as api:
        monkeypatch.setattr(api.keeper, "submit", refuse)
        status, headers, _ = await api.ask("POST", "/v1/batches", json={})
        assert (status, headers["Retry-After"]) == (503, "5")
