"""Jobs from a file or from stdin: text, csv or jsonl, plain or gzipped, of any length.

    lines.Input  lines.Lines    the bytes, and physical lines out of them
    _Txt  _Csv  _Jsonl          one row after the other, as a job
    FileSource                  chunks of jobs, read in a thread of its own

A row that can not be used is a rejected job with its line number. A position is the offset and number of the
last line that was used up, and a checksum of the bytes before it, so that another file is noticed.
"""

from __future__ import annotations

import asyncio
import csv
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
from pydantic import Field, field_validator, model_validator

from fetcher.errors import ConfigError, ErrorKind, SourceError
from fetcher.intake import (
    MAX_DEPTH,
    MAX_URL_LENGTH,
    RowError,
    check_checksum,
    check_meta,
    check_priority,
    make_job,
    rejected_job,
)
from fetcher.interfaces import Chunk
from fetcher.settings import Settings
from fetcher.sources.lines import Input, Lines, Position, path_advice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fetcher.model import Job

_CHUNK_ROWS = 500
_CHUNK_BYTES = 1024 * 1024
_MAX_LINE = 1024 * 1024  # of csv and jsonl, where other columns come along
_MAX_RECORD = 128 * 1024  # a csv record over several lines: beyond it, a quote was never closed
_SHOWN = 500  # bytes of a rejected row
_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class FileSourceConfig(Settings):
    """A file of URLs, or stdin."""

    type: Literal["file"] = "file"
    """A file."""
    path: str = Field(min_length=1)
    """The file, relative to the working folder; `-` is stdin. What ends in `.gz` is decompressed."""
    format: Literal["auto", "txt", "csv", "jsonl"] = "auto"
    """`txt` has a URL a line, and `#` before comments; `auto` goes by the suffix, an unknown one is `txt`."""
    column: str = Field(default="url", min_length=1)
    """The csv column, or the jsonl field, that holds the URL. All others become `meta`."""
    delimiter: str | None = None
    """What separates the columns of a csv: one character; by default a comma, or a tab for `.tsv`."""
    key: str | None = None
    """The column or field to tell duplicates by: of rows with the same value one is fetched."""
    priority: str | None = None
    """The column or field that holds the priority, a whole number; higher goes first."""
    checksum: str | None = None
    """The column or field that holds what the body hashes to: sha256, sha1, md5 or sha512, as hexadecimal digits,
    with or without the name before them (``sha256:9f8...``). Another body is kind ``checksum_mismatch``."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = {"\\t": "\t", "tab": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or value in '"\r\n\0'):
            raise ValueError("should be one character, and neither a quote nor a line end; a tab is written \\t")
        return value

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        unused = {"txt": ("column", "key", "priority", "checksum", "delimiter"), "jsonl": ("delimiter",)}
        for name in unused.get(self.kind, ()):
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"{name} means nothing in {self.kind}; set format if {self.name} is something else")
        return self

    @property
    def kind(self) -> str:
        """The format, after a look at the suffix."""
        suffix = Path(self.path.removesuffix(".gz")).suffix.lower()
        return _SUFFIXES.get(suffix, "txt") if self.format == "auto" else self.format

    @property
    def separator(self) -> str:
        """The csv delimiter, after a look at the suffix."""
        return self.delimiter or ("\t" if self.path.removesuffix(".gz").endswith(".tsv") else ",")

    @property
    def name(self) -> str:
        """What messages call it."""
        return "stdin" if self.path == "-" else self.path

    def build(self) -> FileSource:
        """Return the source."""
        return FileSource(self)


class _PauseError(Exception):
    """More would have to be waited for, while there are rows that could be fetched."""


class _Rows:
    """What the formats share. ``next`` gives a job, or None for a line that is no row and at the end."""

    limit = _MAX_LINE

    def __init__(self, lines: Lines, config: FileSourceConfig) -> None:
        self._lines = lines
        self._config = config

    def start(self) -> None:
        """Read what stands before the first row."""

    def next(self, *, may_wait: bool) -> Job | None:  # noqa: ARG002  only a record of several lines can pause
        """Return the job of the next row. Raises _PauseError where it would wait and must not."""
        raw = self._lines.next()
        if raw is None:
            return None
        number = str(self._lines.line)
        if len(raw) > self.limit:
            return self._reject(number, raw, f"longer than {self.limit} bytes")
        try:
            return self._row(number, raw.strip())
        except UnicodeDecodeError as error:
            return self._reject(number, raw, _not_utf8(error))

    def _row(self, number: str, raw: bytes) -> Job | None:
        raise NotImplementedError

    def _reject(self, number: str, raw: bytes, why: str, meta: dict[str, Any] | None = None) -> Job:
        """Make the job of a row that is no job. ``raw`` is shown; its start is enough."""
        message = f"{self._config.name}:{number}: {why}"
        shown = raw[:_SHOWN].decode("utf-8", "backslashreplace")
        return rejected_job(number, shown, RowError(ErrorKind.INVALID_ROW, message), meta)

    def _job(self, number: str, fields: dict[str, Any]) -> Job:
        """Make the job of a row of named values."""
        config = self._config
        key = fields.get(config.key) if config.key else None
        priority = fields.get(config.priority) if config.priority else None
        checksum = fields.get(config.checksum) if config.checksum else None
        url = fields.pop(config.column, None)
        meta = fields or None
        if not isinstance(url, str):
            why = f"has no {config.column!r}; it has {', '.join(fields) or 'nothing'}"
            return self._reject(number, b"", why if url is None else f"{config.column!r} is not text", meta)
        job = make_job(number, url.strip(), meta)
        try:
            if priority not in (None, ""):
                job.priority = check_priority(int(priority) if isinstance(priority, str) else priority)
        except ValueError:
            return self._reject(number, url.encode(), f"priority {priority!r} is not a whole number", meta)
        if checksum not in (None, ""):
            try:
                job.checksum = check_checksum(checksum)
            except RowError as error:
                return self._reject(number, url.encode(), str(error), meta)
        if key not in (None, ""):
            if not isinstance(key, str | int) or isinstance(key, bool):
                why = f"key {config.key!r} is neither text nor a whole number"
                return self._reject(number, url.encode(), why, meta)
            job.key = str(key)
        return job


class _Txt(_Rows):
    """A URL a line; empty lines and lines that start with ``#`` are no rows."""

    limit = MAX_URL_LENGTH

    def _row(self, number: str, raw: bytes) -> Job | None:
        return make_job(number, raw.decode()) if raw and not raw.startswith(b"#") else None


class _Jsonl(_Rows):
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
            return self._reject(number, raw, str(error))
        if isinstance(value, str):
            return make_job(number, value.strip())
        if not isinstance(value, dict):
            return self._reject(number, raw, "is neither an object nor a string")
        return self._job(number, value)


class _Csv(_Rows):
    """Records with a header; one with quoted line ends spans several lines, and is named by its first.

    A quote that is never closed would swallow the rows after it. So a record that can not be read is rejected
    with its first line alone, and the reading goes on at its second.
    """

    def start(self) -> None:
        """Read the header. Raises SourceError if it does not have the columns that the config names."""
        config, lines = self._config, self._lines
        self._records = csv.reader(self, delimiter=config.separator, strict=True)
        self._begin(may_wait=True)
        try:
            cells = [cell.strip() for cell in next(self._records, [])]
        except csv.Error as error:
            raise SourceError(f"{config.name}:1: the header can not be read: {error}") from error
        if self._not_utf8 is not None:
            raise SourceError(f"{config.name}:1: the header is {self._not_utf8}")
        self._names = [cell or f"column_{number}" for number, cell in enumerate(cells, 1)]
        found = f"its columns are {', '.join(self._names) or 'none'}"
        twice = [name for name in self._names if self._names.count(name) > 1]
        if twice:
            raise SourceError(f"{config.name}:{lines.line}: two columns are named {twice[0]!r}; rename one of them")
        for name in (config.column, config.key, config.priority, config.checksum):
            if name is not None and name not in self._names:
                raise SourceError(f"{config.name}:{lines.line}: there is no column {name!r}; {found}")

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
            return self._reject(str(self._first), self._raw, str(error))
        number = str(self._first)
        if self._not_utf8 is not None:
            return self._reject(number, self._raw, self._not_utf8)
        if not any(cells):
            return None  # an empty line, or the empty rows that spreadsheets leave behind
        if len(cells) > len(self._names) and any(cells[len(self._names) :]):
            why = f"has {len(cells)} cells under {len(self._names)} columns"
            return self._reject(number, self._raw, f"{why}; quote cells that contain the delimiter")
        return self._job(number, dict(zip(self._names, cells, strict=False)))

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


_FORMATS: dict[str, type[_Rows]] = {"txt": _Txt, "csv": _Csv, "jsonl": _Jsonl}


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not valid UTF-8: byte 0x{error.object[error.start]:02x} at column {error.start + 1}"


class _Reading:
    """One reading of a file. All but ``stopped`` belongs to one thread."""

    def __init__(self, config: FileSourceConfig) -> None:
        self._config = config
        self._input: Input | None = None
        self.stopped = threading.Event()

    def open(self, position: str | None) -> None:
        rows = _FORMATS[self._config.kind]
        self._input = Input(self._config.path, self._config.name, self.stopped)
        self._lines = Lines(self._input, rows.limit)
        self._rows = rows(self._lines, self._config)
        self._lines.sniff()
        self._rows.start()
        if position is not None:
            try:
                self._lines.skip_to(msgspec.json.decode(position, type=Position))
            except msgspec.DecodeError as error:
                raise SourceError(f"{self._config.name}: {position!r} is no position in a file: {error}") from error

    def chunk(self) -> Chunk | None:
        """Return what comes next: about 500 rows, of a pipe those that are there; None at the end."""
        lines, rows = self._lines, self._rows
        jobs: list[Job] = []
        end = lines.offset + _CHUNK_BYTES
        try:
            while len(jobs) < _CHUNK_ROWS and lines.offset < end and not lines.ended and not (jobs and lines.waits):
                job = rows.next(may_wait=not jobs)
                if job is not None:
                    jobs.append(job)
        except _PauseError:
            pass
        return None if lines.ended and not jobs else Chunk(jobs, lines.position())

    def close(self) -> None:
        if self._input is not None:
            self._input.close()


class FileSource:
    """Yields the rows of a file, read in a thread of its own, so that no disk or pipe holds up the loop."""

    def __init__(self, config: FileSourceConfig) -> None:
        self._config = config

    def check(self) -> None:
        """Raise ConfigError if the file can not be opened, or its header can not be used. Reads no pipe."""
        if self._config.path == "-":
            if sys.stdin is None:
                raise ConfigError("stdin is closed; pipe the URLs in, or name a file")
            return
        try:
            status = Path(self._config.path).stat()
        except OSError as error:
            raise ConfigError(f"{self._config.path}: can not be opened: {error.strerror}; {path_advice()}") from error
        pipe = stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode)
        if pipe and not self._config.path.endswith(".gz"):
            return  # to open and close it here would end its writer
        reading = _Reading(self._config)
        try:
            reading.open(None)
        except SourceError as error:
            raise ConfigError(str(error)) from error
        finally:
            reading.close()

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="fetcher-source")
        reading = _Reading(self._config)
        try:
            await loop.run_in_executor(executor, reading.open, position)
            while (chunk := await loop.run_in_executor(executor, reading.chunk)) is not None:
                if chunk.jobs:
                    yield chunk
        finally:
            # A cancelled read may still be waiting for a pipe; its thread must end, or the process could not.
            reading.stopped.set()
            try:
                await loop.run_in_executor(executor, reading.close)
            finally:
                executor.shutdown(wait=False)
