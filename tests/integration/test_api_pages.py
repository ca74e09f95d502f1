"""What the service shows to people and tells to programs: the document, the API page, files of the page."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from api_service import api_service
from openapi_spec_validator import validate

from fetcher.errors import ConfigError


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
        assert loaded == ["data:,", "/docs/style.css"]
        assert (await api.ask("GET", "/docs/style.css"))[1]["Content-Type"] == "text/css; charset=utf-8"


async def test_the_api_page_says_what_to_type_with_the_address_that_was_called(tmp_path):
    async with api_service(tmp_path, hosts=["fetch.example"]) as api:
        _, ours, page = await api.ask("GET", "/docs")
        assert f"curl {api.url}/v1/batches\n" in page
        assert "Bearer" not in page
        _, named, page = await api.ask("GET", "/docs", headers={"Host": "fetch.example:99"})
        assert "curl http://fetch.example:99/v1/batches\n" in page
        assert ours["ETag"] != named["ETag"]


async def test_the_api_page_says_where_the_token_goes(tmp_path):
    async with api_service(tmp_path, tokens=[{"name": "a", "token": "x" * 40}]) as api:
        _, _, page = await api.ask("GET", "/docs")
        shown = "curl -H &quot;Authorization: Bearer $FETCHER_TOKEN&quot; "
        assert page.count(shown) == 3
        assert f"{shown}{api.url}/v1/batches\n" in page


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
        with pytest.raises(ConfigError, match=rf"can not listen on 127\.0\.0\.1:{api.port}"):
            async with api_service(tmp_path / "other", port=api.port):
                pass


async def test_it_listens_on_ipv6_as_well(tmp_path):
    async with api_service(tmp_path, host="::1") as api:
        assert urlsplit(api.url).hostname == "::1"
        assert (await api.ask("GET", "/v1/batches"))[0] == 200
