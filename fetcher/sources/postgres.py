"""Jobs from a query to a PostgreSQL database, read by a cursor on the server, in a transaction that can not write.

The transaction lasts as long as the reading. If the connection is lost, a reading with ``order`` connects again and
goes on; one without can only be resumed.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AfterValidator

from fetcher.dsn import check_dsn, place_of
from fetcher.errors import ConfigError, SourceError
from fetcher.extras import load_extra
from fetcher.interfaces import Chunk
from fetcher.settings import Secret
from fetcher.sources import query as queries
from fetcher.sources.query import Answer, Position, QuerySettings, check_columns, position_of, quoted
from fetcher.sources.rows import CHUNK_BYTES
from fetcher.sources.threads import run_beside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

_CONNECTING = 10.0  # seconds
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before each try to connect again
_FIRST_ROWS = 32
_GRACE = 5.0  # seconds beyond the server's own timeouts, after which the connection is taken for dead
_AFTER = "fetcher_after"
# Types with one order, in which values that are equal are the same: with others, rows could be lost.
_ORDERED = frozenset({"int2", "int4", "int8", "oid", "numeric", "text", "varchar", "uuid"})
_ORDERED |= {"date", "timestamp", "timestamptz"}


class PostgresSourceConfig(QuerySettings):
    """A query to a PostgreSQL database (extra ``postgres``)."""

    extras: ClassVar[tuple[str, ...]] = ("postgres",)
    type: Literal["postgres"] = "postgres"
    """A query to a PostgreSQL database."""
    dsn: Annotated[Secret, AfterValidator(check_dsn)]
    """Where it is: `postgresql://user:password@host:5432/database?sslmode=require`, or `{env: DATABASE_URL}`, or
    `{file: ...}`."""

    @property
    def identity(self) -> str:
        """Which database this is, without credentials: a batch is only resumed with the same one."""
        return place_of(self.dsn.get_secret_value())

    def build(self) -> PostgresSource:
        """Return the source."""
        return PostgresSource(self)


class PostgresSource:
    """Yields the rows of a query."""

    def __init__(self, config: PostgresSourceConfig) -> None:
        self._config = config
        self._name = config.identity

    def check(self) -> None:
        """Raise ConfigError if the database can not be reached, or the query is not a SELECT that it may answer."""
        try:
            run_beside(self._check())
        except SourceError as error:
            raise ConfigError(str(error)) from error

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        lost = _lost(_driver())
        failures = 0
        while True:
            try:
                async with aclosing(self._rows(position)) as chunks:
                    async for chunk in chunks:
                        position, failures = chunk.position, 0
                        if chunk.jobs:
                            yield chunk
            except lost as error:
                if self._config.order is None or failures == len(_PAUSES):
                    raise SourceError(
                        f"{self._name}: lost the connection: {_reason(error)}; resume the batch"
                    ) from error
            else:
                return
            await asyncio.sleep(_PAUSES[failures])
            failures += 1

    async def _rows(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        config = self._config
        start = position_of(self._name, position)
        async with self._transaction() as connection:
            statement = await connection.prepare(*await self._asked(connection, start))
            names = [column.name for column in statement.get_attributes() if column.name != _AFTER]
            answer = Answer(self._name, names, config, start, json_text=False)
            values = [] if config.order is None or start.after is None else [start.after]
            cursor = await statement.cursor(*values)
            async with aclosing(_portions(cursor)) as portions:
                async for rows in portions:
                    if config.order is None:
                        taken = [answer.job(row) for row in rows]
                    else:
                        taken = [answer.job(row[:-1], row[-1]) for row in rows]
                    yield Chunk([job for job in taken if job is not None], answer.position)
            answer.end()

    async def _asked(self, connection: Any, start: Position) -> list[str]:
        """Return the query, by its order from a value on."""
        query, order = self._config.query, self._config.order
        if order is None:
            return [query]
        statement = await connection.prepare(_wrapped(query))
        types = {column.name: column.type.name for column in statement.get_attributes()}
        column = f"source.{quoted(order)}"
        rest = "" if start.after is None else f" WHERE {column} > ($1::text)::{types[order]}"
        every = f"SELECT source.*, {column}::text AS {_AFTER} FROM (\n{query}\n) AS source"  # noqa: S608  the config's
        return [f"{every}{rest} ORDER BY {column}"]

    async def _check(self) -> None:
        order = self._config.order
        driver = _driver()
        try:
            async with self._transaction() as connection:
                statement = await connection.prepare(f"{_wrapped(self._config.query)} LIMIT 0")
                types = {column.name: column.type.name for column in statement.get_attributes()}
                check_columns(self._name, [column.name for column in statement.get_attributes()], self._config)
                await statement.fetch()  # the server looks at rights when it begins, not when it parses
        except _lost(driver) as error:
            raise ConfigError(f"{self._name}: can not be reached: {_reason(error)}") from error
        if order is not None and types[order] not in _ORDERED:
            known = ", ".join(sorted(_ORDERED))
            raise ConfigError(
                f"{self._name}: order {order!r} is of type {types[order]}; it can be of {known}, by a cast"
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        """Connect, and begin a transaction with its timeouts. What the server refuses becomes SourceError."""
        driver, config = _driver(), self._config
        limit = config.timeout + config.lock_timeout + _GRACE
        unusable: tuple[type[Exception], ...] = (*_refusals(driver), ValueError)
        try:
            connection = await driver.connect(
                config.dsn.get_secret_value(), timeout=_CONNECTING, command_timeout=limit, statement_cache_size=0
            )
        except unusable as error:
            raise SourceError(f"{self._name}: {_refused(error)}") from error
        try:
            async with connection.transaction(readonly=True):
                await _prepare(connection, config)
                yield connection
        except _refusals(driver) as error:
            raise SourceError(f"{self._name}: the query failed: {_reason(error)}") from error
        except (OverflowError, ValueError) as error:
            why = f"the query has a value that can not be read: {_reason(error)}; cast it to text"
            raise SourceError(f"{self._name}: {why}") from error
        finally:
            # Nothing is left to be said to the server, which may be gone; what was begun ends with the connection.
            connection.terminate()


async def _prepare(connection: Any, config: PostgresSourceConfig) -> None:
    # By SET, since a pooler between here and there may refuse settings that come with the connection.
    await connection.execute(
        f"SET LOCAL statement_timeout = {_milliseconds(config.timeout)}; "
        f"SET LOCAL lock_timeout = {_milliseconds(config.lock_timeout)}; "
        "SET LOCAL idle_in_transaction_session_timeout = 0"  # the queue may be full for long
    )
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=str, decoder=msgspec.json.decode, format="text"
        )


async def _portions(cursor: Any) -> AsyncGenerator[list[tuple[Any, ...]], None]:
    """Yield the rows of a query, so many at a time, or so many bytes of them.

    The server does not say how long the next row is: how many are asked for follows from those before.
    """
    rows: list[tuple[Any, ...]] = []
    size = 0
    wanted = _FIRST_ROWS
    while records := await cursor.fetch(min(wanted, queries.CHUNK_ROWS - len(rows))):
        more = [tuple(record) for record in records]
        added = sum(map(queries.size_of, more))
        wanted = max(1, min(2 * wanted, CHUNK_BYTES * len(more) // max(1, added)))
        rows, size = rows + more, size + added
        if len(rows) >= queries.CHUNK_ROWS or size >= CHUNK_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _wrapped(query: str) -> str:
    # As a part of another query, nothing but a SELECT can be parsed.
    return f"SELECT * FROM (\n{query}\n) AS source"  # noqa: S608  the query is the config's


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _driver() -> Any:
    return load_extra("asyncpg", "postgres", "the source postgres")


def _lost(driver: Any) -> tuple[type[Exception], ...]:
    """Return what a connection ends with that another one may not meet."""
    return (
        *(OSError, TimeoutError, driver.PostgresConnectionError, driver.InterfaceError),
        *(driver.AdminShutdownError, driver.CrashShutdownError, driver.CannotConnectNowError),
        *(driver.IdleInTransactionSessionTimeoutError, driver.TooManyConnectionsError),
    )


def _refusals(driver: Any) -> tuple[type[Exception], ...]:
    """Return what a server says that it would say again."""
    return (
        *(driver.SyntaxOrAccessError, driver.InvalidAuthorizationSpecificationError, driver.InvalidCatalogNameError),
        *(driver.QueryCanceledError, driver.LockNotAvailableError, driver.DataError),
        *(driver.ReadOnlySQLTransactionError, driver.FeatureNotSupportedError, driver.ClientConfigurationError),
    )


def _refused(error: Exception) -> str:
    if isinstance(error, ValueError):
        # Not its own words, which may quote the password.
        return "its dsn can not be used; it is written postgresql://user:password@host:5432/database"
    return f"the server refuses the connection: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:300]
