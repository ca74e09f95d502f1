"""Timeouts of many fetches with one timer: a fetch costs two entries in a set and no timer of its own.

Fetches are looked at every ``TICK`` seconds, so a timeout fires up to that much late. That is little beside
timeouts of seconds, and two timers for each request are much beside a request. What a fetch is at, and how fast its
body comes, is likewise only looked at then: a fetch that is over sooner pays for neither.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from fetcher.errors import ErrorKind, FetchError
from fetcher.interfaces import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.model import Job
    from fetcher.settings import RequestSettings

TICK = 0.1
_SAMPLES = 10


class Phase(StrEnum):
    """What a fetch is at."""

    PREPARING = "preparing"
    TOKEN = "token"  # noqa: S105  no secret
    ROBOTS = "robots.txt"
    PROXY = "proxy"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    FIRST_BYTE = "first byte"
    BODY = "body"


# Looked up once: they are set and compared for every fetch.
_PREPARING, _FIRST_BYTE, _BODY = Phase.PREPARING, Phase.FIRST_BYTE, Phase.BODY


class Floor(NamedTuple):
    """The least that a body has to bring: ``rate`` bytes per second on average over any ``span`` seconds.

    As in curl's ``--speed-limit`` and ``--speed-time``. The span is counted in looks rather than by the clock: a
    process that was stopped or starved for a while has nobody but itself to blame.
    """

    rate: int
    span: float

    @property
    def looks(self) -> int:
        """From how many looks to how many a span is."""
        return max(1, round(self.span / TICK))

    def pace(self) -> Pace | None:
        """Return what measures one body, None if there is no floor."""
        return Pace(self) if self.rate else None


class Pace:
    """How fast one body comes, by some samples of what had been received."""

    __slots__ = ("_due", "_every", "_samples", "floor")

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self._every = max(1, floor.looks // _SAMPLES)
        self._samples: deque[int] = deque(maxlen=floor.looks // self._every + 1)
        self._due = 0

    @property
    def recent(self) -> int:
        """Bytes received within the samples."""
        return self._samples[-1] - self._samples[0]

    def too_slow(self, received: int) -> bool:
        """Look, and tell whether a whole span was measured and brought less than it has to."""
        self._due -= 1
        if self._due > 0:
            return False
        self._due = self._every
        samples = self._samples
        samples.append(received)
        return len(samples) == samples.maxlen and self.recent < self.floor.rate * self.floor.span


class Watch:
    """One fetch under watch. Times are in seconds on the event loop's clock.

    ``phase`` is set by whoever begins one. Since when it has been so is found out by looking. ``final`` is the job's
    own deadline, which nothing moves.
    """

    __slots__ = (
        "_floor",
        "_left",
        "_loop",
        "_pace",
        "_seen",
        "_seen_at",
        "_task",
        "deadline",
        "expired",
        "final",
        "job",
        "limit",
        "patience",
        "phase",
        "quiet_until",
        "received",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float,
        patience: float,
        floor: Floor,
        job: Job | None = None,
        within: float = inf,
    ) -> None:
        self._loop = loop
        self._task = asyncio.current_task(loop)
        now = loop.time()
        self.job = job
        self.limit = limit
        self.patience = patience
        self.final = now + within
        self.deadline = min(now + limit, self.final)
        self.quiet_until = now + patience
        self.expired: ErrorKind | None = None
        self.phase = _PREPARING
        self.received = 0
        self._floor = floor
        self._pace: Pace | None = None
        self._seen: Phase | None = None
        self._seen_at = now

    def progress(self, count: int = 0) -> None:
        """Note that something of a response arrived: its head, or ``count`` bytes of its body."""
        self.quiet_until = self._loop.time() + self.patience
        self.phase = _BODY
        self.received += count

    def pause(self) -> None:
        """Stop waiting for something to arrive: somebody else times what comes now."""
        self.quiet_until = self.deadline

    def resume(self) -> None:
        """Wait for the head of a response from now on."""
        self.quiet_until = self._loop.time() + self.patience
        self.phase = _FIRST_BYTE

    def hold(self, phase: Phase) -> None:
        """Stop the clock for something that many fetches wait for and that has a time limit of its own."""
        self._left = self.deadline - self._loop.time()
        self.deadline = self.quiet_until = self.final
        self.phase = phase

    def release(self) -> None:
        """Go on after ``hold`` with as much time as was left."""
        now = self._loop.time()
        self.deadline = min(now + self._left, self.final)
        self.quiet_until = now + self.patience
        self.phase = _PREPARING

    def check(self, now: float) -> None:
        """Cancel the fetch if its time is up. It is suspended within it, for only there is it watched."""
        if self.expired is not None or self._task is None:
            return
        if self.phase is not self._seen:
            self._begin_phase(now)
        if now >= self.deadline:
            self.expired = ErrorKind.TOTAL_TIMEOUT
        elif now >= self.quiet_until:
            self.expired = ErrorKind.READ_TIMEOUT
        # While it is paused, it is not the server that is slow.
        elif self._pace is not None and self.quiet_until != self.deadline and self._pace.too_slow(self.received):
            self.expired = ErrorKind.TOO_SLOW
        else:
            return
        self._task.cancel()

    def _begin_phase(self, now: float) -> None:
        # What was there at the first look has been so from the beginning, as far as anybody can tell.
        self._seen_at = self._seen_at if self._seen is None else now
        self._seen = self.phase
        # Only a body has a pace; the head of the next hop is waited for with patience.
        self._pace = self._floor.pace() if self.phase is _BODY else None

    def lasted(self, now: float) -> float:
        """Return for how many seconds the fetch has been at its phase, as far as looks can tell."""
        return now - self._seen_at if self.phase is self._seen else 0.0

    def standing(self) -> Standing:
        """Tell what the fetch is at."""
        now = self._loop.time()
        seconds = self.lasted(now)
        # A body may go on until the deadline as long as something arrives; before it, silence is all that there is.
        end = self.deadline if self.phase is _BODY else min(self.deadline, self.quiet_until)
        return Standing(self.phase, seconds, self.received, None if end == inf else max(0.0, end - now))

    def verdict(self, overdue: ErrorKind = ErrorKind.TOTAL_TIMEOUT) -> BaseException:
        """Return what a CancelledError in the fetch was about: a timeout, or somebody else's cancellation.

        ``overdue`` is the kind of having taken longer than the limit.
        """
        if self.expired is None or self._task is None or self._task.uncancel() > 0:
            return asyncio.CancelledError()
        if self.expired is ErrorKind.TOTAL_TIMEOUT:
            what = "the retry deadline" if overdue is ErrorKind.DEADLINE else f"{self.limit:g} s in all"
            return FetchError(overdue, f"took longer than {what}")
        if self.expired is ErrorKind.TOO_SLOW and self._pace is not None:
            floor = self._floor
            least = f"less than request.min_rate ({floor.rate} bytes a second)"
            return FetchError(self.expired, f"{self._pace.recent} bytes of the body in {floor.span:g} s, {least}")
        return FetchError(self.expired, f"nothing arrived for {self.patience:g} s")

    def judged(self, error: BaseException) -> BaseException:
        """Return what an error that ended the fetch stands for: itself, or what it was cancelled for."""
        if not isinstance(error, asyncio.CancelledError):
            return error
        return self.verdict(ErrorKind.DEADLINE if self.deadline >= self.final else ErrorKind.TOTAL_TIMEOUT)


_NO_FLOOR = Floor(0, 0.0)


class Watchdog:
    """Looks after every watch that was started and not stopped. ``floor`` is how fast bodies have to come."""

    def __init__(self, floor: Floor = _NO_FLOOR) -> None:
        self._floor = floor
        self._watches: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, limit: float, patience: float, job: Job | None = None, within: float = inf) -> Watch:
        """Watch the current task: it may take ``limit`` seconds in all, and ``patience`` without progress.

        ``job`` is what ``standing`` finds it by; ``within`` is how many seconds its own deadline leaves.
        """
        # Asked once: before Python 3.12 every call of it is a system call as well.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        watch = Watch(loop, limit, patience, self._floor, job, within)
        self._watches.add(watch)
        if self._timer is None:
            self._timer = loop.call_later(TICK, self._look, loop)
        return watch

    def stop(self, watch: Watch) -> None:
        """Watch it no more."""
        self._watches.discard(watch)

    def standing(self, job: Job) -> Standing | None:
        """Tell what the fetch of a job is at, None if it is not watched. Looks at all of them: for display."""
        return next((watch.standing() for watch in self._watches if watch.job is job), None)

    def at_work(self) -> Iterator[tuple[Job, str, float]]:
        """Yield each job under watch with its phase, and for how many seconds that has lasted."""
        if self._loop is None:
            return
        now = self._loop.time()
        for watch in self._watches:
            if watch.job is not None:
                yield watch.job, watch.phase, watch.lasted(now)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in self._watches:
            watch.check(now)
        self._timer = loop.call_later(TICK, self._look, loop) if self._watches else None


class Watched:
    """A transport whose fetches are watched; to be inherited from."""

    def __init__(self, request: RequestSettings) -> None:
        self._watchdog = Watchdog(Floor(request.min_rate, request.min_rate_span))

    def standing(self, job: Job) -> Standing | None:
        """Tell what the fetch of a job is at, for display."""
        return self._watchdog.standing(job)

    def at_work(self) -> Iterator[tuple[Job, str, float]]:
        """Yield each job under way with its phase, and for how many seconds that has lasted."""
        return self._watchdog.at_work()
