"""Jobs from a parquet file: row group by row group, in batches, so that no more than a batch is held.

A position is the number of rows before it, and a checksum of the file's footer, which says where everything in it is.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import SourceError
from fetcher.extras import load_extra
from fetcher.interfaces import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.model import Job
    from fetcher.sources.inputs import Kept
    from fetcher.sources.rows import Columns

CHUNK_ROWS = 500
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
        self._parquet = load_extra("pyarrow.parquet", "parquet", f"{columns.name}: parquet")
        self._row = 0
        self._batches: Iterator[Any] = iter(())

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
        batch = self._told(next, self._batches, None)
        if batch is None:
            return None
        jobs = [self._job(row) for row in self._told(_rows, batch, self._arrow)]
        return Chunk(jobs, msgspec.json.encode(Position(self._row, self._footer)).decode())

    def close(self) -> None:
        """Close what is read."""
        self._kept.close()

    def _job(self, row: dict[str, Any] | str) -> Job:
        self._row += 1
        number = str(self._row)
        if isinstance(row, str):
            return self._columns.reject(number, b"", row)
        return self._columns.job(number, row)

    def _from(self, start: int) -> Iterator[Any]:
        """Yield the batches after so many rows; row groups before them are not read."""
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if start < rows:
                for batch in self._file.iter_batches(CHUNK_ROWS, row_groups=[group], use_threads=False):
                    if start < batch.num_rows:
                        yield batch.slice(start)
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


def _rows(batch: Any, arrow: Any) -> list[dict[str, Any] | str]:
    """Return rows of values that JSON has, and of those that can not be read, why not."""
    batch = _without_nanoseconds(batch, arrow)
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
