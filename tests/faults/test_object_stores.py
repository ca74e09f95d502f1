"""F94: object stores that are overloaded, or take rights away."""

from __future__ import annotations

import json
import uuid

import obstore
import pytest
from servers.weather import weathered_s3

from fetcher.errors import SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks.objectstore import ObjectStoreConfig


@pytest.fixture(scope="module")
def server():
    with weathered_s3() as found:
        yield found


@pytest.fixture
def weather(server):
    server.weather.asked.clear()
    yield server.weather
    server.weather.left = 0
    server.weather.status, server.weather.code = "503 Slow Down", "SlowDown"


@pytest.fixture
def bucket(server):
    name = f"b{uuid.uuid4().hex}"
    server.create(name)
    return name


@pytest.fixture
async def sink(server, bucket):
    made = []

    def sink(path="crawl/pages.jsonl", **fields):
        given = {"path": f"s3://{bucket}/{path}", "options": server.options}
        made.append(ObjectStoreConfig.model_validate(given | fields).build())
        return made[-1]

    yield sink
    for one in made:
        await one.close()


@pytest.fixture
def objects(server, bucket):
    """Return what is in the bucket by key."""

    def objects():
        store = server.store(bucket)
        keys = [meta["path"] for page in obstore.list(store) for meta in page]
        return {key: bytes(obstore.get(store, key).bytes()) for key in keys}

    return objects


def results(*numbers, **fields):
    base = {"batch": "b", "outcome": Outcome.OK, "attempts": 1}
    return [Result(job_id=f"0:{n}", url=f"http://a.test/{n}", **(base | fields)) for n in numbers]


def ids(data):
    return [json.loads(line)["job_id"] for line in data.splitlines()]


async def begun(sink, mark=None):
    await sink.check(mark, resume=mark is not None)
    return await sink.open(mark)


def run_of(mark):
    return json.loads(mark)["run"]


async def test_f94_a_hiccup_of_the_store_is_not_even_noticed(sink, objects, weather):
    one = sink()
    await begun(one)
    weather.left = 2
    await one.write(results(1))
    assert weather.left == 0
    assert [ids(data) for data in objects().values()] == [["0:1"]]


@pytest.mark.parametrize(
    ("status", "code"), [("503 Slow Down", "SlowDown"), ("500 Internal Server Error", "InternalError")]
)
async def test_f94_a_store_that_is_overloaded_is_written_to_again_under_the_same_name(
    sink, objects, weather, status, code
):
    one = sink()
    run = run_of(await begun(one))
    weather.status, weather.code, weather.left = status, code, 1000
    with pytest.raises(SinkError) as caught:
        await one.write(results(1))
    assert (caught.value.retryable, caught.value.exit_code) == (True, 75)
    assert "\n" not in str(caught.value)
    assert objects_when_it_clears(weather, objects) == {}
    await one.write(results(1))
    assert list(objects()) == [f"crawl/pages.jsonl/part-00001-{run}.jsonl"]


def objects_when_it_clears(weather, objects):
    weather.left = 0
    return objects()


async def test_f94_rights_that_are_taken_away_end_the_run(sink, weather):
    one = sink()
    await begun(one)
    weather.status, weather.code, weather.left = "403 Forbidden", "AccessDenied", 1
    with pytest.raises(SinkError, match="refuses these credentials") as caught:
        await one.write(results(1))
    assert not caught.value.retryable


async def test_f94_there_is_no_multipart_upload_that_could_be_orphaned(sink, objects, weather):
    """However large an object is, it is one request: the store takes it whole or not at all."""
    one = sink()
    await begun(one)
    await one.write(results(*range(20), body=b"x" * 1_000_000))
    assert [len(ids(data)) for data in objects().values()] == [20]
    assert not [query for _, _, query in weather.asked if "upload" in query.lower()]
    assert [method for method, path, _ in weather.asked if "part-" in path and method != "GET"] == ["PUT"]
