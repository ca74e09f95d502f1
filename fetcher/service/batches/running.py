"""One batch while it is being fetched: from open to close, and how that ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import structlog

from fetcher.errors import EXIT_RESUMABLE, FetcherError
from fetcher.service.models import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.assembly import Batch

_CUT = 2.0  # seconds that a batch which is cancelled has for what is in flight


class End(msgspec.Struct, frozen=True):
    """What a batch is at now, and why. ``state`` is ``running`` if the service itself has stopped it."""

    state: State
    reason: str | None = None
    exceeded: bool = False


class _Position(msgspec.Struct):
    offset: int


class Run:
    """A batch that is being fetched. ``pause``, ``cancel`` and ``stop`` ask for its end; the last one asked counts.

    ``batch`` is there once it is open. ``ended`` is set when everything is over, what it left in the catalogue too.
    """

    def __init__(self, batch_id: str, make: Callable[[], Awaitable[Batch]], on_open: Callable[[Batch], None]) -> None:
        self.id = batch_id
        self.batch: Batch | None = None
        self.ended = asyncio.Event()
        self._make = make
        self._on_open = on_open
        self._wanted: State | None = None
        self._going: asyncio.Task[End] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._late = False

    @property
    def wanted(self) -> State | None:
        """What it is to be once it has stopped: ``running`` if the service ends; None if nobody stops it."""
        return self._wanted

    @property
    def reason(self) -> str | None:
        """What to say of it while it runs."""
        if self.batch is None:
            return "opening"
        words = {State.PAUSED: "pausing", State.CANCELLED: "cancelling", State.RUNNING: "draining"}
        return None if self._wanted is None else words.get(self._wanted)

    @property
    def acknowledged(self) -> int:
        """Up to which byte of the results records are acknowledged. The service's own sink is the last."""
        if self.batch is None:
            return 0
        outlets = self.batch.engine.delivery.outlets
        mark = self.batch.engine.delivery.marks.get(outlets[-1].key)
        return 0 if mark is None else msgspec.json.decode(mark, type=_Position).offset

    def pause(self) -> None:
        """Let it end what is in flight, so that it can go on later."""
        self._stop(State.PAUSED)

    def stop(self) -> None:
        """Do the same because the service ends. What somebody has asked for before is what it is to be."""
        self._stop(self._wanted if self._wanted in {State.PAUSED, State.CANCELLED} else State.RUNNING)

    def cancel(self) -> None:
        """Let it end what is in flight if that takes but a moment."""
        self._stop(State.CANCELLED)
        self._timers.append(asyncio.get_running_loop().call_later(_CUT, self.cut))

    def go_on(self) -> None:
        """Take back a pause; if it has begun to drain already, it goes on after it."""
        self._wanted = State.QUEUED

    def cut(self) -> None:
        """End it now. What is in flight will be fetched again."""
        if self._going is not None:
            self._going.cancel()

    def _stop(self, wanted: State | None) -> None:
        self._wanted = wanted
        if self.batch is not None:
            self.batch.drain()

    async def to_end(self) -> End:
        """Open, run and close the batch; return how that ended, whatever happens."""
        self._going = asyncio.create_task(self._run(), name=f"batch {self.id}")
        try:
            return await self._going
        except asyncio.CancelledError:
            if not self._going.done():
                # It is the service that is cut off.
                self._going.cancel()
                await asyncio.wait([self._going])
                raise
            return self._stopped()
        finally:
            for timer in self._timers:
                timer.cancel()

    async def _run(self) -> End:
        try:
            batch = await self._make()
            try:
                await batch.open()
                self.batch = batch
                self._on_open(batch)
                return await self._fetch(batch)
            finally:
                await batch.close()
        except FetcherError as error:
            # What is late at a stop has not failed: it goes on from there.
            if self._wanted is not None and error.exit_code == EXIT_RESUMABLE:
                return self._stopped()
            return End(State.FAILED, str(error))
        except Exception as error:  # noqa: BLE001  it is this batch's alone, and the others go on
            structlog.get_logger().exception("batch_crashed", batch=self.id)
            return End(State.FAILED, f"this is a fault of fetcher: {type(error).__name__}: {error}")

    async def _fetch(self, batch: Batch) -> End:
        if self._wanted is not None:
            return self._stopped()
        deadline = batch.config.deadline
        if deadline is not None:
            self._timers.append(asyncio.get_running_loop().call_later(deadline, self._pass_deadline))
        if await batch.run():
            return _done(batch)
        if batch.engine.failures:
            return End(State.FAILED, "; ".join(map(str, batch.engine.failures)))
        return self._stopped()

    def _pass_deadline(self) -> None:
        if self._wanted is None and self.batch is not None:
            self._late = True
            self.batch.drain()

    def _stopped(self) -> End:
        if self._wanted is None and self._late and self.batch is not None:
            limit = self.batch.config.deadline
            return End(State.FAILED, f"its deadline of {limit:g} s has passed; retry goes on with what is left")
        # If nobody has asked for it, the service is cut off.
        return End(self._wanted or State.RUNNING)


def _done(batch: Batch) -> End:
    engine = batch.engine
    if not engine.accounted:
        return End(State.FAILED, f"{engine.added:,} jobs, but not one record for each: this is a fault of fetcher")
    return End(State.DONE, exceeded=engine.delivery.tally.exceeds(batch.config.max_failures, engine.added))


async def within(seconds: float, *events: asyncio.Event) -> bool:
    """Wait until all events are set; return whether they were in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for event in events:
                await event.wait()
    return all(event.is_set() for event in events)
