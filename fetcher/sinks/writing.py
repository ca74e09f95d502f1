"""What the sinks that write files share: a thread of their own, and appending all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from fetcher.errors import EXIT_RESUMABLE, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PAUSE = 1.0  # seconds between looks at whether there is room again
_T = TypeVar("_T")


class OwnThread:
    """One thread, on which a sink encodes and writes, so that the event loop does neither."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function there. Who cancels waits until it has returned: a file is not closed under a write."""
        call = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False)


def append(fd: int, path: Path, offset: int, data: bytes, *, synchronous: bool) -> int:
    """Write data at an offset and return the offset after it. Raises SinkError, and then nothing was appended."""
    view = memoryview(data)
    end = offset
    try:
        # At an offset of ours, wherever a batch that failed half way has left the file.
        while view:
            written = os.pwrite(fd, view, end)
            end += written
            view = view[written:]
        if synchronous:
            os.fsync(fd)
    except OSError as error:
        # What there is of the batch would be torn. A file can be cut on a full disk, too.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, offset)
        raise failure(path, error) from error
    return end


def failure(path: Path, error: OSError) -> SinkError:
    """Return what to raise for a write that failed. A disk may have room later; a limit of the process stays."""
    if error.errno not in _NO_ROOM | {errno.EFBIG}:
        return SinkError(f"{path}: {error.strerror or error}")
    message = f"{path}: {error.strerror}; free some space and run again to resume"
    if error.errno == errno.EFBIG:
        return SinkError(message, exit_code=EXIT_RESUMABLE)
    return SinkError(message, retryable=True, pause=_PAUSE)
