"""F81, F85, F90, F93, F105: databases that are locked, damaged, full or away, and what a name or value might do."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from contextlib import closing

import pytest
from pydantic import TypeAdapter, ValidationError

from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.model import Outcome, Result
from fetcher.sinks.columns import Identifier, quoted
from fetcher.sinks.postgres import PostgresSinkConfig
from fetcher.sinks.sqlite import SqliteSink


def result(number, **fields):
    base = {"batch": "b", "url": f"http://a.test/{number}", "outcome": Outcome.OK, "attempts": 1}
    return Result(job_id=f"0:{number}", **(base | fields))


async def refused(sink, error, mark=None, *, resume=False):
    with pytest.raises(error) as caught:
        await sink.check(mark, resume=resume)
    await sink.close()
    return str(caught.value)


# SQLite


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "pages.db"


@pytest.fixture
async def begun(path):
    """Check and open a sink; those of earlier calls are closed first."""
    opened = []

    async def begin(mark=None, *, table="results", resume=False):
        while opened:
            await opened.pop().close()
        sink = SqliteSink(path, table, busy=0.1)
        opened.append(sink)
        await sink.check(mark, resume=resume)
        return sink, await sink.open(mark)

    yield begin
    for sink in opened:
        await sink.close()


def query(path, sql, *values):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


async def test_f81_what_was_written_and_not_acknowledged_is_replaced_when_it_comes_again(begun, path):
    sink, mark = await begun()
    await sink.write([result(1), result(2, status=500)])
    sink, _ = await begun(mark, resume=True)
    await sink.write([result(2, status=200)])
    assert query(path, "SELECT job_id, status FROM results ORDER BY 1") == [("0:1", None), ("0:2", 200)]


@pytest.mark.parametrize("content", [b"short", b"x" * 5000])
async def test_f85_a_file_that_is_no_database_is_not_touched(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    message = await refused(SqliteSink(path), ConfigError)
    assert message == f"{path}: is not an SQLite database; choose another path"
    assert path.read_bytes() == content


async def test_f85_a_damaged_database_is_refused_and_not_touched(begun, path):
    sink, _ = await begun()
    await sink.write([result(n) for n in range(100)])
    await sink.close()
    content = bytearray(path.read_bytes())
    content[100:140] = b"\xff" * 40
    path.write_bytes(content)
    message = await refused(SqliteSink(path), StateError)
    assert message.startswith(f"{path}: is damaged")
    assert path.read_bytes() == content


async def test_f85_a_table_of_a_newer_version_is_refused(begun, path):
    sink, mark = await begun()
    await sink.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE fetcher_tables SET version = 99")
    for resume in (True, False):
        message = await refused(SqliteSink(path), StateError, mark, resume=resume)
        assert "was written by a newer version of fetcher" in message


async def test_f85_a_locked_file_is_busy_at_the_start_and_waited_for_later(begun, path):
    sink, mark = await begun()
    await sink.write([result(1)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        message = await refused(SqliteSink(path, busy=0.1), StateBusyError, mark, resume=True)
        assert message.startswith(f"{path}: is locked by another process")
        with pytest.raises(SinkError) as failure:
            await sink.write([result(2)])
        assert failure.value.retryable
        assert failure.value.exit_code == 75
        other.execute("ROLLBACK")
    await sink.write([result(2)])
    assert query(path, "SELECT count(*) FROM results") == [(2,)]


async def test_f90_a_full_disk_is_worth_waiting_for_and_nothing_is_half_written(begun, path):
    sink, _ = await begun()
    await sink.write([result(1)])
    pages = sink._db.execute("PRAGMA page_count").fetchone()[0]
    sink._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SinkError, match="no space left") as failure:
        await sink.write([result(n, body=b"x" * 5000) for n in range(2, 50)])
    assert failure.value.retryable
    sink._db.execute("PRAGMA max_page_count = 1000000")
    assert query(path, "SELECT count(*) FROM results") == [(1,)]
    await sink.write([result(n, body=b"x" * 5000) for n in range(2, 50)])
    assert query(path, "SELECT count(*) FROM results") == [(49,)]


async def test_f105_values_are_parameters_and_a_table_may_be_named_by_a_word_of_sql(begun, path):
    sink, _ = await begun(table="Select")
    hostile = '\'); DROP TABLE "Select"; --'
    await sink.write([result(1, error_message=hostile, meta={hostile: hostile}, headers=[(hostile, hostile)])])
    assert query(path, 'SELECT error_message, meta FROM "Select"') == [
        (hostile, json.dumps({hostile: hostile}, separators=(",", ":")))
    ]


# PostgreSQL


@pytest.fixture
async def schema(postgres):
    """Name a schema that is not there, and drop it afterwards."""
    name = f"t{uuid.uuid4().hex}"
    yield name
    async with postgres.connect() as connection:
        await connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def sink(postgres, schema):
    """Make sinks for the schema, and close them afterwards."""
    made = []

    def sink(**fields):
        given = {"dsn": postgres.dsn, "schema": schema, "statement_timeout": 10, "connect_timeout": 5}
        made.append(PostgresSinkConfig.model_validate(given | fields).build())
        return made[-1]

    yield sink
    for one in made:
        await one.close()


async def connected(sink, mark=None):
    await sink.check(mark, resume=mark is not None)
    return await sink.open(mark)


@pytest.fixture
def execute(postgres):
    async def execute(sql, *values):
        async with postgres.connect() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *values)]

    return execute


@pytest.mark.parametrize("name", ['a"b', "a;b", "a.b", "1a", "pg_x", ""])
@pytest.mark.parametrize("field", ["table", "schema"])
def test_f105_an_identifier_that_is_no_plain_name_is_refused(field, name):
    with pytest.raises(ValidationError):
        PostgresSinkConfig.model_validate({"dsn": "postgresql://h/x", field: name})


async def test_f105_values_are_parameters_and_names_are_quoted(sink, schema, execute):
    one = sink(table="Select")
    await connected(one)
    hostile = '\'); DROP TABLE "Select"; -- $1 %s {}'
    await one.write([result(1, error_message=hostile, meta={hostile: hostile}, headers=[(hostile, hostile)])])
    assert await execute(f'SELECT error_message, headers->0->>0 FROM {schema}."Select"') == [(hostile, hostile)]


async def test_f93_a_connection_that_the_server_ends_is_made_anew(sink, schema, postgres, execute):
    one = sink()
    await connected(one)
    await one.write([result(1)])
    async with postgres.connect() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {schema}.results")
        call = asyncio.ensure_future(one.write([result(2)]))
        waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'"
        while not await connection.fetch(f"SELECT 1 {waiting}"):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
        await execute(f"SELECT pg_terminate_backend(pid) {waiting}")
        with pytest.raises(SinkError) as caught:
            await call
    assert caught.value.retryable
    await one.write([result(2)])
    assert await execute(f"SELECT job_id FROM {schema}.results ORDER BY 1") == [("0:1",), ("0:2",)]


async def test_f93_a_statement_that_takes_too_long_is_tried_again(sink, schema, postgres, execute):
    one = sink(statement_timeout=0.2)
    await connected(one)
    async with postgres.connect() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {schema}.results")
        with pytest.raises(SinkError, match="statement timeout") as caught:
            await one.write([result(1)])
        assert caught.value.retryable
    await one.write([result(1)])
    assert await execute(f"SELECT count(*) FROM {schema}.results") == [(1,)]


# Names


@pytest.mark.parametrize(
    "name",
    ["", "1a", "a b", 'a"b', "a;b", "a.b", "ä", "a'", "a" * 51, "sqlite_a", "PG_catalog", "fetcher_runs", "a\n", "a-b"],
)
def test_f105_an_identifier_is_a_plain_name(name):
    with pytest.raises(ValidationError):
        TypeAdapter(Identifier).validate_python(name)


@pytest.mark.parametrize("name", ["results", "_a", "Select", "a1", "a" * 50])
def test_f105_a_plain_name_is_quoted_and_so_may_be_a_word_of_sql(name):
    assert TypeAdapter(Identifier).validate_python(name) == name
    assert quoted(name) == f'"{name}"'


def test_f105_a_quote_in_a_name_ends_nothing():
    assert quoted('a"; DROP TABLE x; --') == '"a""; DROP TABLE x; --"'
