"""The sink ``postgres`` against a real server: what it creates, refuses, stores and survives."""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import UTC, datetime

import arbitrary
import pytest
import rows
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from fetcher.errors import ConfigError, ErrorKind, SinkError, StateError
from fetcher.model import Outcome, Result
from fetcher.sinks.columns import COLUMNS
from fetcher.sinks.postgres import PostgresSinkConfig
from fetcher.sinks.postgres_table import TYPES


@pytest.fixture
async def schema(postgres):
    """Name a schema that is not there, and drop it afterwards."""
    name = f"t{uuid.uuid4().hex}"
    yield name
    async with postgres.connect() as connection:
        await connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def role(postgres):
    """Create a user without rights, and drop it afterwards."""
    name = f"u{uuid.uuid4().hex}"
    async with postgres.connect() as connection:
        await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pass-of-role'")
        yield name
        await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


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


async def begun(sink, mark=None):
    await sink.check(mark, resume=mark is not None)
    return await sink.open(mark)


def result(number, **fields):
    base = {"batch": "b", "url": f"http://a.test/{number}", "outcome": Outcome.OK, "attempts": 1}
    return Result(job_id=f"0:{number}", **(base | fields))


async def refused(sink, error=ConfigError, mark=None, *, resume=False):
    with pytest.raises(error) as caught:
        await sink.check(mark, resume=resume)
    for secret in ("secret", "pass-of-role"):
        assert secret not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def execute(postgres):
    async def execute(sql, *values):
        async with postgres.connect() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *values)]

    return execute


# What it writes


async def test_schema_and_table_are_created_with_types_that_can_be_queried(sink, schema, execute):
    one = sink()
    await begun(one)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    fields = {
        "status": 200,
        "truncated": True,
        "started_at": moment,
        "body": b"\0\xff",
        "error_kind": ErrorKind.INTERNAL,
    }
    await one.write([result(1, headers=[("A", "b")], meta={"n": 7}, content_length=2**70, **fields)])
    columns = "status, truncated, started_at, body, meta->'n', headers->0->>1, error_kind, content_length"
    found = await execute(f"SELECT {columns} FROM {schema}.results")
    assert found == [(200, True, moment, b"\0\xff", "7", "b", "internal", None)]


async def test_a_record_that_comes_again_takes_the_place_of_the_earlier_one(sink, schema, execute):
    one = sink()
    await begun(one)
    await one.write([result(1, status=500, meta={"a": 1}), result(2)])
    await one.write([result(1, status=503), result(1, status=200), result(1, batch="other", status=404)])
    found = await execute(f"SELECT batch, job_id, status, meta FROM {schema}.results ORDER BY batch, job_id")
    assert found == [("b", "0:1", 200, None), ("b", "0:2", None, None), ("other", "0:1", 404, None)]


async def test_what_text_can_not_hold_is_replaced(sink, schema, execute):
    one = sink()
    await begun(one)
    meta = {"a\0": ["b\0", "\\u0000", "\\\0"], "\udcff": 1}
    await one.write([result(1, error_message="a\0b\udcffc", meta=meta, body=b"\0")])
    found = await execute(f"SELECT error_message, meta->'a\ufffd'->>0, meta->'?', body FROM {schema}.results")
    assert found == [("a\ufffdb?c", "b\ufffd", "1", b"\0")]
    assert await execute(f"SELECT meta->'a\ufffd'->>1, meta->'a\ufffd'->>2 FROM {schema}.results") == [
        ("\\u0000", "\\\ufffd")
    ]


def as_floats(value):
    if isinstance(value, dict):
        return {name: as_floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=arbitrary.results())
async def test_any_record_is_stored_as_it_is(postgres, found):
    one = PostgresSinkConfig.model_validate({"dsn": postgres.dsn, "schema": "any_record"}).build()
    await one.open(None)
    try:
        await one.write(found)
    finally:
        await one.close()
    async with postgres.connect() as connection:
        table = await connection.fetch("DELETE FROM any_record.results RETURNING *")
    table.sort(key=lambda row: row["job_id"])
    assert len(table) == len(found)
    for given_result, record in zip(found, table, strict=True):
        row = rows.stored(dict(record))
        del row["run"]
        # A number in jsonb is one of decimal digits, whether it was written as an integer or not.
        assert as_floats(row) == as_floats(rows.expected(given_result, lambda text: text.replace("\0", "\ufffd")))


async def test_an_earlier_run_is_deleted_and_nothing_of_others(sink, schema, execute):
    one = sink()
    mark = await begun(one)
    await one.write([result(1), result(2)])
    two = sink()
    await begun(two)
    await two.write([result(2), result(9)])
    again = sink()
    await again.check(mark, resume=False)
    await again.discard(mark)
    assert await execute(f"SELECT job_id FROM {schema}.results ORDER BY 1") == [("0:2",), ("0:9",)]


async def test_runs_that_create_the_same_table_at_once_do_not_fail(sink, schema, execute):
    sinks = [sink() for _ in range(6)]
    await asyncio.gather(*(begun(one) for one in sinks))
    await asyncio.gather(*(one.write([result(n)]) for n, one in enumerate(sinks)))
    assert await execute(f"SELECT count(*) FROM {schema}.results") == [(6,)]


async def test_a_check_changes_nothing(sink, schema, execute):
    await sink().check(None, resume=False)
    assert await execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema) == []


async def test_columns_that_a_later_version_has_are_added(sink, schema, execute):
    first = sink()
    mark = await begun(first)
    await first.write([result(1)])
    await execute(f"ALTER TABLE {schema}.results DROP COLUMN sha256, DROP COLUMN meta")
    message = await refused(sink(create=False))
    assert message.startswith(
        f"postgresql://127.0.0.1:{first._place.split(':')[2].split('/')[0]}/postgres/{schema}.results: column"
    )
    again = sink()
    await begun(again, mark)
    await again.write([result(2, sha256="x", meta={"a": 1})])
    assert await execute(f"SELECT job_id, sha256 FROM {schema}.results ORDER BY 1") == [("0:1", None), ("0:2", "x")]


async def test_a_table_that_somebody_else_created_will_do(sink, schema, role, postgres, execute):
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results ADD COLUMN seen timestamptz DEFAULT now()")
    await execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    await execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.results TO {role}")
    other = sink(dsn=postgres.dsn_of("postgres", role, "pass-of-role"), create=False)
    mark = await begun(other)
    await other.write([result(1)])
    await other.check(mark, resume=False)
    await other.discard(mark)
    assert await execute(f"SELECT count(*) FROM {schema}.results") == [(0,)]


# What it refuses


async def test_a_wrong_password_is_refused_before_anything_is_fetched(sink, postgres):
    message = await refused(sink(dsn=postgres.dsn_of("postgres", password="wrong-one")))
    assert message.endswith(
        'password authentication failed for user "fetcher"; check user, password and database of the dsn'
    )
    assert "wrong-one" not in message
    assert 'database "nope" does not exist' in await refused(sink(dsn=postgres.dsn_of("nope")))


async def test_missing_rights_are_refused(sink, schema, role, postgres, execute):
    dsn = postgres.dsn_of("postgres", role, "pass-of-role")
    assert f"no right to create the schema {schema}" in await refused(sink(dsn=dsn))
    await execute(f"CREATE SCHEMA {schema}")
    assert f"permission denied for schema {schema}; grant this user" in await refused(sink(dsn=dsn))
    await execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    assert f"no right to create the table results in the schema {schema}" in await refused(sink(dsn=dsn))
    await begun(sink())
    for right in ("SELECT", "INSERT"):
        await execute(f"GRANT {right} ON {schema}.results TO {role}")
        message = await refused(sink(dsn=dsn))
        assert message.endswith(
            "permission denied for table results; "
            "grant this user SELECT, INSERT, UPDATE and DELETE on the table, and USAGE on its schema"
        )
    await execute(f"GRANT UPDATE ON {schema}.results TO {role}")
    ready = sink(dsn=dsn)
    mark = await begun(ready)
    assert "permission denied" in await refused(sink(dsn=dsn), mark=mark)  # to delete what the run wrote


async def test_a_table_that_is_not_there_or_not_as_it_has_to_be_is_refused(sink, schema, execute):
    message = await refused(sink(create=False))
    assert message.endswith(f"/{schema}.results: there is no such table; create it, or set 'create: true'")
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results ALTER COLUMN status TYPE jsonb USING NULL")
    assert 'column "status" is of type jsonb' in await refused(sink())
    await execute(f"DROP TABLE {schema}.results")
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results DROP CONSTRAINT results_pkey")
    assert (await refused(sink())).endswith("the table needs a primary key or unique constraint on (batch, job_id)")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("a int", "has no column batch"),
        (
            "batch text, job_id text, url text, outcome text, attempts bigint, UNIQUE (batch, job_id)",
            "has no column run",
        ),
        (
            "batch text, job_id text, url text, outcome text, attempts bigint, run text, UNIQUE (job_id)",
            "has no primary key or unique constraint on (batch, job_id)",
        ),
    ],
)
async def test_a_table_of_somebody_else_is_refused_and_not_altered(sink, schema, execute, columns, reason):
    await execute(f"CREATE SCHEMA {schema}")
    await execute(f"CREATE TABLE {schema}.mine ({columns})")
    shape = f"SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = '{schema}' ORDER BY 1"
    before = await execute(shape)
    one = sink(table="mine")
    message = await refused(one)
    assert message.endswith(f"/{schema}.mine: this table was not made by fetcher, as it {reason}; name another")
    with pytest.raises(ConfigError, match="was not made by fetcher"):
        await one.open(None)
    assert await execute(shape) == before


async def test_a_table_that_will_not_do_once_its_columns_are_added_stays_as_it_was(sink, schema, execute):
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results DROP COLUMN sha256, ALTER COLUMN status TYPE jsonb USING NULL")
    one = sink()
    await one.check(None, resume=False)
    with pytest.raises(ConfigError, match='column "status" is of type jsonb'):
        await one.open(None)
    there = "SELECT count(*) FROM information_schema.columns WHERE table_schema = $1 AND column_name = 'sha256'"
    assert await execute(there, schema) == [(0,)]


async def test_a_column_that_has_to_have_a_value_is_found_before_anything_is_fetched(sink, schema, execute):
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results ADD COLUMN owner text NOT NULL")
    message = await refused(sink())
    assert 'null value in column "owner"' in message
    assert message.endswith("has to have a value; give it a default, or name another")
    assert "Failing row" not in message
    await execute(f"ALTER TABLE {schema}.results ALTER COLUMN owner SET DEFAULT 'me'")
    await begun(sink())
    assert await execute(f"SELECT count(*) FROM {schema}.results") == [(0,)]


async def test_a_policy_about_rows_is_found_before_anything_is_fetched(sink, schema, role, postgres, execute):
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results ENABLE ROW LEVEL SECURITY")
    await execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    await execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.results TO {role}")
    dsn = postgres.dsn_of("postgres", role, "pass-of-role")
    assert "new row violates row-level security policy" in await refused(sink(dsn=dsn, create=False))
    await execute(f"CREATE POLICY mine ON {schema}.results USING (true)")
    await begun(sink(dsn=dsn, create=False))


async def test_a_check_that_the_row_of_a_check_does_not_fulfil_is_no_reason_to_refuse(sink, schema, execute):
    await begun(sink())
    await execute(f"ALTER TABLE {schema}.results ADD CHECK (url LIKE 'http://a.test/%')")
    one = sink()
    await begun(one)
    await one.write([result(1)])
    with pytest.raises(SinkError, match="violates check constraint") as caught:
        await one.write([result(2, url="http://private.test/")])
    assert "private" not in str(caught.value)


async def test_a_server_that_takes_no_writes_is_refused(sink, role, postgres, execute):
    await execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    assert "takes no writes" in await refused(sink(dsn=postgres.dsn_of("postgres", role, "pass-of-role")))


async def test_a_server_that_is_away_is_no_config_error_when_a_run_goes_on(sink, schema):
    away = sink(dsn="postgresql://user:secret@127.0.0.1:1/x")
    for resume, code in ((False, 78), (True, 75)):
        with pytest.raises(SinkError) as caught:
            await away.check(None, resume=resume)
        assert caught.value.retryable
        assert caught.value.exit_code == code
        assert str(caught.value).startswith(f"postgresql://127.0.0.1:1/x/{schema}.results: can not be reached: ")
        assert "secret" not in str(caught.value)


async def test_a_run_does_not_go_on_with_another_table(sink, schema, execute):
    one = sink()
    mark = await begun(one)
    await one.write([result(1)])
    await execute(f"DROP TABLE {schema}.results")
    assert "put it back, or start over with --fresh" in await refused(sink(), StateError, mark, resume=True)
    await begun(sink())
    await refused(sink(), StateError, mark, resume=True)
    with pytest.raises(StateError):
        await sink().open(mark)
    await refused(sink(), StateError, '{"offset": 1}')
    again = sink()
    await again.check(mark, resume=False)
    await again.discard(mark)


@pytest.mark.parametrize("dsn", ["host=x password=hidden", "mysql://a:hidden@b/c", "postgresql://a:hidden#@b:x/c"])
def test_a_dsn_that_can_not_be_read_is_refused_without_showing_it(dsn):
    with pytest.raises(ValidationError) as caught:
        PostgresSinkConfig.model_validate({"dsn": dsn})
    assert "hidden" not in caught.value.errors()[0]["msg"]
    assert "should be a URL such as postgresql://" in caught.value.errors()[0]["msg"]


def test_what_a_config_shows_of_itself_has_no_credentials():
    config = PostgresSinkConfig.model_validate(
        {"dsn": "postgresql://me:hidden@db:5433/x?sslmode=require", "table": "T"}
    )
    assert config.path == "postgresql://db:5433/x/public.T"
    assert "hidden" not in repr(config) + str(config.model_dump(mode="json"))


# What it survives


async def test_a_failure_for_good_says_what_to_do(sink, execute, schema):
    one = sink()
    await begun(one)
    await execute(f"DROP TABLE {schema}.results")
    with pytest.raises(SinkError) as caught:
        await one.write([result(1)])
    assert not caught.value.retryable
    assert caught.value.exit_code == 1
    assert "does not exist; the table is not as it has to be; name another, and" in str(caught.value)


async def test_a_driver_that_is_not_installed_is_named(sink, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert (await refused(sink())).partition("install it with: ")[2].startswith("pip install 'asyncpg>=")


async def test_a_value_that_the_driver_can_not_send_is_a_failure_for_good(sink):
    one = sink()
    await begun(one)
    with pytest.raises(SinkError) as caught:
        await one.write([result(1, attempts="many")])
    assert not caught.value.retryable


def test_every_column_has_a_type():
    assert {column.kind for column in COLUMNS} <= set(TYPES)
