"""Standard output, for pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import SinkError
from fetcher.registry import Part
from fetcher.settings import Settings
from fetcher.sink_settings import SinkSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

_PATIENCE = 0.2  # seconds between looks at whether it has been given up


class StdoutConfig(SinkSettings):
    """Records written to standard output.

    What a pipe has taken can not be taken back: after a crash the last batch may be written again.
    """

    type: Literal["stdout"] = "stdout"
    format: Annotated[Settings, Part("formats")] = Field(default="jsonl", validate_default=True)

    @field_validator("format")
    @classmethod
    def _streams(cls, value: Any) -> Any:
        if not getattr(value, "streams", True):
            message = f"{value.type} is written in whole files, which a pipe can not take; use a file sink"
            raise PydanticCustomError("stream", "{message}", {"message": message})
        return value

    def build(self) -> StdoutSink:
        """Return the sink."""
        form: Any = self.format
        return StdoutSink(form.build())


class StdoutSink:
    """Writes on a thread of its own, so that a slow reader holds up nothing but its own results."""

    def __init__(self, form: Format, fd: int | None = None) -> None:
        self._format = form
        self._fd = fd
        self._closed = threading.Event()
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
            await self._write(self._format.begin)

    async def write(self, results: Sequence[Result]) -> None:
        """Write results; return once the reader's pipe has taken them."""
        await self._write(self._format.encode, results)

    async def close(self) -> None:
        """Leave standard output open: it is not ours."""
        self._closed.set()
        self._executor.shutdown(wait=False)

    async def _write(self, encode: Callable[..., bytes], *args: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._write_all, encode, *args)

    def _write_all(self, encode: Callable[..., bytes], *args: Any) -> None:
        view = memoryview(encode(*args))
        fd = 1 if self._fd is None else self._fd
        try:
            while view:
                # A reader that does not read must not hold this thread, and with it the process, for ever. What is
                # writable takes this much without blocking (POSIX, PIPE_BUF).
                if self._closed.is_set():
                    raise SinkError("standard output was given up: its reader does not read")
                if select.select([], [fd], [], _PATIENCE)[1]:
                    with contextlib.suppress(BlockingIOError):
                        view = view[os.write(fd, view[: select.PIPE_BUF]) :]
        except BrokenPipeError as error:
            raise SinkError("standard output was closed by its reader") from error
        except OSError as error:
            raise SinkError(f"standard output: {error.strerror}") from error
