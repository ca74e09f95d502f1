"""From results to sinks to acknowledgements, in that order and in batches.

A job is acknowledged only after every sink has its record durably, and the marks of the sinks are committed with
the acknowledgement. So whatever moment the process ends at, a record that counts is acknowledged, and one that is
not acknowledged is cut off again before the job is fetched anew.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from fetcher.interfaces import Ack, Lease
from fetcher.model import Result
from fetcher.pipeline.batcher import Batcher
from fetcher.pipeline.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.interfaces import Queue, Sink

BATCH_SIZE = 512
BATCH_BYTES = 8 * 1024 * 1024
LINGER = 0.1
TALLY_MARK = "tally"


class Delivered(msgspec.Struct):
    """A result and the lease that it settles."""

    lease: Lease
    result: Result


def _weight(item: Delivered) -> int:
    return len(item.result.body) if item.result.body is not None else 0


def _unless_failed(mark: str | BaseException | None) -> str | None:
    if isinstance(mark, BaseException):
        raise mark
    return mark


class Delivery:
    """Takes results from workers and sees them through. ``on_settled`` is told which leases have ended.

    ``writing`` names the sinks that are at work on a batch.
    """

    def __init__(
        self, queue: Queue, sinks: Mapping[str, Sink], on_settled: Callable[[Sequence[Lease], int], None]
    ) -> None:
        self._queue = queue
        self._sinks = sinks
        self._on_settled = on_settled
        self._batcher: Batcher[Delivered] = Batcher(
            size=BATCH_SIZE, size_bytes=BATCH_BYTES, linger=LINGER, weigh=_weight
        )
        self.tally = Tally()
        self.writing: set[str] = set()
        self._earlier = 0.0
        self._started = 0.0

    @property
    def full(self) -> bool:
        """Tell whether workers should wait in ``room`` before they fetch more."""
        return self._batcher.full

    async def room(self) -> None:
        """Wait until the sinks have caught up."""
        await self._batcher.room()

    def add(self, lease: Lease, result: Result) -> None:
        """Deliver one result. Never waits: see ``full``."""
        self._batcher.add(Delivered(lease, result))

    async def open(self, marks: Mapping[str, str]) -> None:
        """Open every sink at the mark up to which its records are acknowledged."""
        self.tally = Tally.load(marks.get(TALLY_MARK))
        self._earlier = self.tally.elapsed
        begun = {}
        for name, sink in self._sinks.items():
            mark = await sink.open(marks.get(name))
            if mark is not None and mark != marks.get(name):
                begun[name] = mark
        # Before the first record: what is written and not acknowledged at a crash has to be known as ours.
        if begun:
            await self._queue.ack([], begun)

    async def run(self) -> None:
        """Deliver until closed. Raises SinkError or StateError, with nothing acknowledged that is not durable."""
        self._started = asyncio.get_running_loop().time()
        while (batch := await self._batcher.next()) is not None:
            results = [item.result for item in batch]
            marks = await self._write(results)
            self.tally.add(results)
            self.tally.elapsed = self._earlier + asyncio.get_running_loop().time() - self._started
            marks[TALLY_MARK] = self.tally.dump()
            leases = [item.lease for item in batch]
            acks = [Ack(item.lease, item.result.outcome) for item in batch]
            refused = await self._queue.ack(acks, marks)
            self._on_settled(leases, len(leases) - refused)

    async def _write(self, results: Sequence[Result]) -> dict[str, str]:
        # All of them have ended before a failure is raised: nobody may close a sink that is still writing.
        marks = await asyncio.gather(
            *(self._write_to(name, results) for name in self._sinks), return_exceptions=len(self._sinks) > 1
        )
        written = {name: _unless_failed(mark) for name, mark in zip(self._sinks, marks, strict=True)}
        return {name: mark for name, mark in written.items() if mark is not None}

    async def _write_to(self, name: str, results: Sequence[Result]) -> str | None:
        self.writing.add(name)
        try:
            return await self._sinks[name].write(results)
        finally:
            self.writing.discard(name)

    def hurry(self) -> None:
        """Deliver what there is at once: nothing else is under way."""
        self._batcher.hurry()

    def finish(self) -> None:
        """Let ``run`` end once everything that was added is delivered."""
        self._batcher.close()

    async def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks.values():
            await sink.close()
