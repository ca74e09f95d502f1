"""The API as its clients use it: real sockets, a real keeper, a real origin."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urlsplit

import aiohttp
import pytest
from api_service import api_service
from openapi_spec_validator import validate
from origin_process import origin_process
from structlog.testing import capture_logs

from fetcher.errors import StateError
from fetcher.service.models import BatchView, Snapshot

NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


def inline(*urls, **more):
    return {"sources": [{"type": "inline", "jobs": [{"url": url} for url in urls]}]} | more


def records(text):
    return [json.loads(line) for line in text.splitlines()]


async def results(api, batch, **query):
    status, headers, text = await api.ask("GET", f"/v1/batches/{batch}/results", params=query)
    assert (status, headers["Content-Type"]) == (200, NDJSON)
    return records(text), int(headers["Fetcher-Next-Cursor"]), "Link" in headers


async def finished(api, config):
    """Submit a batch and wait for its end; return its id."""
    batch = await api.submit(config)
    await api.keeper.wait(batch)
    return batch


# Submitting


async def test_a_config_as_yaml_becomes_a_batch(tmp_path, origin):
    config = f"name: weekly\npriority: 3\nsources:\n  - {origin.url}/status/200\n"
    async with api_service(tmp_path) as api:
        status, headers, body = await api.ask(
            "POST", "/v1/batches", data=config, headers={"Content-Type": "application/yaml; charset=utf-8"}
        )
        assert status == 201
        assert headers["Location"] == f"/v1/batches/{body['id']}"
        view = BatchView.model_validate_json(json.dumps(body))
        assert (view.name, view.priority, view.origin) == ("weekly", 3, "api")
        await api.keeper.wait(view.id)
        _, _, body = await api.ask("GET", headers["Location"])
        assert (body["state"], body["progress"]["outcomes"]) == ("done", {"ok": 1})


async def test_json_that_yaml_would_read_otherwise_means_what_it_says(tmp_path, origin):
    url = f"{origin.url}/status/200?x=\N{GRINNING FACE}"
    text = json.dumps(inline(url)).replace("/", "\\/")
    assert "\\ud83d\\ude00" in text
    async with api_service(tmp_path) as api:
        status, _, body = await api.ask("POST", "/v1/batches", data=text, headers={"Content-Type": "application/json"})
        assert status == 201, body
        await api.keeper.wait(body["id"])
        (record,), _, _ = await results(api, body["id"])
        assert record["outcome"] == "ok"


@pytest.mark.parametrize(
    ("kind", "text", "query"),
    [
        ("text/plain", "# these\n{0}/status/200\n{0}/status/404\n", {}),
        ("text/csv", "n,where\n1,{0}/status/200\n2,{0}/status/404\n", {"column": "where"}),
        ("text/tab-separated-values", "n\turl\n1\t{0}/status/200\n2\t{0}/status/404\n", {}),
        (NDJSON, '{{"url": "{0}/status/200"}}\n{{"url": "{0}/status/404"}}\n', {}),
        ("application/jsonl", '{{"u": "{0}/status/200"}}\n{{"u": "{0}/status/404"}}\n', {"column": "u"}),
    ],
)
async def test_a_file_of_urls_becomes_a_batch(tmp_path, origin, kind, text, query):
    async with api_service(tmp_path) as api:
        status, _, body = await api.ask(
            "POST",
            "/v1/batches",
            data=text.format(origin.url),
            headers={"Content-Type": kind},
            params=query | {"name": "uploaded", "weight": "2.5", "priority": "-7"},
        )
        assert status == 201, body
        assert (body["name"], body["weight"], body["priority"]) == ("uploaded", 2.5, -7)
        await api.keeper.wait(body["id"])
        _, _, body = await api.ask("GET", f"/v1/batches/{body['id']}")
        assert body["progress"]["outcomes"] == {"ok": 1, "failed": 1}
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


async def test_a_form_has_a_config_and_a_file(tmp_path, origin):
    form = aiohttp.FormData()
    form.add_field(
        "config", "name: both\nsources:\n  - {path: upload, column: where}\n", content_type="application/yaml"
    )
    form.add_field("urls", f"where\n{origin.url}/status/200\n".encode(), filename="list.csv")
    async with api_service(tmp_path) as api:
        status, _, body = await api.ask("POST", "/v1/batches", data=form)
        assert (status, body.get("name")) == (201, "both"), body
        await api.keeper.wait(body["id"])
        (record,), _, _ = await results(api, body["id"])
        assert record["url"] == f"{origin.url}/status/200"


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 422, "neither a part config nor a part urls"),
        ({"other": "x"}, 400, "a part config, a part urls, and no others"),
        ({"urls": b""}, 422, "the file of URLs is empty"),
        ({"config": "name: [", "urls": b"http://localhost/"}, 422, "can not be used"),
    ],
)
async def test_a_form_that_is_not_as_it_should_be(tmp_path, fields, status, words):
    async with api_service(tmp_path) as api:
        with aiohttp.MultipartWriter("form-data") as form:
            for name, value in fields.items():
                form.append(value, {"Content-Disposition": f'form-data; name="{name}"'})
        answer, _, body = await api.ask("POST", "/v1/batches", data=form)
        assert (answer, words in body["detail"]) == (status, True)
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"", b"nothing", b"--x", b"--x\r\n\r\n", b"--x\r\nnonsense\r\n\r\nx\r\n--x--", b"--x\r\n\r\nx\r\n--x--"]
)
async def test_a_form_that_is_none(tmp_path, body):
    async with api_service(tmp_path) as api:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        status, _, problem = await api.ask("POST", "/v1/batches", data=body, headers=kind)
        assert (status in {400, 422}, problem["status"]) == (True, status)
        no_boundary = {"Content-Type": "multipart/form-data"}
        assert (await api.ask("POST", "/v1/batches", data=body, headers=no_boundary))[0] == 400


async def test_everything_that_is_wrong_with_a_config_is_told_with_its_line(tmp_path):
    config = "name: a b\nsources:\n  - /etc/passwd\nlimits: {concurrency: -1}\nnonsense: 1\n"
    async with api_service(tmp_path) as api:
        kind = {"Content-Type": "application/yaml"}
        status, headers, body = await api.ask("POST", "/v1/batches", data=config, headers=kind)
        assert (status, headers["Content-Type"]) == (422, "application/problem+json")
        assert [re.match(r"batch\.yaml:(\d)", problem)[1] for problem in body["problems"]] == ["1", "4", "5"]
        assert api.keeper.list().batches == []


@pytest.mark.parametrize(
    ("kind", "data", "query", "status"),
    [
        ("application/json", b"{", {}, 422),
        ("application/json", b'{"a": "\\ud83d"}', {}, 422),
        ("application/json", b"[]", {}, 422),
        ("application/yaml", b"\xff", {}, 400),
        ("application/yaml", b"name: x", {"name": "y"}, 400),
        ("text/plain", b"", {}, 422),
        ("text/plain", b"http://localhost/", {"name": "a b"}, 400),
        ("text/plain", b"http://localhost/", {"weight": "nan"}, 400),
        ("text/plain", b"http://localhost/", {"column": "x"}, 422),
        ("image/png", b"x", {}, 415),
        ("", b"x", {}, 415),
    ],
)
async def test_what_can_be_no_batch(tmp_path, kind, data, query, status):
    async with api_service(tmp_path) as api:
        answer, _, body = await api.ask("POST", "/v1/batches", data=data, headers={"Content-Type": kind}, params=query)
        assert (answer, body["status"]) == (status, status)
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


async def test_a_packed_body_is_refused(tmp_path):
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    async with api_service(tmp_path) as api:
        status, fields, _ = await api.ask("POST", "/v1/batches", data=b"\x1f\x8b", headers=headers)
        assert (status, fields["Accept-Encoding"]) == (415, "identity")


async def test_a_submission_that_is_repeated_is_taken_once(tmp_path, origin):
    config = inline(f"{origin.url}/status/200")
    async with api_service(tmp_path) as api:
        key = {"Idempotency-Key": "order 66".replace(" ", "-")}
        first, *others = await asyncio.gather(*(api.submit(config, **key) for _ in range(5)))
        assert others == [first] * 4
        status, headers, body = await api.ask("POST", "/v1/batches", json=config, headers=key)
        assert (status, body["id"], headers["Location"]) == (200, first, f"/v1/batches/{first}")
        assert len(api.keeper.list().batches) == 1
        assert await api.submit(config, **{"Idempotency-Key": "another"}) != first
        status, _, body = await api.ask("POST", "/v1/batches", json=config | {"name": "other"}, headers=key)
        assert (status, "something else" in body["detail"]) == (422, True)
        assert (await api.ask("POST", "/v1/batches", json=config, headers={"Idempotency-Key": "a b"}))[0] == 400


async def test_an_upload_that_is_repeated_is_taken_once(tmp_path):
    async with api_service(tmp_path) as api:
        answers = []
        for urls, kind in ((b"a", "plain"), (b"a", "plain"), (b"b", "plain"), (b"a", "csv")):
            headers = {"Idempotency-Key": "1", "Content-Type": f"text/{kind}"}
            answers.append((await api.ask("POST", "/v1/batches", data=urls, headers=headers))[0])
        assert answers == [201, 200, 422, 422]
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


async def test_a_body_is_asked_for_only_if_it_will_be_read(tmp_path):
    head = (
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n"
        "Content-Type: text/plain\r\nConnection: close\r\n\r\n"
    )
    async with api_service(tmp_path, max_upload="1kB") as api:
        for length, first in ((19, b"HTTP/1.1 100 Continue"), (5000, b"HTTP/1.1 413")):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(head.format(length).encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(first)
            if length < 1000:
                writer.write(b"http://127.0.0.1:9/")
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201")
            writer.close()


# Looking


async def test_batches_are_listed_page_by_page(tmp_path, origin):
    async with api_service(tmp_path) as api:
        made = [await finished(api, inline(f"{origin.url}/status/200")) for _ in range(5)]
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


async def test_results_are_read_on_from_a_cursor(tmp_path, origin):
    urls = [f"{origin.url}/status/{code}?{n}" for n in range(30) for code in (200, 404)]
    async with api_service(tmp_path) as api:
        batch = await finished(api, inline(*urls, retry={"attempts": 1}))
        whole, end, more = await results(api, batch)
        assert (sorted(record["url"] for record in whole), more) == (sorted(urls), False)
        paged, cursor, more = [], 0, True
        while more:
            page, cursor, more = await results(api, batch, cursor=cursor, limit=7)
            paged += page
        assert (paged, cursor) == (whole, end)
        assert await results(api, batch, cursor=end) == ([], end, False)


async def test_the_link_of_a_page_leads_to_the_next(tmp_path, origin):
    async with api_service(tmp_path) as api:
        batch = await finished(api, inline(*(f"{origin.url}/status/404?{n}" for n in range(3))))
        path = f"/v1/batches/{batch}/results?limit=2&outcome=failed"
        _, headers, first = await api.ask("GET", path)
        _, headers, second = await api.ask("GET", re.fullmatch(r'<(.*)>; rel="next"', headers["Link"])[1])
        assert len(records(first) + records(second)) == 3
        assert "Link" not in headers


async def test_results_are_filtered_by_outcome_and_kind(tmp_path, origin):
    urls = [f"{origin.url}/status/{code}" for code in (200, 404, 500)]
    async with api_service(tmp_path) as api:
        batch = await finished(api, inline(*urls, retry={"attempts": 1}))
        found, end, _ = await results(api, batch, outcome="failed")
        assert sorted(record["status"] for record in found) == [404, 500]
        found, also, _ = await results(api, batch, kind="http_5xx")
        assert ([record["status"] for record in found], also) == ([500], end)


@pytest.mark.parametrize(
    "query", ["cursor=1", "cursor=99999999", "cursor=-1", "limit=0", "limit=99999", "kind=x", "outcome=x"]
)
async def test_results_that_can_not_be_asked_for(tmp_path, origin, query):
    async with api_service(tmp_path) as api:
        batch = await finished(api, inline(f"{origin.url}/status/200"))
        status, headers, _ = await api.ask("GET", f"/v1/batches/{batch}/results?{query}")
        assert (status, headers["Content-Type"]) == (400, "application/problem+json")


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
        found, _, _ = await results(api, batch)
        assert sorted(record["url"] for record in found) == sorted(urls)
        answer, headers, body = await api.ask("DELETE", path)
        assert (answer, body, headers.get("Content-Length")) == (204, "", None)
        assert (await api.ask("GET", path))[0] == 404


async def test_a_retry_of_what_was_done_is_a_batch_of_its_own(tmp_path, origin):
    async with api_service(tmp_path) as api:
        batch = await finished(api, inline(f"{origin.url}/status/200", f"{origin.url}/status/404"))
        status, headers, body = await api.ask("POST", f"/v1/batches/{batch}/retry")
        assert (status, body["retry_of"], headers["Location"]) == (201, batch, f"/v1/batches/{body['id']}")
        good = await finished(api, inline(f"{origin.url}/status/200"))
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


async def test_readiness_says_why_not(tmp_path):
    async with api_service(tmp_path) as api:
        assert (await api.ask("GET", "/readyz"))[0] == 200
        api.facts.state = "draining"
        await asyncio.sleep(1.1)  # a snapshot is good for a second
        status, _, body = await api.ask("GET", "/readyz")
        assert (status, body["problems"]) == (503, ["the service is draining"])
        assert (await api.ask("GET", "/livez"))[0] == 200


async def test_what_changes_something_is_written_down_and_nothing_else_is(tmp_path, origin):
    async with api_service(tmp_path) as api:
        with capture_logs() as logs:
            batch = await finished(api, inline(f"{origin.url}/status/200"))
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


# Documents and pages


@pytest.mark.parametrize("tokens", [[], [{"name": "x", "hash": f"sha256:{'0' * 64}"}]])
async def test_the_document_is_openapi_and_says_what_there_is(tmp_path, tokens):
    async with api_service(tmp_path, tokens=tokens) as api:
        _, _, document = await api.ask("GET", "/openapi.json")
        validate(document)
        assert document["openapi"].startswith("3.1")
        assert set(document["paths"]["/v1/batches/{batch_id}"]) == {"get", "delete"}
        assert ("security" in document["paths"]["/v1/batches"]["get"]) is bool(tokens)
        assert "security" not in document["paths"]["/livez"]["get"]
        for path, methods in document["paths"].items():
            for method in methods:
                url = path.replace("{batch_id}", "x")
                if not tokens and url != "/v1/events":
                    assert (await api.ask(method.upper(), url))[0] not in {405, 500}


async def test_the_api_page_shows_every_operation_and_model_and_needs_nobody(tmp_path):
    async with api_service(tmp_path) as api:
        _, headers, page = await api.ask("GET", "/docs")
        _, _, document = await api.ask("GET", "/openapi.json")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        names = set(document["components"]["schemas"])
        assert names == set(re.findall(r'<h3 id="model-(\w+)"', page))
        assert set(re.findall(r'href="#model-(\w+)"', page)) <= names
        for methods in document["paths"].values():
            for operation in methods.values():
                assert f'<h3 id="{operation["operationId"]}">' in page
        assert "<script" not in page
        assert " style=" not in page
        loaded = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', page)
        assert loaded == ["/docs/style.css"]
        assert (await api.ask("GET", "/docs/style.css"))[1]["Content-Type"] == "text/css; charset=utf-8"


async def test_a_page_that_the_browser_has_is_not_sent_again(tmp_path):
    async with api_service(tmp_path) as api:
        for path in ("/", "/docs", "/openapi.json", "/static/app.js"):
            _, headers, body = await api.ask("GET", path)
            assert (headers["Cache-Control"], bool(body)) == ("no-cache", True)
            status, again, body = await api.ask("GET", path, headers={"If-None-Match": headers["ETag"]})
            assert (status, again["ETag"], body) == (304, headers["ETag"], "")
            status, _, _ = await api.ask("GET", path, headers={"If-None-Match": '"other"'})
            assert status == 200


async def test_answers_of_the_api_are_kept_by_nobody(tmp_path):
    async with api_service(tmp_path) as api:
        for path in ("/v1/batches", "/v1/snapshot", "/livez", "/v1/batches/x"):
            assert (await api.ask("GET", path))[1]["Cache-Control"] == "no-store"


async def test_where_nothing_can_listen_that_is_said(tmp_path):
    async with api_service(tmp_path) as api:
        with pytest.raises(Exception, match=rf"can not listen on 127\.0\.0\.1:{api.port}"):
            async with api_service(tmp_path / "other", port=api.port):
                pass


async def test_it_listens_on_ipv6_as_well(tmp_path):
    async with api_service(tmp_path, host="::1") as api:
        assert urlsplit(api.url).hostname == "::1"
        assert (await api.ask("GET", "/v1/batches"))[0] == 200
