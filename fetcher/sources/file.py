"""Jobs from files or from stdin: text, csv, jsonl or parquet, of any length, here or in an object store.

    inputs  objects         the bytes
    lines  text  parquet    rows out of them, as jobs
    FileSource              chunks of jobs, file after file, read in a thread of its own

A row that can not be used is a rejected job with its line number. The id of a job is that number; where ``path`` is a
list or a pattern, the number of the file stands before it. A position names the files up to its own: others may have
come after them, but none between them, so that no file is missed and no id means two rows.
"""

from __future__ import annotations

import glob
import stat
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import msgspec
from pydantic import Field, field_validator, model_validator

from fetcher.errors import ConfigError, SourceError
from fetcher.interfaces import Chunk
from fetcher.settings import Secret, Settings
from fetcher.sources import objects
from fetcher.sources.inputs import PACKED, Input, LocalFile, path_advice, unpacked
from fetcher.sources.parquet import ParquetReading
from fetcher.sources.row_jobs import JobTemplate, RowMaker, TemplatedColumns, check_static
from fetcher.sources.rows import Columns
from fetcher.sources.text import TextReading
from fetcher.sources.threads import read_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_COLUMNS = ("column", "key", "priority", "checksum")
_UNUSED = {"txt": (*_COLUMNS, "delimiter"), "jsonl": ("delimiter",), "parquet": ("delimiter",), "csv": ()}
_MOST_CHECKED = 1_000  # files that are opened before the first fetch; a store's take a request each, so the first


class FileSourceConfig(Settings):
    """Files of URLs, or stdin."""

    extras: ClassVar[tuple[str, ...]] = ("parquet", "objectstore")
    type: Literal["file"] = "file"
    """Files."""
    path: str | list[str] = Field(min_length=1)
    """A file, relative to the working folder; `-` is stdin; `s3://`, `gs://` and `az://` are objects in a store. A
    pattern (`in/*.csv.gz`, `**` for folders) is all that it matches, sorted by name, a folder is the parquet parts in
    it, and a list is one after the other. What ends in `.gz` or `.zst` is decompressed."""
    format: Literal["auto", "txt", "csv", "jsonl", "parquet"] = "auto"
    """`txt` has a URL a line, and `#` before comments; `auto` goes by the suffix, an unknown one is `txt`."""
    column: str = Field(default="url", min_length=1)
    """The csv or parquet column, or the jsonl field, that holds the URL. All others become `meta`."""
    delimiter: str | None = None
    """What separates the columns of a csv: one character; by default a comma, or a tab for `.tsv`."""
    key: str | None = None
    """The column or field to tell duplicates by: of rows with the same value one is fetched."""
    priority: str | None = None
    """The column or field that holds the priority, a whole number; higher goes first."""
    checksum: str | None = None
    """The column or field that holds what the body hashes to: sha256, sha1, md5 or sha512, as hexadecimal digits,
    with or without the name before them (``sha256:9f8...``). Another body is kind ``checksum_mismatch``."""
    job: JobTemplate | None = None
    """What job a row becomes, with places for its columns; with ``url`` no column of the URL is needed."""
    options: dict[str, Secret] = Field(default={})
    """How to reach an object store, by obstore's names (`endpoint`, `region`, `access_key_id`, `secret_access_key`);
    by default what the environment says (`AWS_ACCESS_KEY_ID` and so on)."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = {"\\t": "\t", "tab": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or value in '"\r\n\0'):
            raise ValueError("should be one character, and neither a quote nor a line end; a tab is written \\t")
        return value

    @field_validator("path")
    @classmethod
    def _usable(cls, value: str | list[str]) -> str | list[str]:
        for path in [value] if isinstance(value, str) else value:
            if not path:
                raise ValueError("has an empty path")
            if objects.is_object(path):
                objects.split(path)
        if isinstance(value, list) and "-" in value:
            raise ValueError("has stdin (-) among other files; give it a source of its own")
        return value

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        kinds = {self.kind(path) for path in self.paths}
        for name in (*_COLUMNS, "delimiter"):
            if name in self.model_fields_set and getattr(self, name) and all(name in _UNUSED[kind] for kind in kinds):
                kind, path = self.kind(self.paths[0]), self.name_of(self.paths[0])
                raise ValueError(f"{name} means nothing in {kind}; set format if {path} is something else")
        self._check_job(kinds)
        if self.options and not any(objects.is_object(path) for path in self.paths):
            raise ValueError("options means nothing here; it is for paths such as s3://bucket/urls.csv")
        for path in self.paths:
            if self.kind(path) == "parquet" and (path.endswith(PACKED) or path == "-"):
                raise ValueError(f"{self.name_of(path)} can not be read as parquet: it takes a file that is not packed")
        return self

    def _check_job(self, kinds: set[str]) -> None:
        """Raise ValueError for what ``job`` can not say of these kinds of files, or says twice."""
        if self.job is None:
            return
        if "txt" in kinds:
            check_static(self.job, "txt")
        for name, other in (("key", "key"), ("priority", "priority"), ("column", "url")):
            if name in self.model_fields_set and getattr(self.job, other) is not None:
                raise ValueError(f"has both {name} and job.{other}; leave one of them out")

    @property
    def paths(self) -> list[str]:
        """What is named, files and patterns."""
        return [self.path] if isinstance(self.path, str) else self.path

    def kind(self, path: str) -> str:
        """Return the format of a file, after a look at the suffix."""
        return _SUFFIXES.get(_suffix(path), "txt") if self.format == "auto" else self.format

    def separator(self, path: str) -> str:
        """Return the csv delimiter, after a look at the suffix."""
        return self.delimiter or ("\t" if _suffix(path) == ".tsv" else ",")

    @staticmethod
    def name_of(path: str) -> str:
        """Return what messages call a file."""
        return "stdin" if path == "-" else path

    def build(self) -> FileSource:
        """Return the source."""
        return FileSource(self)


def _suffix(path: str) -> str:
    return Path(unpacked(path)).suffix.lower()


def _columns(config: FileSourceConfig, name: str) -> Columns:
    named = (name, config.column, config.key, config.priority, config.checksum)
    return Columns(*named) if config.job is None else TemplatedColumns(*named, maker=RowMaker(config.job))


class _Files:
    """The files of a config, as they are now. ``several``: there may be more than one, now or later."""

    def __init__(self, config: FileSourceConfig) -> None:
        """Find them. Raises SourceError if a pattern matches none."""
        self._config = config
        self.several = not isinstance(config.path, str) or _is_pattern(config.path)
        # One that is named and matched as well is read once.
        self.paths = list(dict.fromkeys(path for named in config.paths for path in self._found(named)))

    def open(self, index: int, position: str | None, stopped: threading.Event) -> TextReading | ParquetReading:
        """Open one of them, at a position. Raises SourceError or MissingExtraError."""
        config, path = self._config, self.paths[index]
        name = config.name_of(path)
        columns = _columns(config, name)
        packed = config.kind(path) == "parquet"
        kept: LocalFile | objects.StoredObject
        if objects.is_object(path):
            kept = objects.StoredObject(path, config.options, ahead=0 if packed else None)
        else:
            kept = LocalFile(path, name)
        reading: TextReading | ParquetReading
        try:
            if packed:
                reading = ParquetReading(kept, columns)
            else:
                source = Input(kept, path, name, stopped)
                reading = TextReading(source, config.kind(path), columns, config.separator(path))
            reading.open(position)
        except BaseException:
            kept.close()
            raise
        return reading

    def names(self, count: int) -> int:
        """Return a checksum of the first so many names."""
        return zlib.crc32("\0".join(self.paths[:count]).encode(errors="surrogateescape"))

    def checked(self) -> Iterator[int]:
        """Yield those that are to be opened before the first fetch."""
        local = [index for index, path in enumerate(self.paths) if not objects.is_object(path)]
        stored = [index for index, path in enumerate(self.paths) if objects.is_object(path)]
        yield from local[:_MOST_CHECKED]
        yield from stored[:1]

    def _found(self, named: str) -> list[str]:
        if not _is_pattern(named):
            return _parts(named) or [named]
        if objects.is_object(named):
            found = objects.listed(named, self._config.options)
        else:
            found = [path for path in glob.glob(named, recursive=True) if not Path(path).is_dir()]  # noqa: PTH207
        if not found:
            advice = "" if objects.is_object(named) else f"; {path_advice()}"
            raise SourceError(f"{named}: matches no file{advice}")
        return sorted(found)


def _parts(path: str) -> list[str]:
    """Return the files of a folder of parquet parts, as the file sink writes it, partitioned or not."""
    if objects.is_object(path) or not Path(path).is_dir():
        return []
    found = [str(part) for part in Path(path).rglob("*.parquet") if part.is_file()]
    # What is not finished begins with an underscore.
    return sorted(part for part in found if not Path(part).name.startswith(("_", ".")))


def _is_pattern(path: str) -> bool:
    """Tell whether a path is a pattern, rather than a file whose name looks like one."""
    if objects.is_object(path):
        return objects.is_pattern(path)
    return glob.has_magic(path) and not Path(path).exists()


class Position(msgspec.Struct):
    """``at`` is within the file ``file``, counting from 1; ``names`` is a checksum of the names up to its own."""

    file: int
    names: int
    at: str


class _Reading:
    """One reading of all files. All but ``stopped`` belongs to one thread."""

    def __init__(self, config: FileSourceConfig) -> None:
        self._config = config
        self._index = 0
        self._current: TextReading | ParquetReading | None = None
        self.stopped = threading.Event()

    def open(self, position: str | None) -> None:
        self._files = _Files(self._config)
        if position is not None and self._files.several:
            found = self._checked(position)
            self._index, position = found.file - 1, found.at
        self._current = self._files.open(self._index, position, self.stopped)

    def chunk(self) -> Chunk | None:
        """Return what comes next, None at the end of the last file."""
        while self._current is not None:
            chunk = self._current.chunk()
            if chunk is not None:
                return self._of_several(chunk) if self._files.several else chunk
            self.close()
            self._index += 1
            if self._index < len(self._files.paths):
                self._current = self._files.open(self._index, None, self.stopped)
        return None

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    def _of_several(self, chunk: Chunk) -> Chunk:
        number = self._index + 1
        for job in chunk.jobs:
            job.id = f"{number}-{job.id}"
        position = Position(number, self._files.names(number), chunk.position)
        return Chunk(chunk.jobs, msgspec.json.encode(position).decode())

    def _checked(self, position: str) -> Position:
        files = self._files
        try:
            found = msgspec.json.decode(position, type=Position)
        except msgspec.DecodeError as error:
            raise SourceError(f"{position!r} is no position in several files: {error}") from error
        if not 0 < found.file <= len(files.paths) or files.names(found.file) != found.names:
            raise SourceError(
                f"{', '.join(self._config.paths)}: the batch stands in file number {found.file}, and the files up to "
                "it are not those of then; put them back (new ones may come after it, in the order of their names), or "
                "start over with a new batch"
            )
        return found


class FileSource:
    """Yields the rows of files, read in a thread of its own, so that no disk or pipe holds up the loop."""

    def __init__(self, config: FileSourceConfig) -> None:
        self._config = config

    def check(self) -> None:
        """Raise ConfigError if a file can not be opened, or its header can not be used. Reads no pipe."""
        if self._config.path == "-":
            if sys.stdin is None:
                raise ConfigError("stdin is closed; pipe the URLs in, or name a file")
            return
        try:
            files = _Files(self._config)
            for index in files.checked():
                # To open and close a pipe here would end its writer.
                if not _is_pipe(files.paths[index]):
                    files.open(index, None, threading.Event()).close()
        except SourceError as error:
            raise ConfigError(str(error)) from error

    def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        return read_in_thread(_Reading(self._config), position)


def _is_pipe(path: str) -> bool:
    if objects.is_object(path) or path.endswith(PACKED):
        return False
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False  # which the open will tell
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
