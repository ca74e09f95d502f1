"""What can be looked at of the batches of a service: views, lists, results."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from fetcher.errors import CursorError
from fetcher.service.batches import results as results_file
from fetcher.service.batches.workspace import RESULTS
from fetcher.service.models import ENDED, BatchPage, BatchView, Progress, State
from fetcher.service.observing.views import progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from fetcher.assembly import Batch
    from fetcher.service.batches.catalogue import Catalogue, Row
    from fetcher.service.batches.running import Run
    from fetcher.service.batches.workspace import Workspace

_MOST_LISTED = 1000
_LAST = 2**63 - 1


class Shelf:
    """The batches of a catalogue, and of those that are running how far they are.

    Methods that name a batch raise UnknownBatchError if there is none with that id. ``progress_of`` tells how far a
    batch is that is open, and may be replaced by what knows its rate.
    """

    def __init__(self, catalogue: Catalogue, workspace: Workspace) -> None:
        self._catalogue = catalogue
        self._workspace = workspace
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self.progress_of: Callable[[str, Batch], Progress] = lambda _, batch: progress(batch)

    @property
    def running(self) -> Mapping[str, Batch]:
        """The batches that are open, by id."""
        return MappingProxyType({run.id: run.batch for run in self._runs.values() if run.batch is not None})

    def get(self, batch_id: str) -> BatchView:
        """Return a batch."""
        return self._view(self._catalogue.get(batch_id))

    def find(self, batch_id: str) -> BatchView | None:
        """Return a batch, None if there is none with that id."""
        row = self._catalogue.find(batch_id)
        return None if row is None else self._view(row)

    def list(self, *, state: str | None = None, limit: int = 50, cursor: str | None = None) -> BatchPage:
        """Return the latest batches, and the cursor of those before them. Raises CursorError."""
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and int(cursor) <= _LAST):
            raise CursorError("the cursor is not one that a list of batches has given")
        limit = max(1, min(limit, _MOST_LISTED))
        rows = self._catalogue.page(state, limit + 1, None if cursor is None else int(cursor))
        more = str(rows[limit - 1].seq) if len(rows) > limit else None
        return BatchPage(batches=[self._view(row) for row in rows[:limit]], next=more)

    def shown(self, most: int) -> Sequence[BatchView]:
        """Return those that have not ended, and the latest of those that have."""
        rows = {row.id: row for row in self._catalogue.open_ones(most)}
        if len(rows) < most:
            rows |= {row.id: row for row in self._catalogue.page(None, most, None)}
        latest = sorted(rows.values(), key=lambda row: (State(row.state) in ENDED, -row.seq))
        return [self._view(row) for row in latest[:most]]

    def counts(self) -> dict[str, int]:
        """Return how many batches there are in each state."""
        return self._catalogue.counts()

    def text(self, batch_id: str) -> str:
        """Return the config of a batch as it was submitted. It may have secrets in it."""
        self._catalogue.get(batch_id)
        return self._workspace.text(batch_id)

    async def wait(self, batch_id: str) -> BatchView:
        """Return a batch once it has ended."""
        while (view := self.get(batch_id)).state not in ENDED:
            await self._ended.setdefault(batch_id, asyncio.Event()).wait()
        return view

    def results(
        self,
        batch_id: str,
        *,
        cursor: int = 0,
        outcome: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        end: int | None = None,
    ) -> AsyncIterator[tuple[bytes, int]]:
        """Yield (lines, cursor after them) of records that are acknowledged, up to ``end`` at most.

        The lines may be none, and then only the cursor goes on. Raises CursorError when it is asked for the first ones.
        """
        known = self.acknowledged(batch_id)
        until = known if end is None else min(end, known)
        return results_file.read(self._results(batch_id), cursor, until, results_file.Wanted(outcome, kind), limit)

    def acknowledged(self, batch_id: str) -> int:
        """Return up to which byte the records of a batch are acknowledged: no cursor is behind it."""
        before = self._catalogue.get(batch_id).results
        run = self._runs.get(batch_id)
        return before if run is None else max(before, run.acknowledged)

    def _tell(self, batch_id: str) -> None:
        """Wake who waits for the end of a batch; whoever finds that it has not ended waits again."""
        event = self._ended.pop(batch_id, None)
        if event is not None:
            event.set()

    def _results(self, batch_id: str) -> Path:
        return self._workspace.of(batch_id) / RESULTS

    def _view(self, row: Row) -> BatchView:
        # What has just ended is what the catalogue says.
        run = self._runs.get(row.id) if row.state == State.RUNNING else None
        reason = row.reason if run is None else run.reason
        return BatchView(
            id=row.id,
            name=row.name,
            state=State(row.state),
            reason=reason,
            origin=row.origin,
            retry_of=row.retry_of,
            priority=row.priority,
            weight=row.weight,
            created_at=_time(row.created_at),
            started_at=None if row.started_at is None else _time(row.started_at),
            finished_at=None if row.finished_at is None else _time(row.finished_at),
            exceeded=row.exceeded,
            progress=self._progress(row, None if run is None else run.batch),
        )

    def _progress(self, row: Row, batch: Batch | None) -> Progress:
        if batch is not None:
            return self.progress_of(row.id, batch)
        return Progress() if row.progress is None else Progress.model_validate_json(row.progress)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
