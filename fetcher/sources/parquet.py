"""Jobs from a parquet file: row group by row group, in batches, so that no more than a batch is held.

A position is the number of rows before it, and a checksum of the file's footer, which says where everything in it is.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import SourceError
from fetcher.extras import load_extra
from fetcher.interfaces import Chunk
from fetcher.sources.rows import CHUNK_BYTES, MAX_ROW, TOO_LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.model import Job
    from fetcher.sources.inputs import Kept
    from fetcher.sources.rows import Columns

CHUNK_ROWS = 500
_SMALL = 64 * 1024  # bytes of a column: as often as a chunk has rows, they are not too many
_BATCH = 64 * 1024 * 1024  # bytes of the longest values that a batch may come to
_HEADER = 16  # bytes, in which the beginning of a page's header is
_PAGE_HEADER = re.compile(rb"\x15[\x80-\xff]*[\x00-\x7f]\x15([\x80-\xff]{0,4}[\x00-\x7f])")
_BUFFER = 1024 * 1024  # of a column that is read
_TAIL = 8  # bytes: the length of the footer, and PAR1
_JSON = (bool, int, float, str)


class Position(msgspec.Struct):
    """After so many rows of the file with this footer."""

    row: int
    footer: int


class ParquetReading:
    """One reading of a file. Raises SourceError where it can not be read, or is not that of a position."""

    def __init__(self, kept: Kept, columns: Columns) -> None:
        self._kept = kept
        self._columns = columns
        self._arrow = load_extra("pyarrow", "parquet", f"{columns.name}: parquet")
        self._compute = load_extra("pyarrow.compute", "parquet", f"{columns.name}: parquet")
        self._parquet = load_extra("pyarrow.parquet", "parquet", f"{columns.name}: parquet")
        self._row = 0
        self._batches: Iterator[tuple[Any, int]] = iter(())
        self._left: tuple[Any, int] | None = None

    def open(self, position: str | None) -> None:
        """Read the footer, and go to a position."""
        name = self._columns.name
        if not self._kept.seekable:
            raise SourceError(f"{name}: is not a regular file, which parquet has to be")
        self._footer = self._checksum()
        # Not closed by pyarrow: that is for who opened it.
        self._file = self._told(self._parquet.ParquetFile, self._kept, buffer_size=_BUFFER, pre_buffer=False)
        names = self._file.schema_arrow.names
        for column in self._columns.named():
            if column not in names:
                raise SourceError(
                    f"{name}: there is no column {column!r}; its columns are {', '.join(names) or 'none'}"
                )
        if len(set(names)) < len(names):
            twice = next(column for column in names if names.count(column) > 1)
            raise SourceError(f"{name}: two columns are named {twice!r}; rename one of them")
        if position is not None:
            self._row = self._checked(position)
        self._batches = self._from(self._row)

    def chunk(self) -> Chunk | None:
        """Return the next rows, None at the end."""
        jobs: list[Job] = []
        size = 0
        while len(jobs) < CHUNK_ROWS and size < CHUNK_BYTES:
            found = self._next(CHUNK_ROWS - len(jobs))
            if found is None:
                break
            batch, added = found
            fits = added <= MAX_ROW or batch.num_rows > 1
            rows = self._told(_rows, batch, self._arrow) if fits else [TOO_LONG]
            jobs += [self._job(row) for row in rows]
            size += added
        if not jobs:
            return None
        return Chunk(jobs, msgspec.json.encode(Position(self._row, self._footer)).decode())

    def close(self) -> None:
        """Close what is read."""
        self._kept.close()

    def _next(self, most: int) -> tuple[Any, int] | None:
        """Return up to so many of the next rows, and about how many bytes they are."""
        found = self._left or self._told(next, self._batches, None)
        self._left = None
        if found is not None and found[0].num_rows > most:
            self._left = found[0].slice(most), found[1]
            return found[0].slice(0, most), found[1]
        return found

    def _job(self, row: dict[str, Any] | str) -> Job:
        self._row += 1
        number = str(self._row)
        if isinstance(row, str):
            return self._columns.reject(number, b"", row)
        return self._columns.job(number, row)

    def _batch_rows(self, group: Any) -> int:
        """Return of how many rows a batch of a row group may be, if each has the longest value that there can be.

        A value that is in a dictionary is in the file once and in a batch as often as it is wanted there.
        """
        most = 0
        for column in map(group.column, range(group.num_columns)):
            if column.has_dictionary_page and column.total_uncompressed_size > _SMALL:
                self._kept.seek(column.dictionary_page_offset)
                values = -(-column.num_values // max(1, group.num_rows))  # of a list, on average
                most += _page_size(self._kept.read(_HEADER)) * values
        return max(1, min(CHUNK_ROWS, _BATCH // max(1, most)))

    def _from(self, start: int) -> Iterator[tuple[Any, int]]:
        """Yield batches after so many rows, and how many bytes they are; row groups before them are not read."""
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if start < rows:
                size = self._batch_rows(metadata.row_group(group))
                for batch in self._file.iter_batches(size, row_groups=[group], use_threads=False):
                    if start < batch.num_rows:
                        yield from _portions(batch.slice(start), self._arrow.types, self._compute)
                    start = max(0, start - batch.num_rows)
            else:
                start -= rows

    def _checked(self, position: str) -> int:
        name = self._columns.name
        try:
            found = msgspec.json.decode(position, type=Position)
        except msgspec.DecodeError as error:
            raise SourceError(f"{name}: {position!r} is no position in a parquet file: {error}") from error
        if found.footer != self._footer or not 0 <= found.row <= self._file.metadata.num_rows:
            raise SourceError(
                f"{name}: changed since the batch was started, which stands after row {found.row}; "
                "put the file back, or start over with a new batch"
            )
        return found.row

    def _checksum(self) -> int:
        """Return a checksum of the footer. What has none is told by pyarrow."""
        size = self._kept.seek(0, os.SEEK_END)
        self._kept.seek(max(0, size - _TAIL))
        length = int.from_bytes(self._kept.read(_TAIL)[:4], "little")
        self._kept.seek(max(0, size - _TAIL - length))
        crc = zlib.crc32(self._kept.read(min(size, length + _TAIL)), size)
        self._kept.seek(0)
        return crc

    def _told(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Call what reads. Raises SourceError that says what pyarrow found."""
        try:
            return call(*arguments, **options)
        except SourceError:
            raise
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0][:300]
            raise SourceError(f"{self._columns.name}: can not be read as parquet: {reason}") from error


def _page_size(header: bytes) -> int:
    """Return how many bytes a page has when it is not compressed, 0 if this is not the header of one.

    It is a struct of Thrift's compact protocol, whose first fields are numbers: its type and that size.
    """
    match = _PAGE_HEADER.match(header)
    if match is None:
        return 0
    digits = [byte & 0x7F for byte in match[1]]
    return sum(digit << 7 * place for place, digit in enumerate(digits)) >> 1  # zigzag; it is not negative


def _is_text(kind: Any, types: Any) -> bool:
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))


def _portions(batch: Any, types: Any, compute: Any) -> Iterator[tuple[Any, int]]:
    """Cut a batch by the bytes that its rows will take, which come with each part; what is too long is by itself."""
    most = [_most(column, types, compute) for column in batch.columns]
    if sum(most) <= CHUNK_BYTES:
        yield batch, sum(most)
        return
    sizes = [sum(row) for row in zip(*(_sizes(column, types, compute) for column in batch.columns), strict=True)]
    start = size = 0
    for row, added in enumerate(sizes):
        if row > start and size + added > CHUNK_BYTES:
            yield batch.slice(start, row - start), size
            start, size = row, 0
        size += added
    yield batch.slice(start), size


def _lengths(column: Any, types: Any, compute: Any) -> Any:
    """Return the lengths of a column's texts, or of the different ones among them; None if it has others."""
    values = column.dictionary if types.is_dictionary(column.type) else column
    return compute.binary_length(values) if _is_text(values.type, types) else None


def _most(column: Any, types: Any, compute: Any) -> int:
    """Return how many bytes the values of a column take at most."""
    lengths = _lengths(column, types, compute)
    if lengths is None:
        return int(column.nbytes)
    return int(compute.max(lengths).as_py() or 0) * len(column)


def _sizes(column: Any, types: Any, compute: Any) -> list[int]:
    """Return how many bytes each value of a column takes."""
    lengths = _lengths(column, types, compute)
    if lengths is None:
        return [column.slice(row, 1).nbytes for row in range(len(column))]
    if types.is_dictionary(column.type):
        lengths = lengths.take(column.indices)
    return [length or 0 for length in lengths.to_pylist()]


def _rows(batch: Any, arrow: Any) -> list[dict[str, Any] | str]:
    """Return rows of values that JSON has, and of those that can not be read, why not."""
    batch = _without_nanoseconds(_decoded(batch, arrow), arrow)
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        rows = [_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
    if all(type(value) in _JSON or value is None for row in rows if isinstance(row, dict) for value in row.values()):
        return rows  # type: ignore[no-any-return]
    return [row if isinstance(row, str) else _plain(row) for row in rows]


def _row(batch: Any) -> dict[str, Any] | str:
    try:
        row: dict[str, Any] = batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return f"not valid UTF-8: byte 0x{error.object[error.start]:02x}"
    return row


def _plain(row: dict[str, Any]) -> dict[str, Any] | str:
    try:
        plain: dict[str, Any] = msgspec.to_builtins(row, enc_hook=str, str_keys=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"can not be written as JSON: {error}"
    return plain


def _decoded(batch: Any, arrow: Any) -> Any:
    """Put the values of dictionaries where their numbers are, which is the quickest way to them."""
    for index, field in enumerate(batch.schema):
        if arrow.types.is_dictionary(field.type):
            batch = batch.set_column(index, field.name, batch.column(index).dictionary_decode())
    return batch


def _without_nanoseconds(batch: Any, arrow: Any) -> Any:
    """Cut times to microseconds, which is what Python has."""
    types = arrow.types
    for index, field in enumerate(batch.schema):
        if not types.is_temporal(field.type) or getattr(field.type, "unit", "") != "ns":
            continue
        timestamp, duration = types.is_timestamp(field.type), types.is_duration(field.type)
        whole = arrow.timestamp("us", field.type.tz) if timestamp else arrow.time64("us")
        column = batch.column(index).cast(arrow.duration("us") if duration else whole, safe=False)
        batch = batch.set_column(index, field.name, column)
    return batch
