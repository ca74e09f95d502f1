from __future__ import annotations

import pytest
from pydantic import ValidationError

from fetcher.errors import SourceError
from fetcher.jobs.intake import SCHEMES
from fetcher.sources.inline import InlineConfig


def problem(job):
    with pytest.raises(ValidationError) as caught:
        InlineConfig.model_validate({"type": "inline", "jobs": [job]})
    first = caught.value.errors()[0]
    return first["loc"], first["msg"]


async def jobs_of(rows, position=None):
    source = InlineConfig(jobs=rows).build()
    source.check()
    return [job async for chunk in source.read(position) for job in chunk.jobs]


async def test_a_string_and_an_object():
    rows = ["http://a.test/1", {"url": "http://a.test/2", "json": {"a": 1}, "priority": 5, "timeout": "2s"}]
    first, second = await jobs_of(rows)
    assert (first.id, first.url, first.method) == ("1", "http://a.test/1", None)
    assert (second.id, second.body, second.priority, second.timeout) == ("2", b'{"a":1}', 5, 2.0)
    assert second.headers == [("content-type", "application/json")]


async def test_json_null_is_sent():
    assert [job.body for job in await jobs_of([{"url": "http://a.test/", "json": None}, "http://a.test/"])] == [
        b"null",
        None,
    ]


@pytest.mark.parametrize(
    ("job", "where", "message"),
    [
        ("nope", ("jobs", 0, "url"), "Value error, has no scheme; write http:// or https:// before it"),
        (
            {"url": "gopher://a.test"},
            ("jobs", 0, "url"),
            "Value error, nothing here fetches gopher: URLs; it takes " + ", ".join(f"{name}:" for name in SCHEMES),
        ),
        ({}, ("jobs", 0, "url"), "Field required"),
        ({"url": "http://a.test/", "methd": "GET"}, ("jobs", 0, "methd"), "Extra inputs are not permitted"),
        ({"url": "http://a.test/", "method": "G T"}, ("jobs", 0, "method"), None),
        ({"url": "http://a.test/", "headers": {"a": "b\r\nc"}}, ("jobs", 0, "headers"), None),
        ({"url": "http://a.test/", "headers": {"a": 1}}, ("jobs", 0, "headers", "a"), None),
        ({"url": "http://a.test/", "priority": "1"}, ("jobs", 0, "priority"), None),
        ({"url": "http://a.test/", "priority": 2**40}, ("jobs", 0, "priority"), None),
        ({"url": "http://a.test/", "timeout": "x"}, ("jobs", 0, "timeout"), None),
        ({"url": "http://a.test/", "timeout": 0}, ("jobs", 0, "timeout"), None),
        ({"url": "http://a.test/", "meta": {"a": object()}}, ("jobs", 0, "meta"), None),
        ({"url": "http://a.test/", "json": object()}, ("jobs", 0, "json"), None),
        ({"url": "http://a.test/", "body": "a", "json": 1}, ("jobs", 0), None),
        (5, ("jobs", 0), None),
    ],
)
def test_mistakes_are_found_at_load_with_their_place(job, where, message):
    found, said = problem(job)
    assert found == where
    assert message in (None, said)


def test_the_schema_takes_a_string_or_an_object():
    schema = InlineConfig.model_json_schema()
    items = schema["properties"]["jobs"]["items"]
    assert {"type": "string"} in items["anyOf"]
    assert all("description" in field for field in schema["$defs"]["JobConfig"]["properties"].values())


@pytest.mark.parametrize("position", ["3", "-1", "x", ""])
async def test_a_position_that_does_not_fit(position):
    with pytest.raises(SourceError, match="changed since"):
        await jobs_of(["http://a.test/1", "http://a.test/2"], position)


def test_many_mistakes_in_many_jobs_are_found_in_their_places():
    rows: list[object] = [{"url": "http://a.test/"}] * 2000
    rows[700], rows[1999] = {"q": 1}, "nope"
    with pytest.raises(ValidationError) as caught:
        InlineConfig.model_validate({"jobs": rows})
    places = [error["loc"] for error in caught.value.errors()]
    assert places == [("jobs", 700, "url"), ("jobs", 700, "q"), ("jobs", 1999, "url")]


def test_jobs_of_which_hardly_one_is_right_are_not_checked_to_their_end():
    with pytest.raises(ValidationError) as caught:
        InlineConfig.model_validate({"jobs": [{"q": 1}] * 100_000})
    assert caught.value.error_count() == 1000


async def test_many_jobs_are_all_taken_in_their_order():
    urls = [f"http://a.test/{number}" for number in range(1201)]
    assert [job.url for job in await jobs_of(urls)] == urls


async def test_a_header_may_have_several_values():
    job = {"url": "http://a.test/", "headers": {"x-a": ["1", "2"], "x-b": "3"}}
    config = InlineConfig(jobs=[job])
    assert InlineConfig.model_validate(config.model_dump(mode="json", exclude_unset=True)) == config
    [chunk] = [chunk async for chunk in config.build().read(None)]
    assert chunk.jobs[0].headers == [("x-a", "1"), ("x-a", "2"), ("x-b", "3")]
    for wrong in (5, ["1", 5], {"a": "b"}, [["1"]]):
        with pytest.raises(ValidationError, match="should be a valid string"):
            InlineConfig(jobs=[{"url": "http://a.test/", "headers": {"x-a": wrong}}])
    with pytest.raises(ValidationError, match="contains CR, LF"):
        InlineConfig(jobs=[{"url": "http://a.test/", "headers": {"x-a": ["1", "2\n"]}}])
    schema = InlineConfig.model_json_schema()["$defs"]["JobConfig"]["properties"]["headers"]["anyOf"][0]
    assert [kind["type"] for kind in schema["additionalProperties"]["anyOf"]] == ["string", "array"]
