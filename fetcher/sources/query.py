"""What sources that ask a database have in common: what they ask, and what a row of the answer becomes.

Columns that are called like the keys of a job (``url``, ``method``, ``headers`` ...) are those of the job, all others
its ``meta``; ``AS`` gives a column the name that it needs.

To resume, rows must come in an order that is known. With ``order``, a column whose values are all different, the
reading goes on after the last value that it had, whatever rows came or went since, and the value is the job's id.
Without it the rows are read again from the first one and skipped, and a checksum over them tells whether they are
still the same.
"""

from __future__ import annotations

import re
import zlib
from decimal import Decimal
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import AfterValidator, Field

from fetcher.errors import ConfigError, ErrorKind, SourceError
from fetcher.jobs.intake import RowError, check_meta, encode_json, make_job, rejected_job
from fetcher.jobs.objects import BODIES, JOB_KEYS, has_body, job_from_mapping
from fetcher.settings import Duration, Settings
from fetcher.sources.row_jobs import JobTemplate, RowMaker
from fetcher.sources.rows import MAX_ROW, TOO_LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Job

CHUNK_ROWS = 500
_JSON = (bool, int, float, str)
_KEYS = frozenset(JOB_KEYS) - {"url"}
_DECODED = ("headers", "params", "form", "multipart", "auth", "receive", "meta")  # JSON in them may be text
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:+@-]{1,64}")
_ID_DIGITS = 32


def _one_query(value: str) -> str:
    value = value.strip().removesuffix(";").rstrip()
    if not value:
        raise ValueError("is empty")
    return value


class QuerySettings(Settings):
    """What is asked, and how long that may take."""

    query: Annotated[str, AfterValidator(_one_query)]
    """One SELECT. Its columns `url`, `method`, `headers`, `params`, `body`, `json`, `form`, `multipart`, `auth`,
    `receive`, `priority`, `timeout`, `verify`, `checksum` and `key` are those of the job, `meta` (an object) and all
    others its `meta`."""
    order: str | None = Field(default=None, min_length=1)
    """A column of the query by which rows are read, each value of which is there once (a primary key). A batch is then
    resumed after the last row that it had, and the value is the job's id. Without it, all rows are read again to
    resume, which is refused if they are not those of then."""
    job: JobTemplate | None = None
    """What job a row becomes, with places for its columns; what it does not say is in the columns of these names. With
    ``url`` no such column is needed."""
    timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long the database may work on the next rows."""
    lock_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """How long it may wait for a lock of somebody else."""


class Position(msgspec.Struct):
    """After so many rows: the value of ``order`` in the last of them, or a checksum over all."""

    row: int
    after: int | float | str | None = None
    crc: int = 0


def position_of(name: str, text: str | None) -> Position:
    """Return a position as it was kept. Raises SourceError if it is none."""
    try:
        return Position(0) if text is None else msgspec.json.decode(text, type=Position)
    except msgspec.DecodeError as error:
        raise SourceError(f"{name}: {text!r} is no position in the rows of a query: {error}") from error


def quoted(identifier: str) -> str:
    """Return the name of a column as SQL has it."""
    return '"' + identifier.replace('"', '""') + '"'


def check_columns(name: str, columns: Sequence[str], config: QuerySettings) -> None:
    """Raise ConfigError if a query has no URL, two columns of one name, or not those of ``order`` and ``job``."""
    found = f"its columns are {', '.join(columns)}"
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise ConfigError(f"{name}: two columns of the query are named {twice!r}; rename one of them with AS")
    maker = maker_of(config)
    of_job = [] if maker is None else maker.names
    for wanted in ("url" if maker is None or maker.url is None else None, config.order, *of_job):
        if wanted is not None and wanted not in columns:
            raise ConfigError(f"{name}: the query has no column {wanted!r}; {found}; AS gives one that name")


def maker_of(config: QuerySettings) -> RowMaker | None:
    """Return what makes jobs out of rows; None if the rows say it themselves."""
    return None if config.job is None else RowMaker(config.job)


def size_of(values: Sequence[Any]) -> int:
    """Return about how many bytes a row takes: those of its texts and BLOBs."""
    return sum(len(value) for value in values if isinstance(value, str | bytes))


class Answer:
    """The rows of a query, as jobs, one after the other; and where the reading stands.

    ``json_text``: the database has no JSON of its own, so that a column ``json`` has text that is meant as JSON.
    """

    def __init__(
        self, name: str, columns: Sequence[str], config: QuerySettings, start: Position, *, json_text: bool
    ) -> None:
        order = config.order
        self._name = name
        maker = maker_of(config)
        self._make = _job if maker is None else partial(_made_by, maker)
        self._columns = columns
        self._order = None if order is None else columns.index(order)
        self._stands = start if order is not None else Position(0)
        self._skipping = start if order is None and start.row else None
        self._decoded = (*_DECODED, "json") if json_text else _DECODED
        self._last: Any = None

    @property
    def position(self) -> str:
        """Where the reading stands, after the last row that was taken."""
        return msgspec.json.encode(self._stands).decode()

    def job(self, values: Sequence[Any], after: float | str | None = None) -> Job | None:
        """Take a row; return its job, or None if it was read by an earlier run. ``after``: its value of ``order``."""
        stands = self._stands
        stands.row += 1
        if self._order is not None:
            self._check_order(values[self._order], after)
            stands.after = after
            return self._made(_id(str(after)), values)
        stands.crc = zlib.crc32(repr(values).encode("utf-8", "surrogatepass"), stands.crc)
        if self._skipping is None:
            return self._made(str(stands.row), values)
        if stands.row == self._skipping.row:
            if stands.crc != self._skipping.crc:
                raise self._changed("has other rows, or in another order, than then", self._skipping)
            self._skipping = None
        return None

    def end(self) -> None:
        """Raise SourceError if the rows ended before those that an earlier run had."""
        if self._skipping is not None:
            raise self._changed(f"has {self._stands.row} rows only", self._skipping)

    def _check_order(self, value: Any, after: float | str | None) -> None:
        column = self._columns[self._order or 0]
        if value is None or after is None:
            raise SourceError(f"{self._name}: row {self._stands.row} has no {column!r}, by which rows are ordered")
        if value == self._last:
            why = f"two rows have {str(after)[:100]!r} as {column!r}, by which rows are ordered"
            raise SourceError(f"{self._name}: {why}; choose a column whose values are all different")
        self._last = value

    def _made(self, job_id: str, values: Sequence[Any]) -> Job:
        row = dict(zip(self._columns, values, strict=True))
        url = row.get("url")
        if size_of(values) > MAX_ROW:
            return rejected_job(job_id, "", RowError(ErrorKind.INVALID_ROW, TOO_LONG))
        try:
            return self._make(job_id, row, self._decoded)
        except RowError as error:
            return rejected_job(job_id, url if isinstance(url, str) else "", error)

    def _changed(self, what: str, position: Position) -> SourceError:
        return SourceError(
            f"{self._name}: changed since the batch was started: the query {what}, and the batch stands after row "
            f"{position.row}; start over with a new batch, and set order to be able to resume"
        )


def _id(value: str) -> str:
    """Return a value as an id: one that is no short plain word is told by its hash."""
    return (
        value if _PLAIN_ID.fullmatch(value) else sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
    )


def _job(job_id: str, row: dict[str, Any], decoded: Sequence[str]) -> Job:
    """Make the job of a row. Raises RowError, or returns a rejected job."""
    url = row.get("url")
    if isinstance(url, str) and _KEYS.isdisjoint(row):
        del row["url"]
        return make_job(job_id, url.strip(), _storable(row) if row else None)
    return _of_keys(job_id, row, {}, decoded)


def _made_by(maker: RowMaker, job_id: str, row: dict[str, Any], decoded: Sequence[str]) -> Job:
    """Make the job of a row by a template, which goes before what the row says itself. Raises RowError."""
    try:
        own = maker.filled(row)
    except RowError as error:
        meta = _storable({name: value for name, value in row.items() if name not in JOB_KEYS})
        url = maker.url or row.get("url")
        return rejected_job(job_id, url if isinstance(url, str) else "", error, meta or None)
    if has_body(own):
        row = {name: value for name, value in row.items() if name not in BODIES}
    return _of_keys(job_id, row, own, decoded)


def _of_keys(job_id: str, row: dict[str, Any], said: dict[str, Any], decoded: Sequence[str]) -> Job:
    """Make the job of a row by the columns that are called like the keys of one, and what is said beside them."""
    for name in decoded:
        if isinstance(row.get(name), str | bytes):
            row[name] = _from_json(name, row[name])
    given = {name: value for name, value in row.items() if name in JOB_KEYS and name != "meta" and value is not None}
    meta = {name: value for name, value in row.items() if name not in JOB_KEYS}
    meta = _storable(meta)
    own = row.get("meta")
    if own is not None and not isinstance(own, dict):
        raise RowError(ErrorKind.INVALID_ROW, "meta is not an object")
    body = given.pop("body") if isinstance(given.get("body"), bytes) else None
    if body is not None and "json" in given:
        raise RowError(ErrorKind.INVALID_ROW, "has both body and json; a request has one body")
    job = job_from_mapping(job_id, _native(given) | said | {"meta": (meta | own if own else meta) or None})
    if body is not None and job.rejected is None:
        job.body = body
    return job


def _native(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says of a job, in the types that a job has."""
    for name in ("priority", "timeout"):
        if isinstance(given.get(name), Decimal):
            value = given[name]
            given[name] = int(value) if value == value.to_integral_value() else float(value)
    if given.get("verify") in (0, 1):
        given["verify"] = bool(given["verify"])
    if isinstance(given.get("key"), int):
        given["key"] = str(given["key"])
    if isinstance(given.get("url"), str):
        given["url"] = given["url"].strip()
    return given


def _from_json(name: str, value: str | bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise RowError(ErrorKind.INVALID_ROW, f"{name} is not JSON: {error}") from error


def _storable(meta: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: times as ISO 8601, bytes as base64, and what JSON does not know as text."""
    if all(value is None or type(value) in _JSON for value in meta.values()):
        encode_json("meta", meta)
        return meta
    try:
        plain: dict[str, Any] = msgspec.to_builtins(meta, enc_hook=str, str_keys=True)
        check_meta(plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RowError(ErrorKind.INVALID_ROW, f"can not be written as JSON: {error}") from error
    return plain
