"""Where the slots of an engine are at this moment: what `bounds` judges. Reads, and changes nothing."""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from fetcher.engine.hosts.accounts import opens_at
from fetcher.engine.hosts.limiter import CATCH_UP
from fetcher.engine.why.advice import Bound
from fetcher.engine.why.bounds import AtWork, HeldBack, Sample, Service, strain
from fetcher.interfaces import Surveyed

if TYPE_CHECKING:
    from fetcher.engine.engine import Engine
    from fetcher.engine.hosts.host import Host, Line

# Of the hosts in a window of many thousands, so many are enough to tell why jobs wait.
_MOST_LINES = 1000
_UNKNOWN = ""


def sample(engine: Engine, now: float, cpu: float = 0.0, late: float = 0.0, since: float = -inf) -> Sample:
    """Look at an engine: at every job in flight, and at many hosts in the window.

    ``cpu``, ``late``: how busy the process is, see `bounds.strain`. ``since``: when it was first seen.
    """
    at_work = _at_work(engine, now)
    startable, held_back = _waiting(engine, now) if len(at_work) <= engine.allowed else (0, [])
    due_at = engine.next_due_at
    slots = engine.shared_slots
    return Sample(
        batch=engine.batch,
        since=since,
        allowed=engine.allowed,
        service=None if slots is None else Service(slots.limit, max(0, slots.limit - slots.in_flight)),
        at_work=at_work,
        startable=startable,
        held_back=held_back,
        waits_for_service=engine.waits_for_slots,
        full=_full(engine),
        queued=max(0, engine.queued - engine.scheduler.waiting),
        delayed=due_at is not None and due_at > now,
        reading=not engine.fed,
        strain=strain(cpu, late, _took(engine, now)),
    )


def _took(engine: Engine, now: float) -> float:
    """Return for how many seconds requests are in flight on average: a look finds them half-way, on average."""
    running = engine.running
    return 2 * sum(now - one.started for one in running.values()) / len(running) if running else 0.0


def _at_work(engine: Engine, now: float) -> list[AtWork]:
    found = []
    for transport in dict.fromkeys(engine.transports.values()):
        if not isinstance(transport, Surveyed):
            return [AtWork(_UNKNOWN, now - one.started, one.lease.job.host) for one in engine.running.values()]
        found += [AtWork(phase, seconds, job.host) for job, phase, seconds in transport.at_work()]
    return found


def _waiting(engine: Engine, now: float) -> tuple[int, list[HeldBack]]:
    """Return how many jobs of the window could start, and of those that have to wait for their hosts, why."""
    startable, held_back = 0, []
    is_shared = engine.shared_slots is not None
    for line in islice(engine.scheduler.lines(), _MOST_LINES):
        waiting = len(line.waiting)
        why, free = _room(line, now)
        startable += min(waiting, free)
        jobs = max(waiting, line.backlog) - free
        # A host that has room and no job here holds nothing back: its jobs are still to be leased.
        if jobs > 0 and waiting >= free:
            held_back.append(HeldBack(why, line.host.name, jobs, by_service=is_shared and _is_given(line.host, why)))
    return startable, held_back


def _room(line: Line, now: float) -> tuple[Bound, int]:
    """Return how many jobs a host allows to start at this moment, and why not more."""
    host = line.host
    limits, configured = host.limits, host.configured
    if host.care.paused:
        return Bound.BREAKER, 0
    if host.free_at > now + limits.interval + CATCH_UP:
        return Bound.REST, 0
    if line.rest is not None and line.rest.until > now:
        return Bound.REST, 0
    if line.quotas and opens_at(line, now) > max(now, host.free_at):
        return Bound.BUDGET, 0
    free = max(0, limits.concurrency - host.in_flight)
    if limits.interval and (free or host.free_at > now):
        return _pace(line), int(free > 0 and host.free_at <= now)
    return (Bound.LEARNT if limits.concurrency < configured.concurrency else Bound.HOST_LIMITS), free


def _is_given(host: Host, why: Bound) -> bool:
    """Tell whether it is the config of the process that holds jobs back, and not a stricter one of some batch."""
    if why is Bound.HOST_LIMITS:
        return host.given.concurrency <= host.configured.concurrency
    if why is Bound.RATE:
        return host.given.interval >= host.configured.interval
    return True


def _pace(line: Line) -> Bound:
    """Return who says how often a host is asked."""
    host = line.host
    if host.limits.interval <= host.configured.interval:
        return Bound.RATE
    return Bound.CRAWL_DELAY if host.care.crawl_delay >= host.limits.interval else Bound.LEARNT


def _full(engine: Engine) -> list[str] | None:
    """Return the sinks, and the stage, that hold the engine up, None if none does."""
    delivery = engine.delivery
    if engine.waits_for_pages:
        return []
    if delivery.full:
        return sorted(delivery.writing)
    # Everything was fetched, and is only waited for.
    at_end = engine.fed and not engine.running and not engine.queued and engine.left > 0
    return (sorted(delivery.writing) or None) if at_end else None
