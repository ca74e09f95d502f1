"""From an answer to its next page, before the answer is delivered.

    workers -> [Follower] -> queue: the job of the next page
                          -> delivery -> sinks -> queue: this page is acknowledged

A page is not acknowledged before the job of the next one is in the queue, durably, under a key of its own. So wherever
the process ends, that job is there, or this page is fetched anew and leads to it again; if it was there already, it is
not put twice. What arrives while a put is under way goes into the next one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.interfaces import Lease
from fetcher.model import Outcome, Result
from fetcher.pipeline.batcher import Batcher
from fetcher.pipeline.weight import weight_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.interfaces import Queue
    from fetcher.model import Job
    from fetcher.pagination import Paginator
    from fetcher.pipeline.delivery import Delivery

_SIZE = 512
_SIZE_BYTES = 8 * 1024 * 1024
_LINGER = 0.002
LARGE = 64 * 1024
"""Bytes of bodies from which on to look at them would hold up everything else on the loop."""


class Page(msgspec.Struct):
    """An answer that may have a next page."""

    lease: Lease
    result: Result
    weight: int


def _weight(page: Page) -> int:
    return page.weight


class Follower:
    """Takes the results of jobs that ended well. ``on_followed`` is told how many jobs were added.

    ``full`` and ``room`` are those of the delivery, and its own.
    """

    def __init__(
        self, paginator: Paginator, queue: Queue, delivery: Delivery, on_followed: Callable[[int], None]
    ) -> None:
        self._paginator = paginator
        self._queue = queue
        self._delivery = delivery
        self._on_followed = on_followed
        self._batcher: Batcher[Page] = Batcher(size=_SIZE, size_bytes=_SIZE_BYTES, linger=_LINGER, weigh=_weight)

    @property
    def full(self) -> bool:
        """Tell whether workers should wait in ``room`` before they fetch more."""
        return self._batcher.full or self._delivery.full

    @property
    def is_behind(self) -> bool:
        """Tell whether it is the queue that they wait for, as it has not taken the jobs of next pages."""
        return self._batcher.full

    async def room(self) -> None:
        """Wait until the queue and the sinks have caught up."""
        await self._batcher.room()
        await self._delivery.room()

    def add(self, lease: Lease, result: Result) -> None:
        """Deliver one result, after the job that it leads to is in the queue. Never waits: see ``full``."""
        if self._paginator.concerns(lease.job):
            self._batcher.add(Page(lease, result, weight_of(result)))
        else:
            self._delivery.add(lease, result)

    async def run(self) -> None:
        """Follow until finished. Raises StateError, with nothing delivered whose next page is not in the queue."""
        while (pages := await self._batcher.next()) is not None:
            jobs = await self._jobs(pages)
            added = await self._queue.put(jobs, {}) if jobs else 0
            for page in pages:
                self._delivery.add(page.lease, page.result)
            self._on_followed(added)

    def finish(self) -> None:
        """Let ``run`` end once everything that was added is delivered."""
        self._batcher.close()

    async def _jobs(self, pages: Sequence[Page]) -> list[Job]:
        """Return the jobs of next pages, and have the records of these say that there are some."""
        if sum(self._paginator.weight(page.result) for page in pages) > LARGE:
            found = await asyncio.to_thread(self._look, pages)
        else:
            found = self._look(pages)
        return [job for job in found if job is not None]

    def _look(self, pages: Sequence[Page]) -> list[Job | None]:
        return [self._next(page.lease.job, page.result) for page in pages]

    def _next(self, job: Job, result: Result) -> Job | None:
        result.page = job.page
        try:
            following = self._paginator.following(job, result)
        except FetchError as error:
            kind, message = error.kind, error.message
        except Exception as error:  # noqa: BLE001  a fault of ours must cost one job, not the run
            kind, message = ErrorKind.INTERNAL, f"{type(error).__name__}: {error}"
        else:
            result.has_more = following.has_more
            return following.job
        result.outcome, result.error_kind, result.error_message = Outcome.FAILED, kind, message
        return None
