"""From sources to the queue: reads as a stream, a bounded distance ahead, and commits positions with jobs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import SourceError
from fetcher.interfaces import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.interfaces import Queue, Source
    from fetcher.model import Job

# Chunks that are put together in one transaction when the queue is slower than the source.
_MOST_PENDING = 8


_Read = Chunk | SourceError | None  # the last is what a source ends with


class SourceMark(msgspec.Struct):
    """Up to where a source has been put into the queue."""

    position: str | None = None
    done: bool = False


class Feeder:
    """Reads every source once, side by side. ``failures``: why some could not be read to their end.

    ``on_put`` is told of every put: jobs read, and jobs added. ``begin`` is called with each job before that.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        queue: Queue,
        *,
        dedupe: bool,
        on_put: Callable[[int, int], None],
        begin: Callable[[Job], None] | None = None,
    ) -> None:
        self._sources = sources
        self._queue = queue
        self._dedupe = dedupe
        self._on_put = on_put
        self._begin = begin
        self._room = asyncio.Event()
        self._room.set()
        self.failures: list[SourceError] = []

    def set_backlog(self, unfinished: int) -> None:
        """Pause reading while the queue holds as many jobs as it can with ease."""
        if unfinished < self._queue.capacity:
            self._room.set()
        else:
            self._room.clear()

    async def run(self, marks: Mapping[str, str]) -> None:
        """Put everything that the sources have after ``marks``. Raises SourceError or StateError."""
        async with asyncio.TaskGroup() as group:
            for index, source in enumerate(self._sources):
                stored = marks.get(f"source:{index}")
                mark = msgspec.json.decode(stored, type=SourceMark) if stored else SourceMark()
                if not mark.done:
                    group.create_task(self._feed(index, source, mark.position), name=f"source {index}")

    async def _feed(self, index: int, source: Source, position: str | None) -> None:
        read: asyncio.Queue[_Read] = asyncio.Queue(_MOST_PENDING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(source, position, read), name=f"read {index}")
            end: _Read = None
            ended = False
            while not ended:
                # Everything that was read while the last put was under way goes into one.
                items = [await read.get()]
                while not read.empty():
                    items.append(read.get_nowait())
                end = items[-1]
                ended = not isinstance(end, Chunk)
                if chunks := [item for item in items if isinstance(item, Chunk)]:
                    await self._put(index, chunks)
        if isinstance(end, SourceError):
            # It must not keep the other sources from their end, nor this one from going on when it is mended.
            self.failures.append(end)
        else:
            await self._queue.put([], {f"source:{index}": _mark(SourceMark(done=True))})

    async def _read(self, source: Source, position: str | None, read: asyncio.Queue[_Read]) -> None:
        end: SourceError | None = None
        try:
            async with aclosing(source.read(position)) as chunks:
                async for chunk in chunks:
                    await read.put(chunk)
                    await self._room.wait()
        except SourceError as error:
            end = error
        await read.put(end)

    async def _put(self, index: int, chunks: Sequence[Chunk]) -> None:
        jobs = [job for chunk in chunks for job in chunk.jobs]
        for job in jobs:
            job.id = id_in_batch(index, job.id)
            if self._begin is not None:
                self._begin(job)
            if job.rejected is not None:
                job.key = None
            elif self._dedupe and job.key is None:
                job.key = _default_key(job)
        mark = SourceMark(position=chunks[-1].position)
        added = await self._queue.put(jobs, {f"source:{index}": _mark(mark)})
        self._on_put(len(jobs), added)


def id_in_batch(source: int, row: str) -> str:
    """Return the id that a job has in its batch: that of its row, which its source gave it, after the source's."""
    return f"{source}-{row}"


def _mark(mark: SourceMark) -> str:
    return msgspec.json.encode(mark).decode()


def _default_key(job: Job) -> str:
    """Two jobs are the same if they ask the same: method, URL and body, and wait for the same end of the answer."""
    if job.method is None and job.body is None and job.parts is None and job.receive is None:
        return job.url
    same = f"{job.method or ''} {job.url} {job.body!r}"
    if job.parts is None and job.receive is None:
        return same
    return f"{same} {msgspec.json.encode((job.parts, job.receive)).decode()}"
