from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from pydantic import ValidationError

from fetcher.errors import ConfigError, MissingExtraError, SourceError
from fetcher.sources import postgres as postgres_module
from fetcher.sources import query as module
from fetcher.sources.postgres import PostgresSourceConfig


@pytest.fixture
async def table(postgres):
    """A table of 100 pages; its name, and the server."""
    name = f"pages_{uuid4().hex}"
    async with postgres.connect() as connection:
        await connection.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, url text);"
            f"INSERT INTO {name} SELECT n, 'http://a.test/' || n FROM generate_series(1, 100) AS n"
        )
    return name, postgres


def source(postgres, query, **settings):
    return PostgresSourceConfig(**{"dsn": postgres.dsn, "query": query} | settings).build()


async def chunks_of(postgres, query, position=None, **settings):
    return [chunk async for chunk in source(postgres, query, **settings).read(position)]


async def jobs_of(postgres, query, position=None, **settings):
    return [job for chunk in await chunks_of(postgres, query, position, **settings) for job in chunk.jobs]


async def test_columns_fill_the_places_of_a_job(postgres):
    query = """
        SELECT 'a/b' AS name, 1.50::numeric AS price, '2026-01-02'::date AS day, '10.0.0.1'::inet AS ip,
               ARRAY['a', NULL] AS tags, '{"own": [1]}'::jsonb AS more, '\\xff'::bytea AS raw, 'x' AS body;
        """
    said = {
        "url": "http://api.test/{name}/{day}",
        "params": {"price": "{price}", "tag": "{tags}", "ip": "{ip}"},
        "json": {"more": "{more}", "tags": "{tags}"},
    }
    (job,) = await jobs_of(postgres, query, job=said)
    assert job.url == "http://api.test/a%2Fb/2026-01-02?price=1.50&tag=a&ip=10.0.0.1"
    assert job.body == b'{"more":{"own":[1]},"tags":["a",null]}'
    (job,) = await jobs_of(postgres, query, job={"url": "http://api.test/", "body": "{raw}"})
    assert job.body == b"\xff"
    with pytest.raises(ConfigError, match="the query has no column 'town'"):
        source(postgres, query, job={"url": "http://api.test/{town}"}).check()


async def test_columns_become_the_job_and_its_meta(postgres):
    query = """
        SELECT ' http://a.test/ ' AS url, 'post' AS method, '{"x-a": "1"}'::jsonb AS headers, '[1]'::json AS json,
               5::numeric AS priority, 1.5::numeric AS timeout, false AS verify, 7 AS key,
               'b' AS name, NULL AS none, '\\xff'::bytea AS raw, 1.50::numeric AS price, '2026-01-02'::date AS day,
               '2026-01-02 03:04Z'::timestamptz AS at, '1 day'::interval AS took, '10.0.0.1'::inet AS ip,
               ARRAY['a', NULL] AS tags, '{"own": [1]}'::jsonb AS more, '[1,5)'::int4range AS span,
               ROW(1, 'x') AS pair, 'NaN'::float8 AS nan, '{"deep": 1}'::json AS meta;
        """
    (job,) = await jobs_of(postgres, query)
    assert (job.id, job.url, job.method, job.priority, job.timeout) == ("1", "http://a.test/", "POST", 5, 1.5)
    assert (job.verify, job.key, job.body) == (False, "7", b"[1]")
    assert job.headers == [("x-a", "1"), ("content-type", "application/json")]
    nan = job.meta.pop("nan")
    assert nan is None or nan != nan  # noqa: PLR0124
    assert job.meta.pop("span")
    assert job.meta.pop("pair")
    assert job.meta == {
        "name": "b",
        "none": None,
        "raw": "/w==",
        "price": "1.50",
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:00Z",
        "took": "P1D",
        "ip": "10.0.0.1",
        "tags": ["a", None],
        "more": {"own": [1]},
        "deep": 1,
    }
    assert msgspec.json.encode(job)


@pytest.mark.parametrize(
    "columns",
    [
        "NULL AS url",
        "5 AS url",
        "'nope' AS url",
        "'http://a.test/' AS url, '{' AS headers",
        "'http://a.test/' AS url, '5'::json AS meta",
        "'http://a.test/' AS url, 'high' AS priority",
        "'http://a.test/' AS url, '\\x00'::bytea AS body, '1'::json AS json",
    ],
)
async def test_a_bad_row_is_rejected(postgres, columns):
    (job,) = await jobs_of(postgres, f"SELECT {columns}")
    assert job.id == "1"
    assert job.rejected.message
    assert msgspec.json.encode(job)


@pytest.mark.parametrize("order", [None, "id"])
async def test_resuming_anywhere_is_reading_on(table, monkeypatch, order):
    monkeypatch.setattr(module, "CHUNK_ROWS", 17)
    name, postgres = table
    query = f"SELECT * FROM {name} ORDER BY id -- all of them"
    chunks = await chunks_of(postgres, query, order=order)
    for number, chunk in enumerate(chunks, 1):
        assert await chunks_of(postgres, query, chunk.position, order=order) == chunks[number:]


@pytest.mark.parametrize(
    "kind", ["int2", "numeric", "text", "varchar(9)", "uuid", "date", "timestamp", "timestamptz", "oid"]
)
async def test_what_rows_can_be_ordered_by(postgres, monkeypatch, kind):
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    value = {
        "uuid": "lpad(n::text, 32, '0')::uuid",
        "date": "'2026-01-01'::date + n",
        "timestamp": "'2026-01-01'::timestamp + n * '1.000001 s'::interval",
        "timestamptz": "'2026-01-01'::timestamptz + n * '1.000001 s'::interval",
    }.get(kind, f"(n * 3)::{kind}")
    query = f"SELECT {value} AS \"my id\", 'http://a.test/' || n AS url FROM generate_series(1, 9) AS n"
    source(postgres, query, order="my id").check()
    chunks = await chunks_of(postgres, query, order="my id")
    assert len({job.id for chunk in chunks for job in chunk.jobs}) == 9
    for number, chunk in enumerate(chunks, 1):
        assert await chunks_of(postgres, query, chunk.position, order="my id") == chunks[number:]


async def test_with_an_order_rows_may_come_and_go(table, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    name, postgres = table
    query = f"SELECT * FROM {name}"
    position = (await chunks_of(postgres, query, order="id"))[1].position
    async with postgres.connect() as connection:
        await connection.execute(f"DELETE FROM {name} WHERE id < 30 OR id = 50")
        await connection.execute(f"INSERT INTO {name} VALUES (999, 'http://a.test/999')")
    rest = await jobs_of(postgres, query, position, order="id")
    assert [job.id for job in rest] == [*map(str, range(41, 50)), *map(str, range(51, 101)), "999"]


async def test_without_an_order_other_rows_are_refused(table, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    name, postgres = table
    query = f"SELECT * FROM {name} ORDER BY id"
    position = (await chunks_of(postgres, query))[1].position
    async with postgres.connect() as connection:
        await connection.execute(f"DELETE FROM {name} WHERE id = 5")
    with pytest.raises(SourceError, match="changed since the batch was started: the query has other rows"):
        await jobs_of(postgres, query, position)


async def test_an_order_that_is_none_is_refused(postgres):
    rows = "SELECT id, 'http://a.test/' AS url FROM (VALUES {}) AS v(id)"
    with pytest.raises(SourceError, match="two rows have '2' as 'id'"):
        await jobs_of(postgres, rows.format("(1), (2), (2)"), order="id")
    with pytest.raises(SourceError, match="row 2 has no 'id'"):
        await jobs_of(postgres, rows.format("(1), (NULL)"), order="id")
    with pytest.raises(ConfigError, match="order 'id' is of type float8"):
        source(postgres, rows.format("(1::float8)"), order="id").check()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT url FROM nothing", 'relation "nothing" does not exist'),
        ("SELECT 1 AS link", "the query has no column 'url'; its columns are link"),
        ("SELECT 1 AS url, 2 AS url", "two columns"),
        ("SELECT 'a' AS url; DROP TABLE x", "syntax error"),
        ("DELETE FROM pg_class RETURNING relname AS url", "syntax error"),
    ],
)
def test_check_takes_nothing_but_a_select(postgres, query, message):
    with pytest.raises(ConfigError, match=message):
        source(postgres, query).check()


async def test_a_reading_can_not_write(table):
    name, postgres = table
    for query in (f"DELETE FROM {name} RETURNING url", "SELECT setval(pg_get_serial_sequence('x', 'id'), 1) AS url"):
        with pytest.raises(SourceError):
            await jobs_of(postgres, query)
    async with postgres.connect() as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 100


async def test_check_says_what_is_missing(table):
    name, postgres = table
    async with postgres.connect() as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'other-secret'")
    query = f"SELECT url FROM {name}"

    def said(dsn):
        with pytest.raises(ConfigError) as caught:
            source(postgres, query, dsn=dsn).check()
        assert "secret" not in str(caught.value)
        return str(caught.value)

    assert "password authentication failed" in said(postgres.dsn_of("postgres", password="secret-wrong"))
    assert 'database "nowhere" does not exist' in said(postgres.dsn_of("nowhere"))
    assert f"permission denied for table {name}" in said(postgres.dsn_of("postgres", name, "other-secret"))
    assert "can not be reached" in said("postgresql://u:secret@127.0.0.1:9/x")
    with pytest.raises(ValidationError, match="should be a URL such as postgresql"):
        source(postgres, query, dsn="http://u:secret@127.0.0.1/x")
    with pytest.raises(ValidationError, match="should be a URL such as postgresql"):
        source(postgres, query, dsn="postgresql://u:secret@127.0.0.1:port/x")
    assert "its dsn can not be used" in said("postgresql://u:secret@127.0.0.1/x?sslmode=secret")


async def test_a_query_that_takes_too_long_is_given_up(postgres):
    with pytest.raises(SourceError, match="statement timeout"):
        await jobs_of(postgres, "SELECT 'a' AS url, pg_sleep(60)", timeout=0.1)


async def test_a_lock_is_waited_for_and_given_up(table):
    name, postgres = table
    async with postgres.connect() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {name}")
        with pytest.raises(SourceError, match="lock timeout"):
            await jobs_of(postgres, f"SELECT * FROM {name}", lock_timeout=0.1)


async def test_a_value_that_python_does_not_have(postgres):
    query = "SELECT 'http://a.test/' AS url, '20000-01-01'::date AS day"
    with pytest.raises(SourceError, match="cast it to text"):
        await jobs_of(postgres, query)


async def test_a_reading_that_is_closed_leaves_no_connection(table):
    name, postgres = table
    async with aclosing(source(postgres, f"SELECT * FROM {name}").read(None)) as chunks:
        await anext(chunks)
    async with postgres.connect() as connection:
        for _ in range(200):
            left = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1", f"%{name}%")
            if not left:
                break
            await asyncio.sleep(0.01)
        assert left == 0


@pytest.mark.parametrize("order", [None, "id"])
async def test_a_server_that_is_restarted_in_the_middle(table, monkeypatch, order):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    monkeypatch.setattr(postgres_module, "_PAUSES", (0.01,) * 3)
    name, postgres = table
    jobs, position = [], None
    query = f"SELECT * FROM {name} ORDER BY id"

    async def read(restart):
        nonlocal position
        async for chunk in source(postgres, query, order=order).read(position):
            jobs.extend(chunk.jobs)
            position = chunk.position
            if restart and len(jobs) == 40:
                await asyncio.to_thread(postgres.stop)
                await asyncio.to_thread(postgres.start)

    if order is None:
        with pytest.raises(SourceError, match=r"lost the connection.*resume the batch"):
            await read(restart=True)
        await read(restart=False)
    else:
        await read(restart=True)
    assert [job.url for job in jobs] == [f"http://a.test/{n}" for n in range(1, 101)]


async def test_a_server_that_stays_away_is_given_up(table, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ROWS", 20)
    monkeypatch.setattr(postgres_module, "_PAUSES", (0.01,) * 3)
    name, postgres = table
    chunks = source(postgres, f"SELECT * FROM {name}", order="id").read(None)
    await anext(chunks)
    await asyncio.to_thread(postgres.stop)
    try:
        with pytest.raises(SourceError, match="lost the connection"):
            async for _ in chunks:
                pass
    finally:
        await asyncio.to_thread(postgres.start)


async def test_a_large_answer_is_not_held(postgres):
    query = "SELECT 'http://a.test/' || n || repeat('x', 1000) AS url FROM generate_series(1, 1000000) AS n"
    async with aclosing(source(postgres, query).read(None)) as chunks:
        first = await anext(chunks)
    assert len(first.jobs) == 500


@pytest.mark.parametrize("order", [None, "id"])
async def test_a_chunk_has_no_more_than_some_megabytes(postgres, order):
    query = """
        SELECT n AS id, 'http://a.test/' || n AS url,
               repeat('x', CASE WHEN n = 20 THEN 2000000 WHEN n > 20 THEN 100000 ELSE 0 END) AS x
        FROM generate_series(1, 600) AS n ORDER BY n
        """
    chunks = await chunks_of(postgres, query, order=order)
    jobs = [job for chunk in chunks for job in chunk.jobs]
    assert [job.id for job in jobs] == [str(n) for n in range(1, 601)]
    assert [(job.id, job.rejected.message) for job in jobs if job.rejected] == [("20", "longer than 1048576 bytes")]
    # The first that are long come with those before them; then fewer are asked for.
    sizes = [sum(len(job.meta["x"]) for job in chunk.jobs if job.meta) for chunk in chunks]
    assert sizes[0] < 32 * 100_000
    assert max(sizes[1:]) < 2_200_000
    assert len(chunks) >= 30


def test_without_the_driver_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    config = PostgresSourceConfig(dsn="postgresql://u:hush@127.0.0.1/x", query="SELECT 1 AS url")
    with pytest.raises(MissingExtraError, match=r"pip install 'asyncpg>="):
        config.build().check()
    assert "hush" not in repr(config)
    assert "hush" not in config.model_dump_json()


def test_the_errors_of_the_driver_are_told_apart():
    lost, refusals = postgres_module._lost(asyncpg), postgres_module._refusals(asyncpg)
    assert not issubclass(asyncpg.QueryCanceledError, lost)
    assert issubclass(asyncpg.InvalidPasswordError, refusals)
    assert issubclass(asyncpg.InsufficientPrivilegeError, refusals)
    assert issubclass(asyncpg.ConnectionDoesNotExistError, lost)


def test_a_failure_says_of_which_database_it_is_and_nothing_of_who_asks(postgres):
    dsn = postgres.dsn_of("no-such-one", password="secret")
    with pytest.raises(ConfigError) as refused:
        PostgresSourceConfig(dsn=dsn, query="SELECT 1 AS url").build().check()
    assert str(refused.value).startswith(f"postgresql://127.0.0.1:{postgres.port}/no-such-one: ")
    assert "secret" not in str(refused.value)
