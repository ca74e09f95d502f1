"""Requests as httpbin reads them, with both exchanges."""

from __future__ import annotations

import json

import pytest
from transport_factories import HTTP_EXCHANGES, http_transport

from fetcher.jobs.objects import job_from_mapping


@pytest.fixture(params=HTTP_EXCHANGES)
def ask(request, httpbin):
    """A function that makes the request of a job object at a path of httpbin, and returns the response."""

    async def make(path, settings=None, **row):
        job = job_from_mapping("1", {"url": f"{httpbin.url}{path}", **row})
        assert job.rejected is None, job.rejected
        async with http_transport(request.param, request=settings or {}) as transport:
            return await transport.fetch(job)

    return make


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_methods_with_and_without_a_body(ask, method):
    for row in ({}, {"json": {"a": 1}}):
        response = await ask("/anything", method=method, **row)
        asked = json.loads(response.body)
        assert (asked["method"], asked["json"]) == (response.method, row.get("json")) == (method, row.get("json"))


@pytest.mark.parametrize(
    ("settings", "row", "method"),
    [
        ({}, {}, "GET"),
        ({}, {"form": {"a": 1}}, "POST"),
        ({}, {"form": {"a": 1}, "method": "GET"}, "GET"),
        ({"method": "PUT"}, {"body": "x"}, "PUT"),
        ({"method": "PUT"}, {"multipart": [{"name": "a", "value": 1}]}, "PUT"),
    ],
)
async def test_the_method_follows_from_the_body_unless_somebody_says_otherwise(ask, settings, row, method):
    response = await ask("/anything", settings, **row)
    assert json.loads(response.body)["method"] == response.method == method


async def test_headers_params_and_the_body_arrive_as_they_were_meant(ask):
    asked = json.loads((await ask("/anything?a=1", params={"a": [2, "ü&"]}, headers={"X-Name": "a\tb"}, body="é")).body)
    assert asked["args"] == {"a": ["1", "2", "ü&"]}
    assert asked["headers"]["X-Name"] == "a\tb"
    assert asked["data"] == "é"
    asked = json.loads((await ask("/anything", form={"a b": ["&=", ""], "n": 1.5})).body)
    assert asked["form"] == {"a b": ["&=", ""], "n": "1.5"}
    asked = json.loads((await ask("/anything", json=[None, {"ü": True}])).body)
    assert (asked["json"], asked["headers"]["Content-Type"]) == ([None, {"ü": True}], "application/json")


async def test_who_asks_is_believed(ask):
    assert (await ask("/basic-auth/jo/p%20w", auth={"username": "jo", "password": "p w"})).status == 200
    assert (await ask("/basic-auth/jo/p%20w", auth={"username": "jo", "password": "x"})).status == 401
    response = await ask("/bearer", auth={"token": "abc"})
    assert json.loads(response.body) == {"authenticated": True, "token": "abc"}
