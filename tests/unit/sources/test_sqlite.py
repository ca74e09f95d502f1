from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from hashlib import sha256

import msgspec
import pytest
from pydantic import ValidationError

from fetcher.errors import ConfigError, ErrorKind, SourceError
from fetcher.sources import query as module
from fetcher.sources.sqlite import SqliteSourceConfig


@pytest.fixture
def database(tmp_path):
    """A database, and its file."""
    path = str(tmp_path / "a ?#%.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection, path


def source(path, query, **settings):
    return SqliteSourceConfig(path=path, query=query, **settings).build()


async def chunks_of(path, query, position=None, **settings):
    return [chunk async for chunk in source(path, query, **settings).read(position)]


async def jobs_of(path, query, position=None, **settings):
    return [job for chunk in await chunks_of(path, query, position, **settings) for job in chunk.jobs]


def filled(connection, count):
    connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, url TEXT)")
    connection.executemany("INSERT INTO pages VALUES (?, ?)", [(n, f"http://a.test/{n}") for n in range(1, count + 1)])


async def test_columns_become_the_job_and_its_meta(database):
    query = """
        SELECT ' http://a.test/ ' AS url, 'post' AS method, '{"x-a": "1"}' AS headers, '[1]' AS json, 5 AS priority,
               1.5 AS timeout, 0 AS verify, 7 AS key, 'b' AS name, NULL AS none, x'ff' AS raw, '{"own": 1}' AS meta;
        """
    (job,) = await jobs_of(database[1], query)
    assert (job.id, job.url, job.method, job.priority, job.timeout) == ("1", "http://a.test/", "POST", 5, 1.5)
    assert (job.verify, job.key, job.body) == (False, "7", b"[1]")
    assert job.headers == [("x-a", "1"), ("content-type", "application/json")]
    assert job.meta == {"name": "b", "none": None, "raw": "/w==", "own": 1}


async def test_a_body_is_text_or_bytes(database):
    query = "SELECT 'http://a.test/' AS url, 'é' AS body UNION ALL SELECT 'http://a.test/', x'00ff'"
    assert [job.body for job in await jobs_of(database[1], query)] == ["é".encode(), b"\x00\xff"]


@pytest.mark.parametrize(
    "columns",
    [
        "NULL AS url",
        "5 AS url",
        "'nope' AS url",
        "CAST(x'ff' AS TEXT) AS url",
        "'http://a.test/' AS url, CAST(x'ff' AS TEXT) AS name",
        "'http://a.test/' AS url, '{' AS headers",
        "'http://a.test/' AS url, '5' AS meta",
        "'http://a.test/' AS url, 'a b' AS method",
        "'http://a.test/' AS url, 'high' AS priority",
        "'http://a.test/' AS url, x'00' AS body, '1' AS json",
        "'http://a.test/' AS url, '" + "[" * 200 + "]" * 200 + "' AS json",
    ],
)
async def test_a_bad_row_is_rejected(database, columns):
    (job,) = await jobs_of(database[1], f"SELECT {columns}")
    assert job.id == "1"
    assert job.rejected.kind in {ErrorKind.INVALID_ROW, ErrorKind.INVALID_URL}
    assert msgspec.json.encode(job)


@pytest.mark.parametrize("order", [None, "id"])
async def test_resuming_anywhere_is_reading_on(database, monkeypatch, order):
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    filled(database[0], 100)
    query = "SELECT * FROM pages ORDER BY id -- all of them"
    chunks = await chunks_of(database[1], query, order=order)
    for number, chunk in enumerate(chunks, 1):
        assert await chunks_of(database[1], query, chunk.position, order=order) == chunks[number:]


async def test_with_an_order_rows_may_come_and_go(database, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 10)
    connection, path = database
    filled(connection, 40)
    query = "SELECT * FROM pages"
    position = (await chunks_of(path, query, order="id"))[1].position
    connection.execute("DELETE FROM pages WHERE id < 15 OR id = 25")
    connection.execute("INSERT INTO pages VALUES (99, 'http://a.test/99')")
    rest = await jobs_of(path, query, position, order="id")
    assert [job.id for job in rest] == [*map(str, range(21, 25)), *map(str, range(26, 41)), "99"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM pages WHERE id = 5", "has other rows, or in another order, than then"),
        ("UPDATE pages SET url = 'http://b.test/' WHERE id = 1", "has other rows"),
        ("DELETE FROM pages WHERE id > 15", "has 15 rows only"),
    ],
)
async def test_without_an_order_other_rows_are_refused(database, monkeypatch, change, message):
    monkeypatch.setattr(module, "CHUNK_ROWS", 10)
    connection, path = database
    filled(connection, 40)
    query = "SELECT * FROM pages ORDER BY id"
    position = (await chunks_of(path, query))[1].position
    connection.execute(change)
    with pytest.raises(SourceError, match=f"changed since the batch was started: the query {message}.*set order"):
        await jobs_of(path, query, position)


async def test_text_is_ordered_by_its_bytes(database, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)
    connection, path = database
    connection.execute("CREATE TABLE pages (name TEXT COLLATE NOCASE, url TEXT)")
    for name in ("b", "A", "a", "B", "a b/c"):
        connection.execute("INSERT INTO pages VALUES (?, 'http://a.test/')", (name,))
    chunks = await chunks_of(path, "SELECT * FROM pages", order="name")
    assert [job.meta["name"] for chunk in chunks for job in chunk.jobs] == ["A", "B", "a", "a b/c", "b"]
    # What is no plain word is no part of an id.
    assert [job.id for chunk in chunks for job in chunk.jobs] == ["A", "B", "a", sha256(b"a b/c").hexdigest()[:32], "b"]
    for number, chunk in enumerate(chunks, 1):
        assert await chunks_of(path, "SELECT * FROM pages", chunk.position, order="name") == chunks[number:]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("(1), (2), (2)", "two rows have '2' as 'id'"),
        ("(NULL), (1)", "row 1 has no 'id'"),
        ("(x'00')", "'id' is a BLOB"),
    ],
)
async def test_an_order_that_is_none_is_refused(database, values, message):
    query = f"SELECT column1 AS id, 'http://a.test/' AS url FROM (VALUES {values})"
    with pytest.raises(SourceError, match=message):
        await jobs_of(database[1], query, order="id")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT url FROM no_table", "no such table: no_table"),
        ("SELECT 1 AS link", "the query has no column 'url'; its columns are link"),
        ("SELECT 1 AS url, 2 AS url", "two columns"),
        ("SELECT 'a' AS url; DROP TABLE pages", "syntax error"),
        ("DELETE FROM pages", "syntax error"),
        ("PRAGMA user_version", "syntax error"),
        ("ATTACH '/tmp/x.db' AS x", "syntax error"),
        ("VACUUM INTO '/tmp/x.db'", "syntax error"),
    ],
)
def test_check_takes_nothing_but_a_select(database, query, message):
    filled(database[0], 1)
    with pytest.raises(ConfigError, match=message):
        source(database[1], query).check()
    assert database[0].execute("SELECT count(*) FROM pages").fetchone() == (1,)


@pytest.mark.parametrize("query", ["VACUUM INTO '{}'", "ATTACH '{}' AS x", "DELETE FROM pages RETURNING url"])
async def test_a_reading_can_not_write(database, tmp_path, query):
    filled(database[0], 1)
    with pytest.raises(SourceError):
        await jobs_of(database[1], query.format(tmp_path / "x.db"))
    assert not (tmp_path / "x.db").exists()
    assert database[0].execute("SELECT count(*) FROM pages").fetchone() == (1,)


def test_check_finds_what_can_not_be_opened(database, tmp_path):
    with pytest.raises(ConfigError, match=r"no\.db: there is no such file; a path is relative"):
        source(str(tmp_path / "no.db"), "SELECT 1 AS url").check()
    (tmp_path / "text.db").write_text("http://a.test/\n" * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        source(str(tmp_path / "text.db"), "SELECT 1 AS url").check()
    with pytest.raises(ConfigError, match="the query has no column 'id'"):
        source(database[1], "SELECT 1 AS url", order="id").check()
    assert not (tmp_path / "no.db").exists()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS url FROM n"


async def test_a_query_that_takes_too_long_is_given_up(database):
    with pytest.raises(SourceError, match=r"it took longer than timeout, which is 0\.05s"):
        await jobs_of(database[1], ENDLESS, timeout=0.05)


async def test_a_locked_database_is_waited_for_and_given_up(database):
    connection, path = database
    filled(connection, 1)
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceError, match="database is locked"):
        await jobs_of(path, "SELECT * FROM pages", lock_timeout=0.05)


async def test_a_query_that_nobody_waits_for_ends(database):
    reading = asyncio.create_task(jobs_of(database[1], ENDLESS))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 5)
    for _ in range(200):
        if not any(thread.name.startswith("fetcher-source") for thread in threading.enumerate()):
            break
        await asyncio.sleep(0.01)
    assert not any(thread.name.startswith("fetcher-source") for thread in threading.enumerate())


@pytest.mark.parametrize("position", ["", "x", "5", '{"row":"a"}'])
async def test_a_position_of_something_else(database, position):
    with pytest.raises(SourceError):
        await jobs_of(database[1], "SELECT 'http://a.test/' AS url", position)


@pytest.mark.parametrize(
    "settings", [{"query": " ; "}, {"query": "SELECT 1", "timeout": 0}, {"query": "x", "order": ""}]
)
def test_bad_settings(settings):
    with pytest.raises(ValidationError):
        SqliteSourceConfig(path="a.db", **settings)


@pytest.mark.parametrize("order", [None, "id"])
async def test_a_chunk_has_no_more_than_a_megabyte_or_so(database, order):
    query = """
        WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 600)
        SELECT id, 'http://a.test/' || id AS url,
               CASE WHEN id = 300 THEN zeroblob(2000000) WHEN id > 500 THEN printf('%.*c', 100000, 'x') END AS x
        FROM numbers ORDER BY id
        """
    chunks = await chunks_of(database[1], query, order=order)
    jobs = [job for chunk in chunks for job in chunk.jobs]
    assert [job.id for job in jobs] == [str(n) for n in range(1, 601)]
    assert [(job.id, job.rejected.message) for job in jobs if job.rejected] == [("300", "longer than 1048576 bytes")]
    sizes = [sum(len(job.meta["x"] or "") for job in chunk.jobs if job.meta) for chunk in chunks]
    assert max(sizes) < 1_200_000
    resumed = await jobs_of(database[1], query, chunks[0].position, order=order)
    assert [job.id for job in resumed] == [job.id for chunk in chunks[1:] for job in chunk.jobs]
