"""Jobs from the lines of an input: txt, csv or jsonl, a row at a time.

    _Txt  _Csv  _Jsonl    one row after the other, as a job
    TextReading           chunks of jobs, and positions to resume at

A position is the offset and number of the last line that was used up, and a checksum of the bytes before it, so that
another file is noticed.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Self

import msgspec

from fetcher.errors import SourceError
from fetcher.interfaces import Chunk
from fetcher.jobs.intake import MAX_DEPTH, MAX_URL_LENGTH, check_meta
from fetcher.sources.lines import Lines, Position
from fetcher.sources.rows import CHUNK_BYTES, MAX_ROW

if TYPE_CHECKING:
    from fetcher.model import Job
    from fetcher.sources.inputs import Input
    from fetcher.sources.rows import Columns

CHUNK_ROWS = 500
_MAX_RECORD = 128 * 1024  # a csv record over several lines: beyond it, a quote was never closed


class _PauseError(Exception):
    """More would have to be waited for, while there are rows that could be fetched."""


class Rows:
    """What the formats share. ``next`` gives a job, or None for a line that is no row and at the end."""

    limit = MAX_ROW  # of csv and jsonl, where other columns come along

    def __init__(self, lines: Lines, columns: Columns, separator: str) -> None:
        self._lines = lines
        self._columns = columns
        self._bare = columns.bare
        self._separator = separator

    def start(self) -> None:
        """Read what stands before the first row."""

    def next(self, *, may_wait: bool) -> Job | None:  # noqa: ARG002  only a record of several lines can pause
        """Return the job of the next row. Raises _PauseError where it would wait and must not."""
        raw = self._lines.next()
        if raw is None:
            return None
        number = str(self._lines.line)
        if len(raw) > self.limit:
            return self._columns.reject(number, raw, f"longer than {self.limit} bytes")
        try:
            return self._row(number, raw.strip())
        except UnicodeDecodeError as error:
            return self._columns.reject(number, raw, _not_utf8(error))

    def _row(self, number: str, raw: bytes) -> Job | None:
        raise NotImplementedError


class _Txt(Rows):
    """A URL a line; empty lines and lines that start with ``#`` are no rows."""

    limit = MAX_URL_LENGTH

    def _row(self, number: str, raw: bytes) -> Job | None:
        return self._bare(number, raw.decode()) if raw and not raw.startswith(b"#") else None


class _Jsonl(Rows):
    """An object a line, or a string that is a URL."""

    def _row(self, number: str, raw: bytes) -> Job | None:
        if not raw:
            return None
        try:
            value = msgspec.json.decode(raw)
            # Only a line with that many brackets can be too deep; the others need no second look.
            if isinstance(value, dict) and raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
                check_meta(value)
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            return self._columns.reject(number, raw, str(error))
        if isinstance(value, str):
            return self._bare(number, value.strip())
        if not isinstance(value, dict):
            return self._columns.reject(number, raw, "is neither an object nor a string")
        return self._columns.job(number, value)


class _Csv(Rows):
    """Records with a header; one with quoted line ends spans several lines, and is named by its first.

    A quote that is never closed would swallow the rows after it. So a record that can not be read is rejected
    with its first line alone, and the reading goes on at its second.
    """

    def start(self) -> None:
        """Read the header. Raises SourceError if it does not have the columns that the config names."""
        columns, lines = self._columns, self._lines
        self._records = csv.reader(self, delimiter=self._separator, strict=True)
        self._begin(may_wait=True)
        try:
            cells = [cell.strip() for cell in next(self._records, [])]
        except csv.Error as error:
            raise SourceError(f"{columns.name}:1: the header can not be read: {error}") from error
        if self._not_utf8 is not None:
            raise SourceError(f"{columns.name}:1: the header is {self._not_utf8}")
        self._names = [cell or f"column_{number}" for number, cell in enumerate(cells, 1)]
        found = f"its columns are {', '.join(self._names) or 'none'}"
        twice = [name for name in self._names if self._names.count(name) > 1]
        if twice:
            raise SourceError(f"{columns.name}:{lines.line}: two columns are named {twice[0]!r}; rename one of them")
        for name in columns.named():
            if name not in self._names:
                raise SourceError(f"{columns.name}:{lines.line}: there is no column {name!r}; {found}")

    def next(self, *, may_wait: bool) -> Job | None:
        """Return the job of the next record."""
        self._begin(may_wait=may_wait)
        try:
            cells = next(self._records)
        except StopIteration:
            return None
        except csv.Error as error:
            if self._pulled > 1:
                self._lines.rewind(self._second, self._first)
            return self._columns.reject(str(self._first), self._raw, str(error))
        number = str(self._first)
        if self._not_utf8 is not None:
            return self._columns.reject(number, self._raw, self._not_utf8)
        if not any(cells):
            return None  # an empty line, or the empty rows that spreadsheets leave behind
        if len(cells) > len(self._names) and any(cells[len(self._names) :]):
            why = f"has {len(cells)} cells under {len(self._names)} columns"
            return self._columns.reject(number, self._raw, f"{why}; quote cells that contain the delimiter")
        return self._columns.job(number, dict(zip(self._names, cells, strict=False)))

    def _begin(self, *, may_wait: bool) -> None:
        lines = self._lines
        self._record = self._second = lines.keep = lines.offset
        self._first = lines.line + 1
        self._pulled = 0
        self._may_wait = may_wait
        self._not_utf8: str | None = None
        self._raw = b""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """Hand the csv reader, which is built on this, the next line of the record."""
        lines = self._lines
        if not self._may_wait and lines.waits:
            lines.rewind(self._record, self._first - 1)
            raise _PauseError
        raw = lines.next()
        if raw is None:
            raise StopIteration
        self._pulled += 1
        if self._pulled == 1:
            self._second = lines.offset
            self._raw = raw
        elif lines.offset - self._record > _MAX_RECORD:
            raise csv.Error(f"the quote is not closed within {_MAX_RECORD} bytes")
        if len(raw) > self.limit:
            raise csv.Error(f"longer than {self.limit} bytes")
        try:
            return raw.decode() + "\n"
        except UnicodeDecodeError as error:
            self._not_utf8 = _not_utf8(error)
            return raw.decode("utf-8", "replace") + "\n"


FORMATS: dict[str, type[Rows]] = {"txt": _Txt, "csv": _Csv, "jsonl": _Jsonl}


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not valid UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}"


class TextReading:
    """One reading of lines. Raises SourceError where they can not be read, or are not those of a position."""

    def __init__(self, source: Input, kind: str, columns: Columns, separator: str) -> None:
        self._input = source
        rows = FORMATS[kind]
        self._lines = Lines(source, rows.limit)
        self._rows = rows(self._lines, columns, separator)

    def open(self, position: str | None) -> None:
        """Read what stands before the rows, and go to a position."""
        self._lines.sniff()
        self._rows.start()
        if position is not None:
            try:
                self._lines.skip_to(msgspec.json.decode(position, type=Position))
            except msgspec.DecodeError as error:
                raise SourceError(f"{self._input.name}: {position!r} is no position in a file: {error}") from error

    def chunk(self) -> Chunk | None:
        """Return what comes next: about 500 rows, of a pipe those that are there; None at the end."""
        lines, rows = self._lines, self._rows
        jobs: list[Job] = []
        end = lines.offset + CHUNK_BYTES
        try:
            while len(jobs) < CHUNK_ROWS and lines.offset < end and not lines.ended and not (jobs and lines.waits):
                job = rows.next(may_wait=not jobs)
                if job is not None:
                    jobs.append(job)
        except _PauseError:
            pass
        return None if lines.ended and not jobs else Chunk(jobs, lines.position())

    def close(self) -> None:
        """Close what is read."""
        self._input.close()
