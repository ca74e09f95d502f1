"""How batches are submitted by the API: real sockets, a real keeper, a real origin."""

from __future__ import annotations

import asyncio
import io
import json
import re

import aiohttp
import pytest
from api_service import NDJSON, api_service, inline
from origin_process import origin_process

from fetcher.service.models import BatchView


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


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
        (record,), _, _ = await api.results(body["id"])
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
        (record,), _, _ = await api.results(body["id"])
        assert record["url"] == f"{origin.url}/status/200"


async def test_each_part_of_a_form_is_bounded_by_itself(tmp_path):
    async with api_service(tmp_path, max_config="1kB", max_upload="1MB") as api:
        for config, urls, status in ((900, 900_000, 201), (1_100, 10, 413), (10, 1_100_000, 413)):
            form = aiohttp.FormData()
            form.add_field("config", "name: x\n" + "#" * config, content_type="application/yaml")
            form.add_field("urls", io.BytesIO(b"# no URL\n" * (urls // 9)), filename="urls.txt")
            assert (await api.ask("POST", "/v1/batches", data=form))[0] == status
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


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


@pytest.mark.parametrize("before", [b"\r\n", b""])
async def test_a_form_may_begin_with_a_line_break(tmp_path, before):
    part = b'--x\r\nContent-Disposition: form-data; name="urls"\r\n\r\nhttp://localhost/\r\n--x--\r\n'
    async with api_service(tmp_path) as api:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert (await api.ask("POST", "/v1/batches", data=before + part, headers=kind))[0] == 201


@pytest.mark.parametrize("preamble", [b"\r\n\r\n", b"hello\r\n", b"\r\nhello\r\n", b"\r\n" * 20_000])
async def test_a_form_with_something_before_its_parts_is_refused_at_once(tmp_path, preamble):
    head = (
        b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    async with api_service(tmp_path) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        # There is no end of it.
        writer.write(head + b"%x\r\n%b\r\n" % (len(preamble), preamble))
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"}")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"the form is not framed as multipart/form-data has it" in answer


@pytest.mark.parametrize(
    ("given", "shown"),
    [("pages.parquet", "pages.parquet"), ("../a/pages.parquet", "pages.parquet"), ("a\x85.parquet", "urls")],
)
async def test_a_file_of_urls_is_told_of_by_the_name_that_it_came_with(tmp_path, given, shown):
    disposition = f'Content-Disposition: form-data; name="urls"; filename="{given}"'
    form = f"--x\r\n{disposition}\r\n\r\nno parquet\r\n--x--\r\n".encode()
    async with api_service(tmp_path) as api:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        status, _, body = await api.ask("POST", "/v1/batches", data=form, headers=kind)
        assert status == 422
        (problem,) = body["problems"]
        assert f"{shown}: " in problem
        assert not {"incoming", "state"} & set(re.split(r"\W", problem))


async def test_a_file_of_urls_that_has_no_name_is_told_of_as_urls(tmp_path):
    async with api_service(tmp_path) as api:
        status, _, body = await api.ask(
            "POST", "/v1/batches?column=x", data=b"a,b\n1,2\n", headers={"Content-Type": "text/csv"}
        )
        assert status == 422
        (problem,) = body["problems"]
        assert problem == "urls.yaml: urls:1: there is no column 'x'; its columns are a, b"


async def test_a_config_of_nothing_but_mistakes_gets_a_short_answer(tmp_path):
    async with api_service(tmp_path) as api:
        for mistakes in (
            "sources:\n" + "- {q: 1}\n" * 10_000,
            "sources:\n- type: inline\n  jobs:\n" + "  - {q: 1}\n" * 10_000,
            "sources: [urls.txt]\n" + "".join(f"k{number}: 1\n" for number in range(10_000)),
            "sources:\n" + "- !x 1\n" * 10_000,
            "sources:\n" + "- ${X}\n" * 10_000,
        ):
            kind = {"Content-Type": "application/yaml"}
            status, _, body = await api.ask("POST", "/v1/batches", data=mistakes, headers=kind)
            assert (status, len(body["problems"]) <= 51) == (422, True)


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
