"""A table in a PostgreSQL database. Needs the extra ``postgres`` (asyncpg).

A row is a record, by (batch, job_id); see ``fetcher.sinks.columns`` for the columns. A record that comes again takes
the place of the earlier one, so nothing has to be cut back after a crash, nor after half of a batch has failed. A
statement takes up to 1,000 rows as arrays of columns, and is committed when it has ended.

PostgreSQL has no text with a NUL: it becomes U+FFFD, in JSON too, and a lone surrogate becomes a question mark. Bodies
are ``bytea`` and stay as they are.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AfterValidator, Field

from fetcher.dsn import check_dsn, place_of
from fetcher.errors import ConfigError, FetcherError, SinkError, StateError
from fetcher.extras import load_extra
from fetcher.fields import in_utc
from fetcher.settings import Duration, Secret
from fetcher.sink_settings import SinkSettings
from fetcher.sinks.columns import (
    KEY,
    Identifier,
    Kind,
    integer,
    json_text,
    latest,
    mapped,
    transposed,
    writable,
)
from fetcher.sinks.postgres_table import Table
from fetcher.sinks.remote import away, new_run, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import asyncpg

    from fetcher.model import Result

_NUL = "\ufffd"
_PORT = 5432
_ROWS = 1000  # of a statement: the event loop waits while they are encoded
_GRACE = 5.0  # seconds that a statement has beyond its own limit: then nobody answers any more
_LONG = 86_400.0  # seconds for what may take as long as it takes
# SQLSTATE: connection, rollback of a deadlock, out of resources, shutting down, input or output; a lock that is not
# available, and a server that only reads since it is the standby.
_CLASSES_THAT_PASS = frozenset({"08", "40", "53", "57", "58"})
_STATES_THAT_PASS = frozenset({"55P03", "25006"})
_BAD_LOGIN = frozenset({"28000", "28P01", "3D000"})
_NO_RIGHTS = "42501"
_NO_VALUE = "23502"


class PostgresSinkConfig(SinkSettings):
    """Records as rows of a table in a PostgreSQL database."""

    extras: ClassVar[tuple[str, ...]] = ("postgres",)
    type: Literal["postgres"] = "postgres"
    dsn: Annotated[Secret, AfterValidator(check_dsn)]
    """Where the database is: ``postgresql://user:password@host:5432/database``, with ``?sslmode=verify-full`` and other
    parameters of libpq. Better kept elsewhere: ``{env: NAME}`` or ``{file: path}``."""
    table: Identifier = "results"
    schema_name: Identifier = Field(default="public", alias="schema")
    create: bool = True
    """Create the schema, the table and columns that it lacks. Without it they have to be there."""
    statement_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long the server may take for one batch; then it is tried again."""
    connect_timeout: Annotated[Duration, Field(gt=0)] = 10.0

    @property
    def path(self) -> str:
        """Which table this is, without credentials: a batch is only resumed with the same one."""
        return f"{place_of(self.dsn.get_secret_value())}/{self.schema_name}.{self.table}"

    def build(self) -> PostgresSink:
        """Return the sink, not yet connected."""
        return PostgresSink(self)


class PostgresMark(msgspec.Struct):
    """Which run's rows they are, and in which table, by its number in the database."""

    run: str
    table: int


class PostgresSink:
    """Writes on one connection, which is made anew after it was lost."""

    def __init__(self, config: PostgresSinkConfig) -> None:
        self._config = config
        self._place = config.path
        self._table = Table(config.schema_name, config.table, config.path, create=config.create)
        self._connection: asyncpg.Connection | None = None
        self._mark = PostgresMark("", 0)

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Refuse what can not be logged in to or written to; plan the very statement that will be used.

        Raises a retryable SinkError if the server is away, with the exit code of a ConfigError before a first run.
        """
        decoded = self._decoded(mark)
        with self._refusing(resume=resume):
            await self._check(await self._connected(), decoded, resume=resume)

    async def discard(self, mark: str) -> None:
        """Delete the rows of an earlier run that no other has replaced since."""
        decoded = self._decoded(mark)
        with self._refusing(resume=False):
            connection = await self._connected()
            if decoded is not None and await self._table.found(connection) is not None:
                async with connection.transaction():
                    await connection.execute("SET LOCAL statement_timeout = 0")
                    await connection.execute(self._table.delete, decoded.run, timeout=_LONG)

    async def open(self, mark: str | None) -> str:
        """Create what is not there, if it may, and begin a run or go on with that of ``mark``."""
        decoded = self._decoded(mark)
        with self._refusing(resume=mark is not None):
            connection = await self._connected()
            await self._table.create(connection)
            table = await self._table.found(connection)
        if table is None or (decoded is not None and decoded.table != table):
            raise self._gone()
        self._mark = decoded or PostgresMark(new_run(), table)
        return msgspec.json.encode(self._mark).decode()

    async def write(self, results: Sequence[Result]) -> str:
        """Insert or replace rows, on a new connection if the last one was lost."""
        try:
            connection = await self._connected()
            for portion in _portions(latest(results)):
                await connection.execute(self._table.upsert, *transposed(portion, _CONVERT), self._mark.run)
        except asyncio.CancelledError:
            self._drop()
            raise
        except FetcherError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        return msgspec.json.encode(self._mark).decode()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.close(timeout=_GRACE)

    def _decoded(self, mark: str | None) -> PostgresMark | None:
        try:
            return msgspec.json.decode(mark, type=PostgresMark) if mark is not None else None
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self._place}: what this batch has written to it was recorded in a way unknown here ({error}); "
                "start over with --fresh"
            ) from error

    # The connection

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            config = self._config
            self._connection = await _driver().connect(
                config.dsn.get_secret_value(),
                timeout=config.connect_timeout,
                command_timeout=config.statement_timeout + _GRACE,
                server_settings={
                    "application_name": "fetcher",
                    "statement_timeout": str(max(1, round(config.statement_timeout * 1000))),
                },
            )
        return self._connection

    def _drop(self) -> None:
        """Let the connection go at once: what it is at is not known."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _check(self, connection: asyncpg.Connection, mark: PostgresMark | None, *, resume: bool) -> None:
        if await connection.fetchval("SHOW transaction_read_only") == "on":
            raise ConfigError(f"{self._place}: the server takes no writes (a standby?); give the dsn of its primary")
        if resume and mark is not None and await self._table.found(connection) != mark.table:
            raise self._gone()
        await self._table.check(connection, deletes=mark is not None and not resume)

    # Errors

    def _failure(self, error: Exception) -> SinkError:
        """Return what to raise for a write that failed. The next one may well find another server by the same name."""
        retryable = _passes(error)
        if retryable:
            self._drop()
        hint = "" if retryable else f"; {_advice(getattr(error, 'sqlstate', None))}"
        return SinkError(f"{self._place}: {_words(error)}{hint}", retryable=retryable)

    @contextmanager
    def _refusing(self, *, resume: bool) -> Iterator[None]:
        """Turn what the server says before a batch begins or goes on into errors that say what to do."""
        try:
            yield
        except FetcherError:
            raise
        except Exception as error:
            self._drop()
            if not _passes(error):
                advice = _advice(getattr(error, "sqlstate", None))
                raise ConfigError(f"{self._place}: {_words(error)}; {advice}") from error
            raise away(self._place, _words(error), resume=resume) from error

    def _gone(self) -> StateError:
        return StateError(
            f"{self._place}: is not the table that this batch has written to; put it back, or start over with --fresh"
        )


def _driver() -> Any:
    return load_extra("asyncpg", "postgres", "the sink postgres")


def _passes(error: Exception) -> bool:
    """Tell whether the same may succeed later: no answer, or one that says so."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is not None:
        return state[:2] in _CLASSES_THAT_PASS or state in _STATES_THAT_PASS
    driver = _driver()
    if isinstance(error, ValueError):  # of the driver's: a dsn or a value that it can not use
        return False
    return isinstance(error, OSError | EOFError | TimeoutError | driver.InterfaceError | driver.InternalClientError)


def _words(error: Exception) -> str:
    """Return what an error says, without a dsn that could not be read."""
    if isinstance(error, _driver().exceptions.ClientConfigurationError):
        return "the dsn can not be used"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Not the server's DETAIL, which has the row.
    return shown(getattr(error, "message", None) or str(error)) or type(error).__name__


def _advice(state: str | None) -> str:
    if state in _BAD_LOGIN:
        return "check user, password and database of the dsn"
    if state == _NO_RIGHTS:
        return "grant this user SELECT, INSERT, UPDATE and DELETE on the table, and USAGE on its schema"
    if state == "42P10":
        return f"the table needs a primary key or unique constraint on ({', '.join(KEY)})"
    if state == _NO_VALUE:
        return "the table has a column of somebody else that has to have a value; give it a default, or name another"
    if state is not None and state.startswith("42"):
        return "the table is not as it has to be; name another, and 'create: true' creates it"
    return "see what the server says of it"


def _portions(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    return (results[start : start + _ROWS] for start in range(0, len(results), _ROWS))


def _text(text: str) -> str:
    return writable(text).replace("\0", _NUL)


def _json(value: Any) -> str:
    text = json_text(value)
    # An escaped backslash before u0000 is found, too; then nothing is changed.
    return json_text(mapped(_text, value)) if "\\u0000" in text else text


_CONVERT: dict[Kind, Callable[[Any], Any]] = {"text": _text, "integer": integer, "json": _json, "time": in_utc}
