"""Several files, packed ones, and those in a store; what is within a file is in ``test_file``."""

from __future__ import annotations

import gzip
import os
import sys
from contextlib import aclosing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from fetcher.errors import ConfigError, MissingExtraError, SourceError
from fetcher.sources import objects
from fetcher.sources import text as module
from fetcher.sources.file import FileSourceConfig

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(path, **settings):
    return FileSourceConfig(path=path, **settings).build()


async def chunks_of(path, position=None, **settings):
    return [chunk async for chunk in source(path, **settings).read(position)]


async def plain(path, position=None, **settings):
    return [(job.id, job.url) for chunk in await chunks_of(path, position, **settings) for job in chunk.jobs]


# Several


async def test_a_pattern_is_what_it_matches_by_name(folder):
    for name in ("b.txt", "a.txt", "c.csv"):
        (folder / name).write_text(("url\n" if name == "c.csv" else "") + f"http://{name}.test/\n")
    (folder / "d.txt").mkdir()
    source("*.txt").check()
    assert await plain("*.txt") == [("1-1", "http://a.txt.test/"), ("2-1", "http://b.txt.test/")]
    # A list is read in its order, and nothing twice; each file has its own format.
    assert await plain(["c.csv", "b.txt", "*.txt"]) == [
        ("1-2", "http://c.csv.test/"),
        ("2-1", "http://b.txt.test/"),
        ("3-1", "http://a.txt.test/"),
    ]


async def test_a_pattern_goes_into_folders(folder):
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "a.txt").write_text("http://a.test/")
    (folder / "in" / "deep" / "b.txt").write_text("http://b.test/")
    assert [url for _, url in await plain("in/**/*.txt")] == ["http://a.test/", "http://b.test/"]


async def test_a_name_that_looks_like_a_pattern_is_a_file(folder):
    (folder / "a[1].txt").write_text("http://a.test/")
    assert await plain("a[1].txt") == [("1", "http://a.test/")]


async def test_a_pattern_without_a_match_is_refused(folder):
    with pytest.raises(ConfigError, match=r"in/\*\.txt: matches no file; a path is relative"):
        source(["in/*.txt"]).check()
    with pytest.raises(SourceError, match="matches no file"):
        await plain("in/*.txt")


def test_every_file_is_checked_before_the_first_fetch(folder):
    (folder / "a.csv").write_text("url\n")
    (folder / "b.csv").write_text("link\n")
    with pytest.raises(ConfigError, match=r"b\.csv:1: there is no column 'url'"):
        source("*.csv").check()
    with pytest.raises(ConfigError, match=r"c\.csv: can not be opened"):
        source(["a.csv", "c.csv"]).check()


@pytest.fixture
async def interrupted(folder, monkeypatch):
    """A batch that stands in the second of two files."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    for name in "bd":
        (folder / f"{name}.txt").write_text("".join(f"http://{name}.test/{n}\n" for n in range(1, 4)))
    chunks = await chunks_of("*.txt")
    assert [job.id for job in chunks[2].jobs] == ["2-1", "2-2"]
    return chunks[2].position


async def test_files_may_come_after_the_one_that_is_being_read(folder, interrupted):
    (folder / "e.txt").write_text("http://e.test/1\n")
    assert await plain("*.txt", interrupted) == [("2-3", "http://d.test/3"), ("3-1", "http://e.test/1")]


@pytest.mark.parametrize("change", ["before", "between", "gone", "all gone"])
async def test_other_changes_of_the_files_are_refused(folder, interrupted, change):
    match change:
        case "before":
            (folder / "a.txt").write_text("http://a.test/1\n")
        case "between":
            (folder / "c.txt").write_text("http://c.test/1\n")
        case "gone":
            (folder / "b.txt").unlink()
        case "all gone":
            (folder / "b.txt").unlink()
            (folder / "d.txt").unlink()
    expected = (
        "matches no file" if change == "all gone" else "file number 2, and the files up to it are not those of then"
    )
    with pytest.raises(SourceError, match=expected):
        await plain("*.txt", interrupted)


async def test_a_changed_file_among_several_is_refused(folder, interrupted):
    (folder / "d.txt").write_text("http://d.test/x\nhttp://d.test/y\nhttp://d.test/z\n")
    with pytest.raises(SourceError, match=r"d\.txt: changed since the batch was started"):
        await plain("*.txt", interrupted)


@pytest.mark.parametrize("position", ["", "x", '{"file":0,"names":0,"at":""}', '{"offset":1,"line":1,"crc":0}'])
async def test_a_position_of_something_else(folder, position):
    (folder / "a.txt").write_text("http://a.test/1\n")
    with pytest.raises(SourceError):
        await plain("*.txt", position)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_files_are_open_one_at_a_time(folder):
    for number in range(300):
        (folder / f"{number:03}.txt").write_text("http://a.test/\n")
    before = descriptors()
    async with aclosing(source("*.txt").read(None)) as chunks:
        most = max([descriptors() async for _ in chunks])
    assert most <= before + 3


@pytest.mark.parametrize(
    "settings",
    [
        {"path": []},
        {"path": ["a", ""]},
        {"path": ["a", "-"]},
        {"path": "s3://bucket"},
        {"path": "s3:///key"},
        {"path": ["a.txt", "b.txt"], "column": "x"},
        {"path": "a.parquet", "delimiter": ";"},
        {"path": "a.parquet.zst"},
        {"path": "-", "format": "parquet"},
        {"path": "a", "options": {"region": "x"}},
    ],
)
def test_contradictions_are_refused(settings):
    with pytest.raises(ValidationError):
        FileSourceConfig(**settings)


def test_a_setting_for_one_of_several_formats_is_none():
    FileSourceConfig(path=["a.txt", "b.csv"], column="link", delimiter=";")


# Packed


async def test_zstd_of_several_frames(folder):
    (folder / "u.csv.zst").write_bytes(zstd.compress(b"url\nhttp://a.t") + zstd.compress(b"est/1\nhttp://a.test/2\n"))
    assert await plain("u.csv.zst") == [("2", "http://a.test/1"), ("3", "http://a.test/2")]


@pytest.mark.parametrize("data", [zstd.compress(os.urandom(2_000_000))[:-9], b"http://a.test/\n"], ids=["cut", "plain"])
async def test_damaged_zstd(folder, data):
    (folder / "u.txt.zst").write_bytes(data)
    with pytest.raises(SourceError, match=r"u\.txt\.zst: can not be read on"):
        await plain("u.txt.zst")


async def test_a_packed_pipe_is_refused_with_its_tool(folder):
    os.mkfifo(folder / "f.zst")
    with pytest.raises(ConfigError, match="zstd -dc"):
        source("f.zst").check()


# Stored


@pytest.fixture
def bucket(s3):
    s3.reset()
    s3.create("urls")
    return s3


async def test_objects_by_pattern(bucket):
    bucket.put("urls", "in/a 1.txt", b"http://a.test/\n")
    bucket.put("urls", "in/b[2].txt.gz", gzip.compress(b"http://b.test/\n"))
    bucket.put("urls", "in/deep/c.txt", b"http://c.test/\n")
    bucket.put("urls", "other/d.txt", b"http://d.test/\n")
    options = bucket.options
    source("s3://urls/in/*.txt*", options=options).check()
    assert await plain("s3://urls/in/a 1.txt", options=options) == [("1", "http://a.test/")]
    assert await plain("s3://urls/in/*.txt*", options=options) == [("1-1", "http://a.test/"), ("2-1", "http://b.test/")]
    assert len(await plain("s3://urls/**/*.txt", options=options)) == 3
    assert len(await plain("s3://urls/**", options=options)) == 4


async def test_what_is_wrong_with_a_store_is_said_before_the_first_fetch(bucket):
    options = bucket.options

    def said(path, **changed):
        with pytest.raises(ConfigError) as caught:
            source(path, options=options | changed).check()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said("s3://urls/no.txt") == "s3://urls/no.txt: there is no such object, or no such bucket"
    assert "s3://urls/no/*.txt: matches no file" in said("s3://urls/no/*.txt")
    assert said("s3://nowhere/*.txt").endswith("The specified bucket does not exist (NoSuchBucket)")
    assert "'endpont' is not valid" in said("s3://urls/a.txt", endpont="x")


def test_a_store_that_does_not_answer_is_given_up(bucket, monkeypatch):
    monkeypatch.setitem(objects._RETRIES, "max_retries", 1)
    with pytest.raises(ConfigError, match=r"s3://urls/a\.txt: can not be read"):
        source("s3://urls/a.txt", options=bucket.options | {"endpoint": "http://127.0.0.1:9"}).check()


async def test_an_object_that_is_replaced_while_it_is_read(bucket, monkeypatch):
    monkeypatch.setattr(objects, "READ_AHEAD", 100)
    bucket.put("urls", "u.txt", b"http://a.test/1\n" * 100_000)
    async with aclosing(source("s3://urls/u.txt", options=bucket.options).read(None)) as chunks:
        await anext(chunks)
        bucket.put("urls", "u.txt", b"http://a.test/2\n" * 100_000)
        with pytest.raises(SourceError, match="changed while it was read"):
            async for _ in chunks:
                pass


async def test_a_reading_goes_on_when_the_store_is_back(bucket, monkeypatch):
    monkeypatch.setattr(objects, "READ_AHEAD", 100)
    monkeypatch.setitem(objects._RETRIES, "max_retries", 1)
    bucket.put("urls", "u.txt", b"".join(b"http://a.test/%d\n" % n for n in range(40_000)))
    jobs = []
    position = None
    bucket_options = bucket.options
    chunks = source("s3://urls/u.txt", options=bucket_options).read(None)
    while len(jobs) < 1000:
        chunk = await anext(chunks)
        jobs += chunk.jobs
        position = chunk.position
    bucket.stop()
    with pytest.raises(SourceError, match="can not be read"):  # noqa: PT012  it may have some in hand
        async for chunk in chunks:
            jobs += chunk.jobs
            position = chunk.position
    bucket.start()
    async for chunk in source("s3://urls/u.txt", options=bucket_options).read(position):
        jobs += chunk.jobs
    assert [job.url for job in jobs] == [f"http://a.test/{n}" for n in range(40_000)]


async def test_a_large_object_is_streamed(bucket, monkeypatch):
    asked = []
    fetch = objects.StoredObject._fetch
    monkeypatch.setattr(objects, "READ_AHEAD", 1_000_000)
    monkeypatch.setattr(
        objects.StoredObject, "_fetch", lambda self, start, end: asked.append((start, end)) or fetch(self, start, end)
    )
    bucket.put("urls", "u.txt", b"http://a.test/%s\n" % (b"x" * 1000) * 10_000)
    assert len(await plain("s3://urls/u.txt", options=bucket.options)) == 10_000
    assert len(asked) > 10
    assert max(end - start for start, end in asked) <= 1_000_000 + 256 * 1024
    assert sum(end - start for start, end in asked) < 1.5 * asked[-1][1]


def test_other_stores_have_options_of_their_own():
    options = FileSourceConfig(path="az://c/k", options={"account_name": "a", "account_key": "a2V5"}).options
    assert "account_name" in repr(objects.open_store("az", "c", options))
    assert "GCSStore" in repr(objects.open_store("gs", "b", {}))
    with pytest.raises(ConfigError, match=r"az://c: can not be used: .*Account must be specified"):
        objects.open_store("az", "c", {})


def test_without_the_driver_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'obstore>="):
        source("s3://urls/u.txt").check()


def test_options_are_shown_to_nobody():
    config = FileSourceConfig(path="s3://urls/u.txt", options={"secret_access_key": "hush"})
    assert "hush" not in repr(config)
    assert "hush" not in config.model_dump_json()


async def test_a_folder_of_parquet_parts_is_those_parts(folder):
    for name, url in (("a.test/part-00000-1", "http://a.test/"), ("b.test/part-00000-1", "http://b.test/")):
        path = folder / "out.parquet" / f"host={name}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"url": [url]}), path)
    (folder / "out.parquet" / "_part-00001-1.parquet").write_bytes(b"not finished")
    source("out.parquet").check()
    assert [url for _, url in await plain("out.parquet")] == ["http://a.test/", "http://b.test/"]
    (folder / "empty.parquet").mkdir()
    with pytest.raises(ConfigError):
        source("empty.parquet").check()
