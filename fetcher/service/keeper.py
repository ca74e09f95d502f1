"""The life of batches: from being submitted to being forgotten.

    submit -> queued -> running -> done | failed | cancelled -> deleted
                          |  ^
                          v  |
                         paused

What is not in memory alone survives the process: the catalogue says which batches there are and in which state, and
each batch has its queue, by which it goes on after a crash as after a pause. In memory are those that are running.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from fetcher.errors import BatchStateError, StateBusyError, StateError, UnknownBatchError
from fetcher.service.batches.catalogue import Catalogue, Row
from fetcher.service.batches.identity import check_id
from fetcher.service.batches.locks import Locks
from fetcher.service.batches.preparation import Preparation
from fetcher.service.batches.running import End, Run, within
from fetcher.service.batches.shelf import Shelf
from fetcher.service.batches.workspace import Workspace
from fetcher.service.models import ENDED, BatchView, Progress, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from fetcher.assembly import Batch, Shared
    from fetcher.service.models import Origin
    from fetcher.service.settings import ServiceConfig

_STOPPED = frozenset({State.RUNNING, State.PAUSED, State.QUEUED, State.CANCELLED})
_SWEEP = 3600.0
_CUT = 3.0  # seconds that batches which are cut off have to close what they have open
_PAUSE = 1.0  # seconds between two tries to write to a disk that is full
_MOST_SWEPT = 1000
_LONGEST_REASON = 2000
_LONGEST_TURN = 10.0


class Keeper(Shelf):
    """Keeps the batches of a service. All methods are called on the loop.

    Methods that name a batch raise UnknownBatchError if there is none with that id, and BatchStateError if its state
    does not allow what is asked for. ``shared`` is what its batches have in common. ``on_open`` is told of each that
    was opened; it may be replaced.
    """

    def __init__(
        self, config: ServiceConfig, shared: Shared | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        folder = Path(config.service.state_dir)
        super().__init__(Catalogue(folder), Workspace(folder))
        self._settings = config.service
        self._clock = clock
        self._preparation = Preparation(config, self._workspace, shared, clock)
        self._locks = Locks()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._stopped: asyncio.Future[None] | None = None
        self._dispatcher: asyncio.Task[None] | None = None
        self._draining = False
        self._is_done: bool | None = None
        self.on_open: Callable[[Batch], None] = lambda _: None

    # The keeper itself

    async def open(self) -> None:
        """Open the catalogue, take the lock of the state folder, and let batches go on that had not ended.

        Raises StateBusyError if another service has the folder, StateError if it can not be used.
        """
        self._stopped = asyncio.get_running_loop().create_future()
        await self._catalogue.open()
        try:
            await self._catalogue.take_up()
            known = await self._catalogue.ids()
            for name in await asyncio.to_thread(self._workspace.sweep, known):
                structlog.get_logger().info("batch_forgotten", batch=name, reason="its submission was broken off")
        except BaseException:
            await self._catalogue.close()
            raise
        self._look.set()
        self._dispatcher = self._start(self._dispatch(), "dispatcher")
        self._start(self._expire(), "retention")

    async def supervise(self) -> None:
        """Wait until the keeper is closed. Raises what has ended one of its tasks, which is a fault."""
        if self._stopped is not None:
            await asyncio.shield(self._stopped)

    def reconfigure(self, config: ServiceConfig) -> None:
        """Keep to another config from now on, as far as it can change: what may run, what may be submitted.

        What the batches share is told by whom it belongs to, before.
        """
        self._settings = config.service
        self._preparation.reconfigure(config)
        for batch in self.running.values():
            batch.reconfigure()
        self._look.set()

    async def drain(self, seconds: float) -> None:
        """Take no more batches, and let those that run end what is in flight, or cut them off when time is up.

        They can be resumed. What can be looked at can still be.
        """
        self._draining = True
        if self._dispatcher is not None:
            # What it was about to begin stays in the catalogue as running, which it will be after a restart.
            self._dispatcher.cancel()
            await asyncio.wait([self._dispatcher])
        runs = list(self._runs.values())
        for run in runs:
            run.stop()
        if await within(seconds, *(run.ended for run in runs)):
            return
        late = [run for run in runs if not run.ended.is_set()]
        structlog.get_logger().warning("batches_late", batches=[run.id for run in late])
        for run in late:
            run.cut()
        await within(_CUT, *(run.ended for run in late))

    async def close(self, seconds: float = 0.0) -> bool:
        """Drain all batches, and return whether nothing is left to be resumed. May be called twice."""
        if self._is_done is not None:
            return self._is_done
        await self.drain(seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        counts = self._catalogue.counts()
        await self._catalogue.close()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)
        self._is_done = not counts[State.QUEUED] and not counts[State.RUNNING]
        return self._is_done

    # Submitting

    async def submit(
        self, text: str, name: str, origin: Origin, *, upload: Path | None = None, batch_id: str | None = None
    ) -> BatchView:
        """Take a batch: the ``text`` of its config, which messages call ``name``, and perhaps a file of URLs.

        Returns once it is durable. Given the ``batch_id`` of a batch that there is already, that one is returned, so
        that a submission may be repeated; the upload is left where it is then. Else it is moved into the folder of the
        batch: what it ends in says what it is, and a source whose path is ``upload`` means it. Raises ConfigProblems
        with all that is wrong, StateBusyError if the service is about to end.
        """
        if batch_id is not None:
            check_id(batch_id)
        if self._draining:
            raise StateBusyError("the service is about to end; submit this again when it is back")
        async with self._locks.hold(batch_id) if batch_id is not None else contextlib.nullcontext():
            if batch_id is not None and (known := self._catalogue.find(batch_id)) is not None:
                return self._view(known)
            row = await self._preparation.new(text, name, origin, upload=upload, batch_id=batch_id)
            view = await self._enter(row)
            # Not before: if this is broken off, whoever has the file still has it.
            if upload is not None:
                await asyncio.to_thread(upload.unlink, missing_ok=True)
            return view

    async def _enter(self, row: Row) -> BatchView:
        try:
            await self._catalogue.insert(row)
        except StateError:
            await asyncio.to_thread(self._workspace.remove, row.id)
            raise
        structlog.get_logger().info("batch_submitted", batch=row.id, origin=row.origin, priority=row.priority)
        self._look.set()
        return self.get(row.id)

    # Acting

    @asynccontextmanager
    async def _turn(self, batch_id: str) -> AsyncIterator[None]:
        """Let one thing at a time be done to a batch. Raises StateBusyError if what is being done does not end."""
        try:
            async with self._locks.hold(batch_id, _LONGEST_TURN):
                yield
        except TimeoutError:
            message = f"batch {batch_id} is being worked on, which does not end; is the disk of the service full?"
            raise StateBusyError(message) from None

    def _lasting(self, row: Row) -> Run | None:
        """Return the run of a batch, None if it does not run. Raises BatchStateError if it is being cancelled."""
        run = self._runs.get(row.id)
        if run is not None and run.wanted is State.CANCELLED:
            raise _refusal(row, "is being cancelled", "it can be retried when it is")
        return run

    async def pause(self, batch_id: str) -> BatchView:
        """Let a batch end what is in flight and then wait for ``resume``. Until then it is ``running``: "pausing"."""
        async with self._turn(batch_id):
            row = self._catalogue.get(batch_id)
            run = self._lasting(row)
            if run is not None:
                run.pause()
            elif row.state == State.QUEUED:
                await self._change(batch_id, "batch_paused", state=State.PAUSED.value)
            elif row.state != State.PAUSED:
                raise _refusal(row, f"is {row.state}", "what has ended can not be paused")
            return self.get(batch_id)

    async def resume(self, batch_id: str) -> BatchView:
        """Let a batch that is paused go on."""
        async with self._turn(batch_id):
            row = self._catalogue.get(batch_id)
            run = self._lasting(row)
            if run is not None:
                if run.wanted is State.PAUSED:
                    run.go_on()
            elif row.state == State.PAUSED:
                await self._change(batch_id, "batch_resumed", state=State.QUEUED.value, reason=None)
            elif row.state != State.QUEUED:
                raise _refusal(row, f"is {row.state}", "retry it")
            return self.get(batch_id)

    async def cancel(self, batch_id: str) -> BatchView:
        """End a batch: what is in flight is cut off after a moment. Its results stay, and retry goes on with it."""
        async with self._turn(batch_id):
            row = self._catalogue.get(batch_id)
            run = self._runs.get(batch_id)
            if run is not None:
                run.cancel()
            elif State(row.state) not in ENDED:
                await self._change(
                    batch_id, "batch_cancelled", state=State.CANCELLED.value, reason=None, finished_at=self._clock()
                )
            elif row.state != State.CANCELLED:
                raise _refusal(row, f"is {row.state}", "what has ended can not be cancelled")
            return self.get(batch_id)

    async def retry(self, batch_id: str) -> BatchView:
        """Go on with a batch that failed or was cancelled; of one that is done, fetch again what has failed.

        The latter is another batch, which is returned.
        """
        async with self._turn(batch_id):
            row = self._catalogue.get(batch_id)
            if row.state == State.DONE:
                return await self._enter(await self._preparation.of_failed(row))
            if row.state not in {State.FAILED, State.CANCELLED} or batch_id in self._runs:
                raise _refusal(row, f"is {row.state}", "what has not ended can not be retried")
            await self._change(
                batch_id, "batch_retried", state=State.QUEUED.value, reason=None, finished_at=None, exceeded=False
            )
            return self.get(batch_id)

    async def delete(self, batch_id: str) -> None:
        """Forget a batch that has ended, and delete its results."""
        async with self._turn(batch_id):
            row = self._catalogue.get(batch_id)
            if State(row.state) not in ENDED or batch_id in self._runs:
                raise _refusal(row, f"is {row.state}", "cancel it first")
            await self._delete(batch_id)

    async def _delete(self, batch_id: str) -> None:
        # The row first: a folder that no row knows is removed at the next start.
        await self._catalogue.remove(batch_id)
        await asyncio.to_thread(self._workspace.remove, batch_id)
        structlog.get_logger().info("batch_deleted", batch=batch_id)
        self._tell(batch_id)

    async def _change(self, batch_id: str, event: str, **changes: Any) -> None:
        await self._catalogue.update(batch_id, **changes)
        structlog.get_logger().info(event, batch=batch_id)
        self._tell(batch_id)
        self._look.set()

    # Running

    async def _dispatch(self) -> None:
        """Start batches while fewer are running than may."""
        while True:
            await self._look.wait()
            self._look.clear()
            room = self._settings.running - len(self._runs)
            if room <= 0 or self._draining:
                continue
            try:
                for row in self._catalogue.waiting(room):
                    await self._begin(row.id)
            except StateError as error:
                structlog.get_logger().warning("catalogue_refuses", reason=str(error))
                await asyncio.sleep(_PAUSE)
                self._look.set()

    async def _begin(self, batch_id: str) -> None:
        async with self._locks.hold(batch_id):
            row = self._catalogue.find(batch_id)
            if row is None or row.state != State.QUEUED or batch_id in self._runs or self._draining:
                return
            started_at = row.started_at or self._clock()
            await self._catalogue.update(batch_id, state=State.RUNNING.value, started_at=started_at, reason=None)
            run = self._runs[batch_id] = Run(batch_id, partial(self._preparation.batch, row), self._opened)
        structlog.get_logger().info("batch_started", batch=batch_id, resumed=row.started_at is not None)
        self._start(self._run(run), f"batch {batch_id}")

    def _opened(self, batch: Batch) -> None:
        self.on_open(batch)

    async def _run(self, run: Run) -> None:
        try:
            end = await run.to_end()
            async with self._locks.hold(run.id):
                try:
                    await self._settle(run, end)
                finally:
                    # With the lock: who has it next has to find it running or not, and nothing in between.
                    del self._runs[run.id]
        finally:
            self._runs.pop(run.id, None)
            run.ended.set()
            self._look.set()

    async def _settle(self, run: Run, end: End) -> None:
        """Note how a run has ended."""
        if end.state in _STOPPED and run.wanted is not None:
            # Somebody has thought better of it since.
            end = End(run.wanted)
        changes: dict[str, Any] = {
            "state": end.state.value,
            "reason": end.reason and end.reason[:_LONGEST_REASON],
            "exceeded": end.exceeded,
            "begun": False,
            "finished_at": self._clock() if end.state in ENDED else None,
        }
        found = None
        if run.batch is not None:
            found = self.progress_of(run.id, run.batch).model_copy(update={"in_flight": 0, "rate": 0.0, "eta": None})
            changes |= {"results": run.acknowledged, "progress": found.model_dump_json()}
        if not await self._note(run.id, changes):
            return
        if end.state is State.DONE:
            await asyncio.to_thread(self._workspace.forget_queue, run.id)
        self._log_end(run.id, end, found)
        self._tell(run.id)

    async def _note(self, batch_id: str, changes: dict[str, Any]) -> bool:
        """Write what has become of a batch as soon as that can be; return whether it could before the service ends.

        If not, the batch is opened again at the next start, and found to have ended.
        """
        while True:
            try:
                await self._catalogue.update(batch_id, **changes)
            except StateError as error:
                structlog.get_logger().warning("catalogue_refuses", batch=batch_id, reason=str(error))
                if self._draining:
                    return False
                await asyncio.sleep(_PAUSE)
            else:
                return True

    def _log_end(self, batch_id: str, end: End, found: Progress | None) -> None:
        event = "batch_finished" if end.state in ENDED else "batch_stopped"
        outcomes = {} if found is None else {str(name): count for name, count in found.outcomes.items()}
        structlog.get_logger().info(event, batch=batch_id, state=end.state.value, reason=end.reason, **outcomes)

    # In the background

    async def _expire(self) -> None:
        """Delete what ended long ago, now and every hour."""
        while True:
            try:
                more = await self._delete_expired()
            except StateError as error:
                structlog.get_logger().warning("catalogue_refuses", reason=str(error))
                more = False
            if not more:
                await asyncio.sleep(_SWEEP)

    async def _delete_expired(self) -> bool:
        """Delete some batches that ended long ago; return whether there may be more."""
        rows = self._catalogue.expired(self._clock() - self._settings.keep, _MOST_SWEPT)
        for row in rows:
            with contextlib.suppress(BatchStateError, UnknownBatchError):  # somebody has retried or deleted it
                await self.delete(row.id)
        return len(rows) == _MOST_SWEPT

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (failure := task.exception()) is None:
            return
        structlog.get_logger().error("task_failed", task=task.get_name(), reason=str(failure))
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_exception(failure)


def _refusal(row: Row, what: str, advice: str) -> BatchStateError:
    return BatchStateError(f"batch {row.id} {what}; {advice}")
