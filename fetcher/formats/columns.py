"""Results as Arrow columns, in drafts that can be appended to and in Parquet files. Imported with pyarrow alone.

A draft is a record batch as Arrow's IPC writes it, behind its size and its number of rows. A file that is partitioned
keeps in its footer which rows of all drafts it has, so that the last of them can be taken out again.
"""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64decode, b64encode
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from fetcher.fields import in_utc, known_column, reader
from fetcher.formats.records import json_text, writable
from fetcher.model import Result
from fetcher.naming import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_FRAME = struct.Struct(">II")
_ROWS = b"fetcher.rows"
_NOBODY = "__HIVE_DEFAULT_PARTITION__"  # what Hive calls the partition of null
_LONGEST_NAME = 200
_MOST = 2**63
_CHUNK = 512  # rows that are looked at together
_PAIR = pa.struct([("name", pa.string()), ("value", pa.string())])
_REDIRECT = pa.struct([("url", pa.string()), ("status", pa.int64()), ("location", pa.string())])
_BY_NAME = {"headers": pa.list_(_PAIR), "redirects": pa.list_(_REDIRECT)}
_BY_TYPE: dict[type[Any], Any] = {
    msgspec.inspect.StrType: pa.string(),
    msgspec.inspect.EnumType: pa.string(),
    msgspec.inspect.IntType: pa.int64(),
    msgspec.inspect.FloatType: pa.float64(),
    msgspec.inspect.BoolType: pa.bool_(),
    msgspec.inspect.BytesType: pa.binary(),
    msgspec.inspect.DateTimeType: pa.timestamp("us", "UTC"),
}


def _schema() -> pa.Schema:
    about: Any = msgspec.inspect.type_info(Result)
    fields = [pa.field(field.name, _BY_NAME.get(field.name) or _arrow_type(field.type)) for field in about.fields]
    return pa.schema(fields)


def _arrow_type(kind: Any) -> pa.DataType:
    """Return the type of a field, null or not; what has none is JSON."""
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    found = [_BY_TYPE[type(one)] for one in kinds if type(one) in _BY_TYPE]
    return found[0] if found else pa.string()


SCHEMA = _schema()


def _field(name: str) -> pa.Field:
    """Return the column of a field; one of ``extracted.x`` is text."""
    return pa.field(name, pa.string()) if "." in name else SCHEMA.field(name)


class ParquetFormat:
    """Encodes results as Parquet files: a ``PartFormat``."""

    suffix = ".parquet"

    def __init__(
        self, *, part_size: int, row_group: int, partition_by: str, codec: str, columns: Sequence[str] | None = None
    ) -> None:
        self.part_size = part_size
        self._row_group = row_group
        self._partition = _PARTITIONS[partition_by]
        self._codec = codec
        self._schema = SCHEMA if columns is None else pa.schema([_field(name) for name in columns])

    @property
    def columns(self) -> list[str]:
        """What the records have, in this order."""
        return list(self._schema.names)

    def follow(self, columns: Sequence[str]) -> None:
        """Write these columns from now on. Raises ValueError for one that no record has."""
        if list(columns) != self._schema.names:
            self._schema = pa.schema([_field(known_column(name)) for name in columns])

    def columns_of(self, part: Path) -> list[str]:
        """Return the columns of a file."""
        with pq.ParquetFile(part) as file:
            return list(file.schema_arrow.names)

    def reads(self, drafts: Path) -> bool:
        """Return whether drafts that some version has written have all of these columns."""
        with pa.memory_map(str(drafts)) as source:
            try:
                return next(_unframed(source, self._schema), None) is not None
            except (OSError, pa.ArrowInvalid):  # it has not so many columns
                return False

    def begin(self) -> bytes:
        """Return nothing: a file begins with its first results."""
        return b""

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return results as one whole file, not partitioned."""
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, self._schema, compression=self._codec) as writer:
            writer.write_batch(record_batch(results, self._schema))
        return buffer.getvalue()

    def draft(self, results: Sequence[Result]) -> bytes:
        """Return results as bytes that can be appended to others."""
        return _framed(record_batch(results, self._schema)) if results else b""

    def length(self, drafts: Path, rows: int) -> int:
        """Return how many bytes of drafts hold their first rows. Raises ValueError if no draft ends there."""
        with drafts.open("rb") as file:
            while rows > 0 and len(head := file.read(_FRAME.size)) == _FRAME.size:
                size, count = _FRAME.unpack(head)
                file.seek(size, io.SEEK_CUR)
                rows -= count
            if rows or file.tell() > drafts.stat().st_size:
                raise ValueError("ends before them")
            return file.tell()

    def write(self, drafts: Path, create: Callable[[str], Path]) -> None:
        """Write all records of drafts to files; ``create`` names the one of a partition, which may be ``""``."""
        with pa.memory_map(str(drafts)) as source:
            batches = list(_unframed(source, self._schema))
            if self._partition is None:
                self._write_file(create(""), self._schema, batches)
                return
            groups = self._groups(batches)
            # Sorted at once, which takes memory for a copy; partition by partition takes several times as long.
            order = pa.array([row for rows in groups.values() for row in rows], pa.int64())
            table = pa.Table.from_batches(batches, self._schema).take(order)
            place = 0
            for name, rows in groups.items():
                footer = self._schema.with_metadata({_ROWS: _packed(rows)})
                self._write_file(create(name), footer, table.slice(place, len(rows)).to_batches(_CHUNK))
                place += len(rows)

    def _write_file(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        with pq.ParquetWriter(str(path), schema, compression=self._codec) as writer:
            for group in self._row_groups(batches):
                writer.write_table(group, row_group_size=max(1, group.num_rows))

    def count(self, part: Path) -> int:
        """Return how many records a file has."""
        with pq.ParquetFile(part) as file:
            return int(file.metadata.num_rows)

    def undo(self, parts: Iterable[Path], rows: int) -> Iterator[bytes]:
        """Yield drafts of the first rows that were written to some files, in whatever order."""
        for path in parts:
            with pq.ParquetFile(path) as file:
                packed = (file.schema_arrow.metadata or {}).get(_ROWS)
                place = 0
                numbers = None if packed is None else _unpacked(packed)
                for batch in file.iter_batches(batch_size=_CHUNK):
                    own = range(place, place + len(batch)) if numbers is None else numbers[place : place + len(batch)]
                    place += len(batch)
                    kept = sum(number < rows for number in own)  # they ascend
                    if kept:
                        yield _framed(pa.record_batch(batch.columns, self._schema).slice(0, kept))

    def _groups(self, batches: Sequence[pa.RecordBatch]) -> dict[str, list[int]]:
        """Return which rows are of which partition."""
        groups: dict[str, list[int]] = {}
        number = 0
        for batch in batches:
            for name in self._partition(batch) if self._partition is not None else ():
                groups.setdefault(name, []).append(number)
                number += 1
        return groups

    def _row_groups(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        waiting: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            waiting.append(batch)
            size += batch.nbytes
            if size >= self._row_group:
                yield pa.Table.from_batches(waiting, self._schema)
                waiting, size = [], 0
        if waiting:
            yield pa.Table.from_batches(waiting, self._schema)


def record_batch(results: Sequence[Result], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """Return results as the columns of a schema."""
    return pa.record_batch([_column(field, results) for field in schema], schema)


def _column(field: pa.Field, results: Sequence[Result]) -> pa.Array:
    name = field.name
    values = list(map(reader(name), results))
    if all(value is None for value in values):
        return pa.nulls(len(values), field.type)
    if name == "headers":
        return _headers(values)
    if name == "redirects":
        values = [hops and [_plain(msgspec.structs.asdict(hop)) for hop in hops] for hops in values]
    elif pa.types.is_int64(field.type):
        values = [value if value is not None and -_MOST <= value < _MOST else None for value in values]
    elif pa.types.is_timestamp(field.type):
        values = [value and in_utc(value) for value in values]
    elif pa.types.is_string(field.type):
        return _texts(values)
    return pa.array(values, field.type)


def _headers(values: Sequence[Any]) -> pa.Array:
    """Return lists of pairs, flattened here: pyarrow takes ten times as long for it."""
    offsets = [0, *accumulate(len(pairs or ()) for pairs in values)]
    pairs = [pair for each in values if each for pair in each]
    columns = [_texts([name for name, _ in pairs]), _texts([value for _, value in pairs])]
    structs = pa.StructArray.from_arrays(columns, fields=list(_PAIR))
    nulls = pa.array([pairs is None for pairs in values])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=_BY_NAME["headers"], mask=nulls)


def _texts(values: Sequence[Any]) -> pa.Array:
    texts = [value if value is None or isinstance(value, str) else json_text(value) for value in values]
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([text and writable(text) for text in texts], pa.string())


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: writable(value) if isinstance(value, str) else value for name, value in fields.items()}


def _framed(batch: pa.RecordBatch) -> bytes:
    data = batch.serialize()
    return b"".join([_FRAME.pack(data.size, batch.num_rows), data])


def _unframed(source: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while head := source.read(_FRAME.size):
        size, _ = _FRAME.unpack(head)
        yield pa.ipc.read_record_batch(source.read_buffer(size), schema)


def _packed(rows: Sequence[int]) -> bytes:
    return b64encode(zlib.compress(struct.pack(f">{len(rows)}I", *rows), 1))


def _unpacked(packed: bytes) -> tuple[int, ...]:
    data = zlib.decompress(b64decode(packed))
    return struct.unpack(f">{len(data) // 4}I", data)


def _by_host(batch: pa.RecordBatch) -> Iterator[str]:
    for url in batch.column("url").to_pylist():
        try:
            host = (urlsplit(url).hostname or "").lower().rstrip(".")
        except ValueError:  # a row that was no URL
            host = ""
        # Readers undo the percent-encoding.
        name = quote(host, safe="")
        yield f"host={(name if len(name) <= _LONGEST_NAME else distinct(host)) or _NOBODY}"


def _by_date(batch: pa.RecordBatch) -> Iterator[str]:
    started, finished = batch.column("started_at").to_pylist(), batch.column("finished_at").to_pylist()
    for begun, ended in zip(started, finished, strict=True):
        when = begun or ended
        yield f"date={in_utc(when).date() if when else _NOBODY}"


_PARTITIONS: dict[str, Callable[[pa.RecordBatch], Iterator[str]] | None] = {
    "none": None,
    "host": _by_host,
    "date": _by_date,
}
