"""The sink ``objectstore`` against an S3 server: its objects, what it refuses, and what it survives."""

from __future__ import annotations

import gzip
import io
import json
import sys
import uuid

import obstore
import pyarrow.parquet as pq
import pytest
from backports import zstd
from pydantic import ValidationError
from servers.weather import weathered_s3

from fetcher.config import Config
from fetcher.errors import ConfigError, SinkError, StateError
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


async def refused(sink, error=ConfigError, mark=None, *, resume=False):
    with pytest.raises(error) as caught:
        await sink.check(mark, resume=resume)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run_of(mark):
    return json.loads(mark)["run"]


async def test_each_batch_is_an_object_named_by_run_and_number(sink, objects):
    one = sink()
    run = run_of(await begun(one))
    await one.write(results(1, 2))
    await one.write(results(3))
    found = objects()
    assert {key: ids(data) for key, data in found.items()} == {
        f"crawl/pages.jsonl/part-00001-{run}.jsonl": ["0:1", "0:2"],
        f"crawl/pages.jsonl/part-00002-{run}.jsonl": ["0:3"],
    }


@pytest.mark.parametrize(
    ("path", "suffix", "read"),
    [
        ("pages.jsonl.gz", ".jsonl.gz", lambda data: ids(gzip.decompress(data))),
        ("pages.jsonl.zst", ".jsonl.zst", lambda data: ids(zstd.decompress(data))),
        ("v1.2/pages.csv", ".csv", lambda data: [line.split(b",")[2].decode() for line in data.splitlines()[1:]]),
        ("a.b.parquet", ".parquet", lambda data: pq.read_table(io.BytesIO(data))["job_id"].to_pylist()),
    ],
)
async def test_each_object_is_whole_in_every_format(sink, objects, path, suffix, read):
    one = sink(path)
    await begun(one)
    await one.write(results(1, 2, body=b"x"))
    await one.write(results(3))
    found = objects()
    assert all(key.startswith(f"{path}/part-0000") and key.endswith(suffix) for key in found)
    assert [len(key.removesuffix(suffix).rpartition("-")[2]) for key in found] == [8, 8]
    assert [read(data) for _, data in sorted(found.items())] == [["0:1", "0:2"], ["0:3"]]


async def test_what_was_not_acknowledged_is_deleted_and_written_again_under_the_same_name(sink, objects):
    one = sink()
    await begun(one)
    mark = await one.write(results(1))
    await one.write(results(2, 3))
    await one.write(results(4))
    before = sorted(objects())
    again = sink()
    assert await begun(again, mark) == mark
    assert [ids(data) for data in objects().values()] == [["0:1"]]
    await again.write(results(3, 4))
    found = objects()
    assert sorted(found) == before[:2]
    assert ids(found[before[1]]) == ["0:3", "0:4"]


async def test_an_earlier_run_is_deleted_and_nothing_of_others(sink, objects, server, bucket):
    first = sink(if_exists="append")
    mark = await begun(first)
    await first.write(results(1))
    server.put(bucket, "crawl/pages.jsonl/README", b"of somebody")
    server.put(bucket, "crawl/pages.jsonl.old/part-00001-00000000.jsonl", b"of another output")
    second = sink(if_exists="append")
    await begun(second)
    await second.write(results(2))
    await second.check(mark, resume=False)
    await second.discard(mark)
    found = objects()
    assert len(found) == 3
    assert [ids(data) for key, data in found.items() if "pages.jsonl/part" in key] == [["0:2"]]


async def test_objects_that_are_in_the_way(sink, objects, server, bucket):
    first = sink()
    mark = await begun(first)
    await first.write(results(1))
    await first.check(mark, resume=False)  # its own earlier run is no reason
    message = await refused(sink())
    assert message.startswith(f"s3://{bucket}/crawl/pages.jsonl: there are objects that no earlier run of this batch")
    server.put(bucket, "crawl/pages.jsonl/README", b"of somebody")
    other = sink(if_exists="replace")
    await begun(other)
    assert list(objects()) == ["crawl/pages.jsonl/README"]


async def test_a_check_leaves_nothing_behind(sink, objects, weather):
    await sink().check(None, resume=False)
    assert objects() == {}
    assert [method for method, _, _ in weather.asked[:3]] == ["GET", "PUT", "POST"]


async def test_what_a_check_that_was_killed_left_behind_is_in_nobodys_way(sink, objects, server, bucket):
    server.put(bucket, "crawl/pages.jsonl/_check", b"")
    await sink().check(None, resume=False)
    assert objects() == {}


async def test_an_object_that_was_acknowledged_and_is_gone_is_missed(sink, server, bucket, objects):
    one = sink()
    await begun(one)
    mark = await one.write(results(1))
    obstore.delete(server.store(bucket), list(objects()))
    message = await refused(sink(), StateError, mark, resume=True)
    assert "has no object 1 of this batch" in message
    with pytest.raises(StateError):
        await sink().open(mark)
    await refused(sink(), StateError, '{"offset": 1}')


async def test_a_bucket_that_does_not_exist_is_refused(server):
    one = ObjectStoreConfig.model_validate({"path": "s3://nowhere/a.jsonl", "options": server.options}).build()
    message = await refused(one)
    assert message.startswith("s3://nowhere/a.jsonl: there is no such bucket; create it, or name another: ")
    await one.close()


@pytest.mark.parametrize(("status", "code"), [("403 Forbidden", "AccessDenied"), ("401 Unauthorized", "InvalidToken")])
async def test_wrong_credentials_are_refused_before_anything_is_fetched(sink, weather, status, code):
    weather.status, weather.code, weather.left = status, code, 1
    message = await refused(sink())
    assert "the store refuses these credentials to list, write or delete here; check options and rights" in message


async def test_a_store_that_is_away_is_no_config_error_when_a_run_goes_on(server):
    options = server.options | {"endpoint": "http://127.0.0.1:1"}
    one = ObjectStoreConfig.model_validate({"path": "s3://b/a.jsonl", "options": options}).build()
    for resume, code in ((False, 78), (True, 75)):
        with pytest.raises(SinkError, match="can not be reached") as caught:
            await one.check(None, resume=resume)
        assert (caught.value.retryable, caught.value.exit_code) == (True, code)
    await one.close()


async def test_a_driver_that_is_not_installed_is_named(sink, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert (await refused(sink())).partition("install it with: ")[2].startswith("pip install 'obstore>=")


async def test_an_option_that_there_is_not_is_refused(server):
    options = server.options | {"colour": "red"}
    one = ObjectStoreConfig.model_validate({"path": "s3://b/a.jsonl", "options": options}).build()
    assert "colour" in await refused(one)
    await one.close()


async def test_a_folder_of_this_machine(tmp_path):
    config = ObjectStoreConfig.model_validate({"path": f"file://{tmp_path}/a%20b/pages.jsonl"})
    one = config.build()
    run = run_of(await begun(one))
    await one.write(results(1))
    await one.close()
    assert [path.name for path in (tmp_path / "a b" / "pages.jsonl").iterdir()] == [f"part-00001-{run}.jsonl"]
    in_the_way = ObjectStoreConfig.model_validate({"path": f"file://{tmp_path}/a%20b/pages.jsonl"}).build()
    assert "there are objects that no earlier run" in await refused(in_the_way)
    await in_the_way.close()


async def test_what_a_crash_has_left_of_objects_in_a_folder_is_deleted(tmp_path):
    config = ObjectStoreConfig.model_validate({"path": f"file://{tmp_path}/a%20b/pages.jsonl"})
    one = config.build()
    mark = await begun(one)
    run = run_of(mark)
    mark = await one.write(results(1))
    await one.close()
    folder = tmp_path / "a b" / "pages.jsonl"
    left = [f"part-00002-{run}.jsonl#1", f"part-00002-{run}.jsonl#12"]
    others = ["part-00002-00000000.jsonl#1"]
    for discards in (False, True):
        for name in left + others:
            (folder / name).write_bytes(b"half")
        two = config.build()
        await two.check(mark, resume=not discards)
        await (two.discard(mark) if discards else two.open(mark))
        await two.close()
        mine = [] if discards else [f"part-00001-{run}.jsonl"]
        assert sorted(path.name for path in folder.iterdir()) == sorted(mine + others)


@pytest.mark.parametrize(
    "path",
    ["out.jsonl", "s3://bucket", "s3:///a.jsonl", "ftp://b/a.jsonl", "file://host/a.jsonl", "s3://b/../a.jsonl",
     "s3://b/a.jsonl?x=1", "s3://b/a/", "memory:///a.jsonl"],
)  # fmt: skip
def test_a_path_that_is_no_folder_of_a_store_is_refused(path):
    with pytest.raises(ValidationError, match="should be like s3://bucket/folder/"):
        ObjectStoreConfig.model_validate({"path": path})


def test_credentials_are_not_shown_and_a_sink_may_be_a_text():
    options = {"access_key_id": "hidden-id", "secret_access_key": "hidden-key"}
    config = ObjectStoreConfig.model_validate({"path": "s3://b/a.jsonl", "options": options})
    assert "hidden" not in repr(config) + str(config.model_dump(mode="json"))
    whole = Config.model_validate({"sources": ["urls.txt"], "sinks": ["s3://bucket/crawl/pages.jsonl.zst"]})
    found = whole.sinks[0]
    assert isinstance(found, ObjectStoreConfig)
    assert found.batch is not None
    assert found.format.compression == "zstd"


async def test_an_endpoint_that_is_written_with_http_may_be_asked_over_http(server, bucket, objects):
    options = {name: value for name, value in server.options.items() if name != "allow_http"}
    one = ObjectStoreConfig.model_validate({"path": f"s3://{bucket}/a.jsonl", "options": options}).build()
    await begun(one)
    await one.write(results(1))
    await one.close()
    assert len(objects()) == 1
