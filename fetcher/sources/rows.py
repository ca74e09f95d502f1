"""From a row of named values to a job: what csv, jsonl and parquet files have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import RowError, check_checksum, check_priority, make_job, rejected_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fetcher.model import Job

_SHOWN = 500  # bytes of a rejected row
CHUNK_BYTES = 1024 * 1024
"""About how many bytes of rows are held at a time, however many rows they are."""
MAX_ROW = 1024 * 1024
"""The most bytes of a row; one that has more is rejected."""
TOO_LONG = f"longer than {MAX_ROW} bytes"


class Columns(msgspec.Struct):
    """Which columns are what; all but the one of the URL are ``meta``. ``name`` is what messages call the input."""

    name: str
    url: str
    key: str | None = None
    priority: str | None = None
    checksum: str | None = None

    @property
    def bare(self) -> Callable[[str, str], Job]:
        """What makes the job of a row that is nothing but a URL."""
        return make_job

    def named(self) -> list[str]:
        """Return the columns that have to be there."""
        return [name for name in (self.url, self.key, self.priority, self.checksum) if name is not None]

    def job(self, number: str, fields: dict[str, Any]) -> Job:
        """Make the job of a row; ``fields`` becomes its ``meta``. One that can not be used is a rejected job."""
        given = {name: fields.get(name) for name in self.named()[1:]}
        url = fields.pop(self.url, None)
        meta = fields or None
        if not isinstance(url, str):
            why = f"has no {self.url!r}; it has {', '.join(fields) or 'nothing'}"
            return self.reject(number, b"", why if url is None else f"{self.url!r} is not text", meta)
        job = make_job(number, url.strip(), meta)
        try:
            self._fill(job, given)
        except RowError as error:
            return self.reject(number, url.encode(errors="backslashreplace"), str(error), meta)
        return job

    def reject(self, number: str, raw: bytes, why: str, meta: dict[str, Any] | None = None) -> Job:
        """Make the job of a row that is no job. ``raw`` is shown; its start is enough."""
        shown = raw[:_SHOWN].decode("utf-8", "backslashreplace")
        message = f"{self.name}:{number}: {why}"
        return rejected_job(number, shown, RowError(ErrorKind.INVALID_ROW, message), meta)

    def _fill(self, job: Job, given: Mapping[str, Any]) -> None:
        """Put into a job what other columns say of it; empty ones say nothing."""
        if self.priority is not None and given[self.priority] not in (None, ""):
            job.priority = priority_of(given[self.priority])
        if self.checksum is not None and given[self.checksum] not in (None, ""):
            job.checksum = check_checksum(given[self.checksum])
        if self.key is not None and given[self.key] not in (None, ""):
            job.key = _key(self.key, given[self.key])


def priority_of(value: object) -> int:
    """Return a priority, which may be written as text. Raises RowError for what is none."""
    try:
        return check_priority(int(value) if isinstance(value, str) else value)
    except ValueError:
        raise RowError(ErrorKind.INVALID_ROW, f"priority {value!r} is not a whole number") from None


def _key(name: str, value: object) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise RowError(ErrorKind.INVALID_ROW, f"key {name!r} is neither text nor a whole number")
    return str(value)
