"""What every source promises, whatever its type: see ``fetcher.interfaces.Source``."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import sqlite3
import sys
import threading
import urllib.error
from contextlib import aclosing
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from fetcher.registry import config_class
from fetcher.sources import inline as inline_module
from fetcher.sources import inputs as inputs_module
from fetcher.sources import objects as objects_module
from fetcher.sources import parquet as parquet_module
from fetcher.sources import query as query_module
from fetcher.sources import sitemap as sitemap_module
from fetcher.sources import template as template_module
from fetcher.sources import text as text_module

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COUNT = 47
BAD = 20


def text(number):
    return "http://a.test/ bad" if number == BAD else f"http://a.test/{number}"


def lines():
    return "".join(f"{text(number)}\n" for number in range(1, COUNT + 1))


def table():
    rows = "".join(f'{text(number)},"two\nlines"\n' for number in range(1, COUNT + 1))
    return f"url,x\n{rows}"


def objects():
    return "".join(f'{{"url": "{text(number)}"}}\n' for number in range(1, COUNT + 1))


def packed(name, data):
    if name.endswith(".gz"):
        return gzip.compress(data)
    return zstd.compress(data) if name.endswith(".zst") else data


def file_config(folder, name, data):
    path = folder / name
    path.write_bytes(packed(name, data.encode()))
    return config_class("sources", "file")(path=str(path))


def several_config(folder):
    """Files of all formats, whose rows together are those of one."""
    rows = lines().splitlines(keepends=True)
    (folder / "a.txt").write_text("".join(rows[:12]))
    (folder / "b.csv").write_text("url\n" + "".join(rows[12:30]))
    (folder / "c.txt").write_text("# none\n")
    (folder / "d.txt.gz").write_bytes(gzip.compress("".join(rows[30:]).encode()))
    return config_class("sources", "file")(path=[str(folder / "[ab].*"), str(folder / "?.txt*")])


def parquet_config(folder):
    table = pa.table({"url": [text(n) for n in range(1, COUNT + 1)], "at": [dt.date(2026, 1, 1)] * COUNT})
    path = folder / "u.parquet"
    parquet.write_table(table, path, row_group_size=12)
    return config_class("sources", "file")(path=str(path))


def stored_config(name, data, s3):
    with contextlib.suppress(urllib.error.HTTPError):  # it is there already
        s3.create("contract")
    s3.put("contract", f"in/{name}", packed(name, data.encode()))
    return config_class("sources", "file")(path=f"s3://contract/in/{name}", options=s3.options)


def sitemap_config(folder):
    urls = "".join(f"<url><loc>{text(n)}</loc></url>" for n in range(1, COUNT + 1))
    (folder / "sitemap.xml").write_text(f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>')
    return config_class("sources", "sitemap")(location=str(folder / "sitemap.xml"))


def index_config(folder):
    """An index of two sitemaps of different kinds."""
    (folder / "a.xml").write_text(
        "<urlset>" + "".join(f"<url><loc>{text(n)}</loc></url>" for n in range(1, 21)) + "</urlset>"
    )
    (folder / "b.txt.gz").write_bytes(gzip.compress("\n".join(text(n) for n in range(21, COUNT + 1)).encode()))
    index = "<sitemapindex><sitemap><loc>a.xml</loc></sitemap><sitemap><loc>b.txt.gz</loc></sitemap></sitemapindex>"
    (folder / "index.xml").write_text(index)
    return config_class("sources", "sitemap")(location=str(folder / "index.xml"))


def sqlite_config(folder, order=None):
    path = folder / "urls.db"
    if not path.exists():
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, url TEXT)")
            database.executemany("INSERT INTO pages VALUES (?, ?)", [(n, text(n)) for n in range(1, COUNT + 1)])
    return config_class("sources", "sqlite")(path=str(path), query="SELECT id, url FROM pages ORDER BY id", order=order)


def postgres_config(postgres, order=None):
    rows = f"SELECT n AS id, CASE WHEN n = {BAD} THEN 'http://a.test/ bad' ELSE 'http://a.test/' || n END AS url"
    query = f"{rows} FROM generate_series(1, {COUNT}) AS n ORDER BY n"
    return config_class("sources", "postgres")(dsn=postgres.dsn, query=query, order=order)


# What makes the source, and which id its bad row has. The config of some can not hold a bad URL.
CASES = {
    "txt": (lambda folder: file_config(folder, "u.txt", lines()), BAD),
    "txt.gz": (lambda folder: file_config(folder, "u.txt.gz", lines()), BAD),
    "txt.zst": (lambda folder: file_config(folder, "u.txt.zst", lines()), BAD),
    "csv": (lambda folder: file_config(folder, "u.csv", table()), 2 * BAD),
    "csv.gz": (lambda folder: file_config(folder, "u.csv.gz", table()), 2 * BAD),
    "jsonl": (lambda folder: file_config(folder, "u.jsonl", objects()), BAD),
    "parquet": (parquet_config, BAD),
    "several": (several_config, "2-9"),
    "s3": (lambda s3: stored_config("u.csv", table(), s3), 2 * BAD),
    "s3.zst": (lambda s3: stored_config("u.txt.zst", lines(), s3), BAD),
    "sitemap": (sitemap_config, BAD),
    "sitemap index": (index_config, "1-20"),
    "sqlite": (sqlite_config, BAD),
    "sqlite, ordered": (lambda folder: sqlite_config(folder, "id"), BAD),
    "postgres": (postgres_config, BAD),
    "postgres, ordered": (lambda postgres: postgres_config(postgres, "id"), BAD),
    "template": (lambda _: config_class("sources", "template")(url=f"http://a.test/{{1..{COUNT}}}"), None),
    "inline": (
        lambda _: config_class("sources", "inline")(jobs=[f"http://a.test/{n}" for n in range(1, COUNT + 1)]),
        None,
    ),
}
MODULES = (text_module, parquet_module, query_module, sitemap_module)
# Files of their own begin chunks of their own.
CHUNKS = {"several": 3 + 4 + 4, "sitemap index": 4 + 6}


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, "CHUNK_ROWS", 5)
    monkeypatch.setattr(inputs_module, "BLOCK", 64)
    monkeypatch.setattr(objects_module, "READ_AHEAD", 100)
    monkeypatch.setattr(inline_module, "_ROWS", 5)
    monkeypatch.setattr(template_module, "_ROWS", 5)
    make, bad = CASES[request.param]
    server = {"s3": "s3", "postgres": "postgres"}.get(request.param.partition(".")[0].partition(",")[0])
    return make(tmp_path if server is None else request.getfixturevalue(server)), bad


@pytest.fixture
def source(case):
    return case[0].build()


async def read(source, position=None):
    async with aclosing(source.read(position)) as chunks:
        return [chunk async for chunk in chunks]


def jobs_of(chunks):
    return [job for chunk in chunks for job in chunk.jobs]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetcher-source")]


async def settled(before):
    """Wait until there are no more descriptors and threads than before."""
    for _ in range(200):
        if not threads() and descriptors() <= before:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_check_finds_nothing_wrong_and_uses_nothing_up(source):
    before = descriptors()
    source.check()
    source.check()
    assert await settled(before)
    assert len(jobs_of(await read(source))) == COUNT


async def test_every_row_is_a_job_in_order(source):
    jobs = jobs_of(await read(source))
    good = [job.url for job in jobs if job.rejected is None]
    assert good == [f"http://a.test/{n}" for n in range(1, COUNT + 1) if n != BAD or len(good) == COUNT]
    assert len(jobs) == COUNT


async def test_no_chunk_is_empty_or_large(source, request):
    sizes = [len(chunk.jobs) for chunk in await read(source)]
    assert set(sizes) <= {1, 2, 3, 4, 5}
    assert len(sizes) == CHUNKS.get(request.node.callspec.params["case"], -(-COUNT // 5))


async def test_ids_are_unique_and_the_same_every_time(case):
    first = jobs_of(await read(case[0].build()))
    assert len({job.id for job in first}) == COUNT
    assert jobs_of(await read(case[0].build())) == first


async def test_resumes_at_every_position_without_loss_or_repeat(case):
    chunks = await read(case[0].build())
    for number, chunk in enumerate(chunks, 1):
        assert await read(case[0].build(), chunk.position) == chunks[number:]


async def test_positions_are_short_text(source):
    assert all(0 < len(chunk.position) < 200 for chunk in await read(source))


async def test_a_bad_row_is_a_rejected_job_with_its_position(case):
    config, bad = case
    rejected = [job for job in jobs_of(await read(config.build())) if job.rejected is not None]
    if bad is None:
        assert rejected == []
        return
    assert [job.id for job in rejected] == [str(bad)]
    assert rejected[0].rejected.message
    assert rejected[0].host == ""
    assert msgspec.json.encode(rejected[0])


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_can_be_closed_early_without_a_leak(source, taken):
    before = descriptors()
    chunks = source.read(None)
    for _ in range(taken):
        await anext(chunks)
    await chunks.aclose()
    assert await settled(before)


async def test_can_be_cancelled_at_any_step_without_a_leak(source):
    before = descriptors()
    for steps in range(12):
        task = asyncio.create_task(read(source))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await settled(before)


async def test_reading_leaves_nothing_behind(source):
    before = descriptors()
    await read(source)
    assert await settled(before)
