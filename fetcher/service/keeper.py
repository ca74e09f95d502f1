"""The life of batches: from being submitted to being forgotten.

    submit -> queued -> running -> done | failed | cancelled -> deleted
                          |  ^
                          v  |
                         paused

What is not in memory alone survives the process: the catalogue says which batches there are and in which state, and
each batch has its queue, by which it goes on after a crash as after a pause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fetcher.service.models import BatchPage, BatchView, Origin
    from fetcher.service.settings import ServiceConfig


class Keeper:
    """Keeps the batches of a service. All methods are called on the loop.

    Methods that name a batch raise UnknownBatchError if there is none with that id, and BatchStateError if its state
    does not allow what is asked for.
    """

    def __init__(self, config: ServiceConfig) -> None:
        raise NotImplementedError

    async def open(self) -> None:
        """Open the catalogue, take the lock of the state folder, and let batches go on that had not ended."""

    async def close(self, within: float) -> bool:
        """Drain all batches, and return whether nothing is left to be resumed."""

    async def submit(
        self, text: str, name: str, origin: Origin, *, upload: Path | None = None, batch_id: str | None = None
    ) -> BatchView:
        """Take a batch: the ``text`` of its config, which messages call ``name``, and perhaps a file of URLs.

        Returns once it is durable. Given the ``batch_id`` of a batch that there is already, that one is returned, so that a
        submission may be repeated. The upload is moved into the folder of the batch. Raises ConfigProblems.
        """

    def get(self, batch_id: str) -> BatchView: ...

    def list(self, *, state: str | None = None, limit: int = 50, cursor: str | None = None) -> BatchPage: ...

    async def pause(self, batch_id: str) -> BatchView: ...

    async def resume(self, batch_id: str) -> BatchView: ...

    async def cancel(self, batch_id: str) -> BatchView: ...

    async def retry(self, batch_id: str) -> BatchView: ...

    async def delete(self, batch_id: str) -> None: ...

    def results(
        self, batch_id: str, *, cursor: int, outcome: str | None, kind: str | None, limit: int | None
    ) -> AsyncIterator[tuple[bytes, int]]:
        """Yield (lines, cursor after them) of records that are acknowledged."""
