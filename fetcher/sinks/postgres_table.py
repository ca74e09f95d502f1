"""The table of the sink ``postgres``: is it there, is it ours, may it be written to, and how it is made.

A table is ours if it has what every record has and is unique by (batch, job_id); then it is given the columns that a
later version of fetcher has. One of somebody else is never changed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fetcher.errors import ConfigError
from fetcher.sinks.columns import COLUMNS, KEY, RUN, Kind, quoted, upsert_tail

if TYPE_CHECKING:
    import asyncpg

TYPES: dict[Kind, str] = {
    "text": "text",
    "integer": "bigint",
    "real": "double precision",
    "boolean": "boolean",
    "blob": "bytea",
    "time": "timestamptz",
    "json": "jsonb",
}
_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_PROBES: dict[Kind, Any] = {
    "text": "fetcher-check",
    "integer": 200,
    "real": 0.0,
    "boolean": False,
    "blob": b"",
    "time": _NO_TIME,
    "json": "{}",
}
_ABOUT_ALL_ROWS = frozenset({"23502", "42501"})  # a column without a value, no right
_MARKING = (*(column.name for column in COLUMNS if column.required), RUN)
_UNIQUE_BY_KEY = """
    SELECT count(*) FROM pg_index i
    WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
           WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])) = $2::text[]
"""


class Table:
    """A table by its schema and name, and the statements for it. ``place`` is what it is called in messages."""

    def __init__(self, schema: str, name: str, place: str, *, create: bool) -> None:
        self._schema, self._table = schema, name
        self._place = place
        self._may_create = create
        self._name = f"{quoted(schema)}.{quoted(name)}"
        self.upsert = _upsert(self._name)
        self.delete = f"DELETE FROM {self._name} WHERE {quoted(RUN)} = $1"  # noqa: S608  quoted

    async def found(self, connection: asyncpg.Connection) -> int | None:
        """Return the number of the table, None if there is none."""
        number: int | None = await connection.fetchval("SELECT to_regclass($1)::oid::bigint", self._name)
        return number

    async def check(self, connection: asyncpg.Connection, *, deletes: bool) -> None:
        """Have the statements planned, or see whether the table may be created. Raises ConfigError, changes nothing."""
        if await self.found(connection) is None:
            await self._check_creation(connection)
        elif not (self._may_create and await self._lacking(connection)):
            await self._plan(connection, deletes=deletes)

    async def create(self, connection: asyncpg.Connection) -> None:
        """Create what is not there, if it may, all of it or nothing."""
        if not self._may_create:
            return
        if await self.found(connection) is not None and not await self._lacking(connection):
            return
        async with connection.transaction():
            # IF NOT EXISTS is no help against another run that creates the same at this moment.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", self._name)
            if not await self._has_schema(connection):
                await connection.execute(f"CREATE SCHEMA {quoted(self._schema)}")
            if await self.found(connection) is None:
                await connection.execute(_table(self._name))
            for name in await self._lacking(connection):
                definition = next((_definition(column) for column in COLUMNS if column.name == name), _RUN_COLUMN)
                await connection.execute(f"ALTER TABLE {self._name} ADD COLUMN {definition}")
            await self._plan(connection, deletes=False)

    async def _has_schema(self, connection: asyncpg.Connection) -> bool:
        # Not to_regnamespace, which may remember that there was none before the lock was waited for.
        return bool(await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", self._schema))

    async def _lacking(self, connection: asyncpg.Connection) -> list[str]:
        """Return the columns that the table is to be given. Raises ConfigError if it is somebody else's."""
        rows = await connection.fetch(
            "SELECT attname::text FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
            self._name,
        )
        there = {row[0] for row in rows}
        lacking = [name for name in (*(column.name for column in COLUMNS), RUN) if name not in there]
        if lacking:
            await self._refuse_others(connection, [name for name in _MARKING if name in lacking])
        return lacking

    async def _refuse_others(self, connection: asyncpg.Connection, lacking: list[str]) -> None:
        reason = f"has no column {lacking[0]}" if lacking else ""
        if not reason and not await connection.fetchval(_UNIQUE_BY_KEY, self._name, sorted(KEY)):
            reason = f"has no primary key or unique constraint on ({', '.join(KEY)})"
        if reason:
            raise ConfigError(f"{self._place}: this table was not made by fetcher, as it {reason}; name another")

    async def _plan(self, connection: asyncpg.Connection, *, deletes: bool) -> None:
        """Have the statements planned, which proves the columns, their types, the key and the rights."""
        nothing: list[list[Any]] = [[] for _ in COLUMNS]
        await connection.execute(f"EXPLAIN {self.upsert}", *nothing, "")
        if deletes:
            await connection.execute(f"EXPLAIN {self.delete}", "")
        await self._probe(connection)

    async def _probe(self, connection: asyncpg.Connection) -> None:
        """Write a row and take it back: no plan shows a column that has to have a value, or a policy about rows.

        What else a row may be refused for, such as a check, can be about the values of this one.
        """
        values = [[_PROBES[column.kind] if column.name != "outcome" else "ok"] for column in COLUMNS]
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(self.upsert, *values, "")
        except Exception as error:
            if getattr(error, "sqlstate", None) in _ABOUT_ALL_ROWS:
                raise
        finally:
            await transaction.rollback()

    async def _check_creation(self, connection: asyncpg.Connection) -> None:
        if not self._may_create:
            raise ConfigError(f"{self._place}: there is no such table; create it, or set 'create: true'")
        there = await self._has_schema(connection)
        may = await connection.fetchval(
            "SELECT has_schema_privilege($1::text, 'CREATE')"
            if there
            else "SELECT has_database_privilege(current_database(), 'CREATE') AND $1::text <> ''",
            self._schema,
        )
        if not may:
            what = f"table {self._table} in the schema" if there else "schema"
            raise ConfigError(
                f"{self._place}: this user has no right to create the {what} {self._schema}; "
                "grant it, or have somebody else create it"
            )


def _definition(column: Any) -> str:
    return f"{quoted(column.name)} {TYPES[column.kind]}{' NOT NULL' if column.name in KEY else ''}"


_RUN_COLUMN = f"{quoted(RUN)} text"


def _table(name: str) -> str:
    columns = ", ".join([*map(_definition, COLUMNS), _RUN_COLUMN])
    return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(KEY)}))"


def _upsert(name: str) -> str:
    names = ", ".join(quoted(column) for column in [*(column.name for column in COLUMNS), RUN])
    arrays = ", ".join(f"${index}::{TYPES[column.kind]}[]" for index, column in enumerate(COLUMNS, 1))
    rows = f"SELECT *, ${len(COLUMNS) + 1}::text FROM unnest({arrays})"  # noqa: S608  no name in it
    return f"INSERT INTO {name} ({names}) {rows} {upsert_tail()}"
