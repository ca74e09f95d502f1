"""Whose turn it is at a host that several schedulers ask. Pure: time is passed in, in seconds.

The line of the highest priority is next, and among equals it goes by start-time fair queueing (Goyal, Vin and Cheng,
1996): a line's ``passed`` moves on by 1 / weight with every start, and the smallest is next. A line that had nothing
for a while begins where the others are, ``virtual`` by priority, and has saved nothing up.

To wait for others must not waste what the host would bear. A line therefore waits only for those whose engine says
that it could start a job, and not longer than `GRACE` from ``turn_at`` on, when the host became free. Whoever does not
take the turn within that time is not waited for again before it has looked for a job in vain, or `SULK` has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.engine.hosts.accounts import opens_at

if TYPE_CHECKING:
    from fetcher.engine.hosts.host import Host, Line

GRACE = 0.02
"""For so many seconds a line waits for those whose turn it is: many turns of the loop, and little of a slot."""
SULK = 0.2
"""For so many seconds nobody waits for a line that has missed its turn, so that this costs a tenth at most."""


def before(line: Line, now: float) -> list[Line]:
    """Return the lines that a line has to let go first: none if the host bears all of them at once."""
    host = line.host
    there = [other for other in host.lines if other is not line and _goes_first(other, line, now)]
    if there and not host.limits.interval and not line.quotas:
        free = host.limits.concurrency - host.in_flight
        if sum(len(other.waiting) for other in there) < free:
            return []
    return there


def goes_at(line: Line, now: float) -> float:
    """Return when a line may go whose host has a free slot: when that may be asked, or when others had their time."""
    host = line.host
    at = opens_at(line, now) if line.quotas else host.free_at
    until = max(host.turn_at, at) + GRACE
    return until if until > now and before(line, now) else at


def may_go(line: Line, now: float) -> bool:
    """Tell whether a line may go now."""
    host = line.host
    return host.in_flight < host.limits.concurrency and goes_at(line, now) <= now


def start(line: Line, now: float) -> None:
    """Note that a job of a line is about to start, and tell the lines whose turn it was that they missed it."""
    for other in before(line, now):
        other.missed_until = now + SULK
        other.asker.miss(other)
    host, priority = line.host, line.asker.priority
    tag = _tag(line)
    if host.virtual is None:
        host.virtual = {}
    host.virtual[priority] = tag
    line.passed = tag + 1 / line.asker.weight
    line.missed_until = 0.0
    host.turn_at = now


def done(host: Host, now: float) -> None:
    """Note that a request has ended: who is next has its time from now on if there was no slot before."""
    if host.in_flight + 1 == host.limits.concurrency:
        host.turn_at = now


def join(line: Line, now: float) -> None:
    """Note that a line begins to wait, with or without others: nobody has waited for it yet."""
    line.host.turn_at = max(line.host.turn_at, now)


def _goes_first(other: Line, line: Line, now: float) -> bool:
    theirs, ours = other.asker, line.asker
    if not other.waiting or other.missed_until > now or theirs.priority < ours.priority:
        return False
    if theirs.priority == ours.priority and _tag(other) >= _tag(line):
        return False
    return theirs.may_start()


def _tag(line: Line) -> float:
    """Return where the next start of a line stands among those of its priority."""
    virtual = line.host.virtual
    return line.passed if virtual is None else max(line.passed, virtual.get(line.asker.priority, 0.0))
