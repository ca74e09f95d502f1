"""The workers of an engine: as many as are of use, each with a slot and a job, or idle.

A worker that has found a job wakes the next one if there is more to do, so that as many run as there are jobs that may
start. Idle workers cost nothing. When a host may be asked by the passing of time alone, a timer wakes one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.engine.pulse import Pulse
    from fetcher.engine.scheduler import Scheduler
    from fetcher.engine.slots import Share
    from fetcher.interfaces import Lease


class Outbox(Protocol):
    """What takes results. While it is ``full``, workers wait in ``room``."""

    @property
    def full(self) -> bool:
        """Tell whether there is no room."""
        ...

    async def room(self) -> None:
        """Wait until there is some."""
        ...


class Crew:
    """Has ``attempt`` called with every job that the scheduler hands out.

    Never more at a time than ``slots`` and ``pulse.allowed`` say, and none while ``outbox`` is full.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        slots: Share,
        pulse: Pulse,
        outbox: Outbox,
        attempt: Callable[[Lease], Awaitable[None]],
    ) -> None:
        self._scheduler = scheduler
        self._slots = slots
        self._pulse = pulse
        self._outbox = outbox
        self._attempt = attempt
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._ending = True

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Work from now on, as tasks of a group; nobody does before the first `wake`."""
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._ending = False

    def wake(self) -> None:
        """Have one more worker look for a job; it wakes the next if there is more to do."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._pulse.allowed and not self._ending:
            self._hire()

    def _hire(self) -> None:
        work = self._work()
        try:
            task = self._group.create_task(work, name=f"worker {len(self._workers)}")
        except RuntimeError:
            # The group is shutting down, because a task of it has failed. It may be another engine that wakes this one,
            # and nothing of that is to fail with it.
            self._ending = True
            work.close()
            return
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    def look_again(self, *, ready: bool) -> None:
        """Take into account that another engine has changed when a job may start; ``ready``: one may now."""
        if self._ending:
            return
        if ready:
            self.wake()
        else:
            self._set_timer()

    def may_start(self, running: int) -> bool:
        """Tell whether another job could be started, with so many under way, if its host were free."""
        return running < self._pulse.allowed and not self._ending and not self._outbox.full

    def end(self) -> None:
        """Start no more jobs."""
        self._ending = True

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109  who is late is cut off, and no error
        """Let workers end what they are at, up to so many seconds; then cut them off."""
        # Other engines may have all slots for as long as they like.
        self._slots.dismiss()
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        if self._workers:
            await asyncio.wait(self._workers, timeout=timeout)
        late = list(self._workers)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def close(self) -> None:
        """Have no timer any more."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()

    async def _work(self) -> None:
        slots, scheduler = self._slots, self._scheduler
        while not self._ending and not self._is_superfluous():
            if self._outbox.full:
                await self._outbox.room()
                continue
            await slots.acquire()
            try:
                # The wait may have lasted beyond the beginning of a drain.
                lease = None if self._ending else scheduler.next(self._loop.time())
                if lease is not None:
                    if scheduler.has_ready:
                        self.wake()
                    else:
                        self._set_timer()
                    await self._attempt(lease)
            finally:
                slots.release()
            if lease is None and not self._ending:
                await self._rest()

    def _is_superfluous(self) -> bool:
        """Tell whether a worker has to go because fewer are allowed than before; another may be idle in its place."""
        if len(self._workers) <= self._pulse.allowed:
            return False
        self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        self.wake()
        return True

    async def _rest(self) -> None:
        self._set_timer()
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        await waiter

    def _set_timer(self) -> None:
        """Have a worker look again when the first host in the window may be asked.

        Set by every worker before it fetches or rests; if all are busy when it fires, the next that is not looks.
        """
        wake_at = self._scheduler.wake_at()
        if self._timer is not None and (wake_at is None or self._timer_at > wake_at):
            self._timer.cancel()
            self._timer = None
        if wake_at is not None and self._timer is None:
            # When it fires is noted here: what uvloop returns for a time that has come does not know.
            self._timer_at = wake_at
            self._timer = self._loop.call_at(wake_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()
