"""A sink that writes each record to a file of its own."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fetcher.errors import ConfigError, SinkError
from fetcher.formats.jsonl import JsonlFormat
from fetcher.sink_settings import SinkSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Result


class FolderConfig(SinkSettings):
    """A JSON file for each record, named after its job."""

    type: Literal["folder"] = "folder"
    path: str
    """The folder; it is created."""

    def build(self) -> FolderSink:
        """Return the sink, not yet open."""
        return FolderSink(Path(self.path))


class FolderSink:
    """Writes whole files by atomic rename. A record that comes again replaces itself, so that no marks are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._format = JsonlFormat()

    async def check(self, mark: str | None, *, resume: bool) -> None:  # noqa: ARG002  nothing here depends on them
        """Create the folder. Raises ConfigError if it can not be."""
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._folder}: {error.strerror}; choose another path") from error

    async def discard(self, mark: str) -> None:
        """Do nothing: without marks, nobody asks."""

    async def open(self, mark: str | None) -> None:
        """Do nothing: a folder is not held open."""

    async def write(self, results: Sequence[Result]) -> None:
        """Write a file for each record. A full disk may have room later, which is why it is tried again."""
        try:
            await asyncio.to_thread(self._write, results)
        except OSError as error:
            raise SinkError(f"{self._folder}: {error.strerror}", retryable=True) from error

    async def close(self) -> None:
        """Do nothing: every write is complete."""

    def _write(self, results: Sequence[Result]) -> None:
        for result in results:
            name = hashlib.sha256(result.job_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            partial = self._folder / f".{name}.partial"
            partial.write_bytes(self._format.encode([result]))
            partial.replace(self._folder / f"{name}.json")
