"""Some jobs of a source, and not the others: what a retry of a batch takes of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fetcher.interfaces import Chunk, Source


class ChosenSource:
    """Reads another source, and passes on the jobs whose id ``is_wanted``."""

    def __init__(self, source: Source, is_wanted: Callable[[str], bool]) -> None:
        self._source = source
        self._is_wanted = is_wanted

    def check(self) -> None:
        """Check the other source."""
        self._source.check()

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks that have wanted jobs. What is read again after the position of the last is not wanted."""
        async with aclosing(self._source.read(position)) as chunks:
            async for chunk in chunks:
                chunk.jobs = [job for job in chunk.jobs if self._is_wanted(job.id)]
                if chunk.jobs:
                    yield chunk
                else:
                    # A source may read for long without ever waiting; others have to go on meanwhile.
                    await asyncio.sleep(0)
