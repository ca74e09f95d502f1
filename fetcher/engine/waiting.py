"""What a run waits for while nothing ends: the jobs in flight for longest, or else what is delayed, and by whom."""

from __future__ import annotations

import heapq
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.hosts.accounts import opens_at
from fetcher.interfaces import Lease, Observable, Standing

if TYPE_CHECKING:
    from fetcher.engine.engine import Engine

_MOST_NAMED = 5


class Running(msgspec.Struct, eq=False):
    """A job in flight, since ``started`` on the loop's clock."""

    lease: Lease
    started: float


class Straggler(msgspec.Struct, frozen=True):
    """A job in flight. ``seconds``: since this attempt began. ``standing`` is None if the transport does not tell."""

    url: str
    host: str
    attempt: int
    seconds: float
    standing: Standing | None = None


class Waiting(msgspec.Struct, frozen=True):
    """What a run waits for at some moment. Of everything there is a lot of, a few are named.

    ``stragglers``: of ``in_flight`` jobs those that began first. ``queued``: jobs that wait to be fetched, ``next_due``
    how many seconds the first delayed one of them still has to wait, None if none is delayed. ``resting``: hosts that
    may not be asked before so many seconds have passed, the soonest first. ``postponed``: what jobs wait for that could
    not begin, and the seconds until it is asked for again. ``writing``: sinks that are at work.
    ``reading``: the sources are not at their end. ``draining``: no job will be started.
    """

    in_flight: int = 0
    stragglers: list[Straggler] = []
    queued: int = 0
    next_due: float | None = None
    resting: list[tuple[str, float]] = []
    postponed: list[tuple[str, float]] = []
    writing: list[str] = []
    reading: bool = False
    draining: bool = False


def look(engine: Engine, now: float) -> Waiting:
    """Describe what an engine waits for. Looks at every job in flight and every host in the window."""
    running = list(engine.running.values())
    oldest = heapq.nsmallest(_MOST_NAMED, running, key=lambda job: job.started)
    queued = engine.queued
    hosts = ((line.host.name, opens_at(line, now) - now) for line in engine.scheduler.lines()) if queued else ()
    resting = ((name, seconds) for name, seconds in hosts if name and seconds > 0)
    soonest = heapq.nsmallest(_MOST_NAMED, resting, key=itemgetter(1))
    due_at = engine.next_due_at
    return Waiting(
        in_flight=len(running),
        stragglers=[_straggler(engine, job, now) for job in oldest],
        queued=queued,
        next_due=None if due_at is None or not queued else max(0.0, due_at - now),
        resting=soonest,
        postponed=engine.postponed.reasons(now)[:_MOST_NAMED] if queued else [],
        writing=sorted(engine.delivery.writing),
        reading=not engine.fed,
        draining=engine.draining,
    )


def _straggler(engine: Engine, running: Running, now: float) -> Straggler:
    job = running.lease.job
    transport = engine.transports.get(job.url.partition(":")[0])
    standing = transport.standing(job) if isinstance(transport, Observable) else None
    return Straggler(job.url, job.host, job.attempts + 1, now - running.started, standing)
