"""Sources that block while they read: in a thread of their own, which ends when the reading does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncGenerator, Coroutine

    from fetcher.interfaces import Chunk

_T = TypeVar("_T")
NAME = "fetcher-source"


class Reading(Protocol):
    """What is read. All but ``stopped`` is called in one thread."""

    stopped: threading.Event
    """Set when nobody waits for it any more: what blocks has to give up soon."""

    def open(self, position: str | None) -> None:
        """Begin just after a position, or at the start."""
        ...

    def chunk(self) -> Chunk | None:
        """Return what comes next, None at the end."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


async def read_in_thread(reading: Reading, position: str | None) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a reading that have jobs."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, thread_name_prefix=NAME)
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


def run_beside(coroutine: Coroutine[None, None, _T]) -> _T:
    """Run a coroutine in a loop and thread of its own, and return its result: for ``check``, which can not await."""
    with ThreadPoolExecutor(1, thread_name_prefix=NAME) as executor:
        return executor.submit(asyncio.run, coroutine).result()
