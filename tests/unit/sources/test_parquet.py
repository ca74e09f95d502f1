from __future__ import annotations

import asyncio
import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from fetcher.errors import ConfigError, MissingExtraError, SourceError
from fetcher.sources import objects
from fetcher.sources import parquet as module
from fetcher.sources.file import FileSourceConfig


@pytest.fixture
def write(tmp_path):
    def write(columns, **options):
        path = tmp_path / "u.parquet"
        parquet.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return str(path)

    return write


async def chunks_of(path, position=None, **settings):
    return [chunk async for chunk in FileSourceConfig(path=path, **settings).build().read(position)]


async def jobs_of(path, position=None, **settings):
    return [job for chunk in await chunks_of(path, position, **settings) for job in chunk.jobs]


async def test_columns_become_meta_as_json_has_them(write):
    columns = {
        "link": ["http://a.test/1"],
        "n": [3],
        "day": [dt.date(2026, 1, 2)],
        "price": [Decimal("1.50")],
        "at": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
        "took": pa.array([1_500], pa.duration("ns")),
        "clock": pa.array([1_500], pa.time64("ns")),
        "raw": [b"\xff"],
        "tags": [["a", "b"]],
        "nested": [{"x": [dt.date(2026, 1, 2)]}],
        "none": pa.array([None], pa.string()),
        "kind": pa.array(["page"]).dictionary_encode(),
        "k": [7],
        "p": [9],
    }
    (job,) = await jobs_of(write(columns), column="link", key="k", priority="p")
    assert (job.id, job.url, job.key, job.priority) == ("1", "http://a.test/1", "7", 9)
    assert job.meta == {
        "n": 3,
        "day": "2026-01-02",
        "price": "1.50",
        "at": "2023-11-14T22:13:20.123456Z",
        "took": "PT0.000001S",
        "clock": "00:00:00.000001",
        "raw": "/w==",
        "tags": ["a", "b"],
        "nested": {"x": ["2026-01-02"]},
        "none": None,
        "kind": "page",
        "k": 7,
        "p": 9,
    }
    assert msgspec.json.encode(job)


async def test_bad_rows_are_rejected_by_number(write):
    bytes_ = pa.array([b"http://a.test/1", b"http://a.test/\xff", b"http://a.test/3"]).view(pa.string())
    jobs = await jobs_of(write({"url": bytes_, "p": [1, 2, 2**40]}), priority="p")
    assert [(job.id, job.rejected is None) for job in jobs] == [("1", True), ("2", False), ("3", False)]
    assert "not valid UTF-8" in jobs[1].rejected.message
    jobs = await jobs_of(write({"url": pa.array([None, "nope", ""], pa.string())}))
    assert [job.rejected is None for job in jobs] == [False, False, False]
    assert "has no 'url'" in jobs[0].rejected.message


async def test_a_url_that_is_no_text(write):
    (job,) = await jobs_of(write({"url": [5]}))
    assert "'url' is not text" in job.rejected.message


@pytest.mark.parametrize("groups", [7, 1000, 4000])
async def test_resuming_anywhere_is_reading_on(write, groups, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 100)
    path = write({"url": [f"http://a.test/{n}" for n in range(2000)]}, row_group_size=groups)
    every = await jobs_of(path)
    assert [job.id for job in every] == [str(n) for n in range(1, 2001)]
    for chunk in (await chunks_of(path))[::17]:
        assert await jobs_of(path, chunk.position) == every[int(chunk.jobs[-1].id) :]


async def test_another_file_is_noticed(write):
    urls = [f"http://a.test/{n}" for n in range(2000)]
    position = (await chunks_of(write({"url": urls})))[1].position
    with pytest.raises(SourceError, match="changed since the batch was started, which stands after row 1000"):
        await jobs_of(write({"url": urls[::-1]}), position)


@pytest.mark.parametrize("position", ["", "x", '{"row":-1,"footer":0}'])
async def test_a_position_of_something_else(write, position):
    with pytest.raises(SourceError):
        await jobs_of(write({"url": ["http://a.test/"]}), position)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"url\nhttp://a.test/\n", b"x" * 5000 + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet(tmp_path, data):
    (tmp_path / "u.parquet").write_bytes(data)
    with pytest.raises(ConfigError, match="can not be read as parquet"):
        FileSourceConfig(path=str(tmp_path / "u.parquet")).build().check()


@pytest.fixture
def damaged(write):
    path = Path(write({"url": [f"http://a.test/{n}" for n in range(2000)]}, compression="zstd"))
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes(500) + data[600:])
    return str(path)


async def test_a_damaged_page(damaged):
    with pytest.raises(SourceError, match="can not be read as parquet"):
        await jobs_of(damaged)


def test_columns_that_are_not_there(write):
    with pytest.raises(ConfigError, match="there is no column 'url'; its columns are link, x"):
        FileSourceConfig(path=write({"link": ["a"], "x": [1]})).build().check()
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["url", "url"])
    with pytest.raises(ConfigError, match="two columns are named 'url'"):
        FileSourceConfig(path=write(twice)).build().check()


async def test_one_row_group_of_many_rows_is_not_held(write):
    path = write({"url": [f"http://a.test/{n}" for n in range(300_000)], "x": ["y" * 100] * 300_000})
    before = pa.total_allocated_bytes()
    most = 0
    async for _ in FileSourceConfig(path=path).build().read(None):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 20_000_000


def repeated(value, count):
    """Return a column that has one value so often, which is in the file once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


@pytest.mark.parametrize("listed", [False, True])
async def test_a_value_that_is_long_and_often_there_is_not_held_as_often(write, listed):
    # Of 4 KB, which were 2.5 GB in a batch, and more than a column of texts can be.
    big = repeated("y" * 5_000_000, 500)
    if listed:
        big = pa.ListArray.from_arrays(pa.array(range(501), pa.int32()), big)
    table = pa.table({"url": [f"http://a.test/{n}" for n in range(500)], "x": big})
    path = write(table, compression="zstd", store_schema=False)
    assert (await asyncio.to_thread(Path(path).stat)).st_size < 10_000
    before = pa.total_allocated_bytes()
    most, jobs = 0, []
    async for chunk in FileSourceConfig(path=path).build().read(None):
        most = max(most, pa.total_allocated_bytes() - before)
        jobs += chunk.jobs
    assert most < 250_000_000
    assert [job.id for job in jobs] == [str(n) for n in range(1, 501)]
    assert {job.rejected.message.partition(": ")[2] for job in jobs} == {"longer than 1048576 bytes"}


async def test_a_chunk_has_no_more_than_a_megabyte_or_so(write):
    # The second hundred rows are long, and row 300 is too long.
    texts = ["x" * (100_000 if 100 <= n < 200 else 2_000_000 if n == 300 else 10) for n in range(1000)]
    path = write({"url": [f"http://a.test/{n}" for n in range(1000)], "x": texts, "tags": [["a" * 9]] * 1000})
    chunks = await chunks_of(path)
    jobs = [job for chunk in chunks for job in chunk.jobs]
    assert [job.id for job in jobs] == [str(n) for n in range(1, 1001)]
    assert [job.id for job in jobs if job.rejected is not None] == ["301"]
    assert max(sum(len(job.meta["x"]) for job in chunk.jobs if job.meta) for chunk in chunks) < 2_200_000
    assert max(len(chunk.jobs) for chunk in chunks) <= 500
    for number, chunk in enumerate(chunks, 1):
        assert [job.id for one in await chunks_of(path, chunk.position) for job in one.jobs] == [
            job.id for one in chunks[number:] for job in one.jobs
        ]


async def test_in_a_store(write, s3, monkeypatch):
    s3.reset()
    s3.create("tables")
    path = write({"url": [f"http://a.test/{n}" for n in range(100_000)]}, row_group_size=10_000)
    data = await asyncio.to_thread(Path(path).read_bytes)
    s3.put("tables", "u.parquet", data)
    stored = await chunks_of("s3://tables/u.parquet", options=s3.options)
    assert stored == await chunks_of(path)
    asked = []
    fetch = objects.StoredObject._fetch
    monkeypatch.setattr(
        objects.StoredObject, "_fetch", lambda self, start, end: asked.append(end - start) or fetch(self, start, end)
    )
    assert await chunks_of("s3://tables/u.parquet", stored[-2].position, options=s3.options) == stored[-1:]
    assert sum(asked) < len(data) / 2


def test_without_the_driver_its_extra_is_named(write, monkeypatch):
    path = write({"url": ["http://a.test/"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"u\.parquet: parquet needs pyarrow.*pip install 'pyarrow>="):
        FileSourceConfig(path=path).build().check()
