"""Standard output, for pipes."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fetcher.errors import SinkError
from fetcher.registry import Part
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result


class StdoutConfig(Settings):
    """Records written to standard output.

    What a pipe has taken can not be taken back: after a crash the last batch may be written again.
    """

    type: Literal["stdout"] = "stdout"
    format: Annotated[Settings, Part("formats")] = Field(default="jsonl", validate_default=True)

    def build(self) -> StdoutSink:
        """Return the sink."""
        form: Any = self.format
        return StdoutSink(form.build())


class StdoutSink:
    """Writes on a thread of its own, so that a slow reader holds up nothing but its own results."""

    def __init__(self, form: Format, fd: int | None = None) -> None:
        self._format = form
        self._fd = fd
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="stdout sink")

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Do nothing: there is nothing to be overwritten."""

    async def discard(self, mark: str) -> None:
        """Do nothing: what a pipe has taken is gone."""

    async def open(self, mark: str | None) -> None:
        """Write what the format begins with."""
        if self._fd is None:
            self._fd = sys.stdout.fileno()
        if mark is None:
            await self._write(self._format.begin())

    async def write(self, results: Sequence[Result]) -> None:
        """Write results; return once the reader's pipe has taken them."""
        await self._write(self._format.encode(results))

    async def close(self) -> None:
        """Leave standard output open: it is not ours."""
        self._executor.shutdown(wait=False)

    async def _write(self, data: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._write_all, data)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        fd = 1 if self._fd is None else self._fd
        try:
            while view:
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:  # whoever shares the pipe or the terminal with us has made it so
                    select.select([], [fd], [])
        except BrokenPipeError as error:
            raise SinkError("standard output was closed by its reader") from error
        except OSError as error:
            raise SinkError(f"standard output: {error.strerror}") from error
