"""Which job may start now. Pure: no await, no clock; time is passed in, in seconds.

The scheduler holds a bounded window of leased jobs by host, and lists the hosts by when they may be asked
(`fetcher.engine.listing`). So a worker is only ever given a job that may start at once, and a job that waits for its
host occupies no worker.

Among ready hosts priority decides, then how long the host has still to go at the best pace that its limits allow: a
host whose own limit makes it the last to end must never wait for others (longest processing time first; Graham,
"Bounds on Multiprocessing Timing Anomalies", 1969).

The window is shared out by need: a host is given room for what it can start soon and no more. A host that fills
its room, be it busy, slow or told to rest, therefore keeps no other host's jobs out of the window.

Hosts may be shared with the schedulers of other batches (`fetcher.engine.hosts.host`). Each holds the jobs of its own;
what holds for the host holds for all together, and whose turn it is says `fetcher.engine.hosts.turns`.

What is learnt about a host (`fetcher.engine.hosts.care`) changes its limits, and nothing else here: a host that is
asked for less is a host with stricter limits, and one that was given up has none, so that its jobs come out and end. Of
a host some of whose origins (ports) alone are in trouble, jobs come out in their turn, and `Scheduler.verdict` has the
word.
"""

from __future__ import annotations

import math
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING

from fetcher.engine.hosts import accounts, turns
from fetcher.engine.hosts.accounts import LONG_CLOSED, Purse
from fetcher.engine.hosts.care import LONGEST_CRAWL_DELAY
from fetcher.engine.hosts.host import Hosts, Line
from fetcher.engine.hosts.limiter import CATCH_UP, next_start
from fetcher.engine.listing import Listing
from fetcher.engine.window import HORIZON, Demand, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetcher.budgets import BudgetRule
    from fetcher.engine.hosts.care import Failure
    from fetcher.engine.hosts.host import Host, Owner
    from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
    from fetcher.interfaces import Lease, Leased
    from fetcher.model import RateLimit, Rejection

_SMOOTHING = 0.2


class Scheduler:
    """Hands out jobs that may start now, within the limits of each host. Global concurrency is its caller's.

    ``hosts`` are shared with other schedulers, among which ``weight`` and ``priority`` decide; then only those limits
    of a host count that ``limits`` sets itself, and only if they are stricter. None: nobody else is there. ``budgets``:
    what requests with certain credentials keep to, together with those of other schedulers.
    """

    def __init__(
        self,
        limits: LimitSettings,
        hosts: Hosts | None = None,
        *,
        weight: float = 1.0,
        priority: int = 0,
        owner: Owner | None = None,
        budgets: Sequence[BudgetRule] = (),
    ) -> None:
        self.weight = weight
        self.priority = priority
        self.owner = owner
        self._alone = hosts is None
        self._shared = Hosts(limits) if hosts is None else hosts
        self._purse = Purse(self._shared.accounts, budgets)
        self._lines: dict[str, Line] = {}
        self._listing = Listing(self._lines)
        self._list = self._listing.put
        self._set(limits)
        # Lines that have let a turn pass.
        self._missed: set[Line] = set()
        self._order = 0
        self.waiting = 0
        self.in_flight = 0
        self.answered = 0
        self.failed = 0
        # This process is too busy to tell a slow host from its own delays.
        self.strained = False

    def add(self, leased: Leased, now: float) -> list[Lease]:
        """Take leased jobs into the window; return those to give back, of hosts for which they were too many."""
        excess: list[Lease] = []
        had: dict[str, int] = {}
        for lease in leased.leases:
            name = lease.job.host
            line = self._lines.get(name) or self._line(name, now)
            had.setdefault(name, len(line.waiting))
            self._order += 1
            entry = (-lease.job.priority, self._order, lease)
            # Leases come by priority; only one that overtakes what already waits has to be sorted in.
            if line.waiting and entry[0] < line.waiting[-1][0]:
                line.waiting = deque(sorted([*line.waiting, entry], key=itemgetter(0, 1)))
            else:
                line.waiting.append(entry)
        self.waiting += len(leased.leases)
        for name, waiting in had.items():
            line = self._lines[name]
            line.backlog = waiting + leased.backlog.get(name, len(line.waiting) - waiting)
            # The queue knew nothing of this host's own limits if it was not in the window.
            room = max(waiting, accounts.demand(line, now, HORIZON)[1] if line.quotas else line.room)
            while len(line.waiting) > room:
                excess.append(line.waiting.pop()[2])
            if not waiting and len(line.host.lines) > 1:
                turns.join(line, now)
            # Anew even if it is listed: it may have become more urgent than its entry says.
            self._list(line, now)
        self.waiting -= len(excess)
        return excess

    def next(self, now: float) -> Lease | None:
        """Return a job that may start now and count it as in flight, or None if there is none."""
        line = self._listing.next(now)
        if line is None:
            if self._missed:
                self._ask_for_turns()
            return None
        host = line.host
        several = len(host.lines) > 1
        if several:
            turns.start(line, now)
        lease = line.waiting.popleft()[2]
        host.in_flight += 1
        line.in_flight += 1
        line.backlog -= 1
        self.waiting -= 1
        self.in_flight += 1
        if host.limits.interval or line.quotas:
            self._pace(line, now)
        self._list(line, now)
        if several:
            self._tell(line, now)
        return lease

    def done(self, lease: Lease, started: float, now: float) -> None:
        """Give back the slot of a job that ``next`` returned at ``started``."""
        line = self._lines[lease.job.host]
        host = line.host
        host.latency += (now - started - host.latency) * _SMOOTHING
        self._listing.latency += (now - started - self._listing.latency) * _SMOOTHING
        host.in_flight -= 1
        line.in_flight -= 1
        self.in_flight -= 1
        for quota in accounts.done(line, now) if line.quotas else ():
            self._shared.reopen(quota, now)
        if len(host.lines) > 1:
            turns.done(host, now)
            self._tell_unlisted(line, now)
        if not line.entry:
            self._list(line, now)
        self._forget(line, now)

    def well(self, lease: Lease, started: float, now: float, latency: float | None) -> None:
        """Take into account that the host of a job in flight answered, and within what time if that is known."""
        self.answered += 1
        line = self._lines[lease.job.host]
        if line.host.care.answered(lease.job.url, started, now, None if self.strained else latency):
            self._adjust(line, now)

    def badly(self, lease: Lease, failure: Failure, started: float, now: float) -> list[Lease]:
        """Take a failure of the host of a job in flight into account; return leases to give back if it is paused."""
        self.failed += 1
        line = self._lines[lease.job.host]
        host = line.host
        changed = host.care.slower(lease.job.url, failure, started, now, host.in_flight)
        pause = host.care.pause(lease.job.url, failure, started, now)
        if pause is None:
            if changed:
                self._adjust(line, now)
            return []
        self._shared.some_in_trouble = True
        self._adjust(line, now)
        if not pause or not host.care.paused:
            return []
        host.free_at = max(host.free_at, now + pause)
        return self._drop_all(line)

    def badly_elsewhere(self, url: str, name: str, failure: Failure, started: float, now: float) -> None:
        """Take into account that a host failed to which a job of another was redirected, at ``url``.

        It is slowed down, but neither paused nor given up: whether somebody is there, its own jobs find out.
        """
        line = self._line(name, now)
        if line.host.care.slower(url, failure, started, now, line.host.in_flight):
            self._adjust(line, now)

    def may_retry(self, name: str, now: float) -> bool:
        """Tell whether another retry of a retry is within the budget of a host, and count it."""
        return self._line(name, now).host.care.may_retry(now)

    def verdict(self, lease: Lease, now: float) -> Rejection | float | None:
        """Return why a job that ``next`` has just returned is not to be fetched: for good, or for so many seconds.

        None if it is. To be asked only if ``some_in_trouble``, and at once, so that the start is not counted.
        """
        line = self._lines[lease.job.host]
        host = line.host
        care = host.care
        verdict = care.verdict(lease.job.url, now) if care.breakers else None
        if verdict is None:
            if care.given_up:
                # Another origin of the same host, of which nothing is known.
                care.given_up = False
                self._adjust(line, now)
        elif host.limits.interval or line.quotas:
            host.free_at = host.was_free_at if host.limits.interval else host.free_at
            accounts.give_back(line)
            self._list(line, now)
            self._tell(line, now)
        return verdict

    def slow_down(self, name: str, crawl_delay: float, now: float) -> None:
        """Keep to what the robots.txt of a host asks for, in seconds between two starts, from now on."""
        line = self._line(name, now)
        care = line.host.care
        crawl_delay = min(crawl_delay, LONGEST_CRAWL_DELAY)
        # A host may have several files, one for each port; the strictest holds.
        if crawl_delay > care.crawl_delay:
            care.crawl_delay = crawl_delay
            self._adjust(line, now)

    def told(self, name: str, limit: RateLimit, started: float, now: float, *, own: bool) -> None:
        """Keep to what a host says is left of the budget of its credentials, or of its own if it is shown none.

        ``own``: it says so in the answer to a request for it that began at ``started``, and is in flight.
        """
        line = self._line(name, now)
        quota = line.credentials[0] if line.credentials else self._shared.quota(line.host)
        if quota.tell(limit, started, now, own=own):
            self._shared.reopen(quota, now)

    def charge(self, name: str, requests: int, now: float) -> None:
        """Take into account that a job of a host took so many requests more than the one that it began with."""
        line = self._line(name, now)
        accounts.charge(line, requests, now)
        if line.host.limits.interval:
            for _ in range(requests):
                line.host.free_at = next_start(line.host.free_at, now, line.host.limits)
        self._list(line, now)
        self._tell(line, now)

    def closed(self, name: str, now: float) -> float | None:
        """Return for how many seconds in all the budgets of a host have let nothing start, None if it has none."""
        line = self._lines.get(name)
        return None if line is None else accounts.closed(line, now)

    def rest(self, name: str, until: float, now: float) -> list[Lease]:
        """Start nothing more on a host before ``until``; return leases to give back, if that is not soon."""
        line = self._line(name, now)
        host = line.host
        host.free_at = max(host.free_at, until)
        return self._drop_all(line) if host.free_at > now + HORIZON else []

    def put_off(self, name: str, until: float, now: float) -> list[Lease]:
        """Start none of these jobs of a host before ``until``, as ``rest``, for what is no matter of the host's."""
        line = self._line(name, now)
        self._shared.put_off(line, until)
        return self._drop(line) if until > now + HORIZON else []

    @property
    def known(self) -> Hosts:
        """All hosts, those of others included that share them."""
        return self._shared

    @property
    def some_in_trouble(self) -> bool:
        """Tell whether there may be a verdict about some job."""
        return self._shared.some_in_trouble

    @property
    def has_ready(self) -> bool:
        """Tell whether some host may be asked now; ``next`` has the last word."""
        return self._listing.has_ready

    def wake_at(self) -> float | None:
        """Return when a job becomes startable by the passing of time alone, or None if none waits for that."""
        return self._listing.wake_at()

    def demand(self, now: float) -> Demand:
        """Say what to lease next."""
        room = {}
        again = math.inf
        for line in list(self._lines.values()):
            if self._forget(line, now):
                continue
            if line.rest is not None:
                self._shared.wake(line, now)
            name, free_at, held = line.host.name, line.host.free_at, line.room
            if line.quotas:
                free_at, held = accounts.demand(line, now, HORIZON)
            if free_at <= now + HORIZON:
                room[name] = max(0, held - len(line.waiting))
            else:
                room[name] = 0
                again = min(again, free_at - HORIZON - now)
                if line.waiting and line.quotas and free_at > now + LONG_CLOSED:
                    self.surrender(line)
        limit = max(0, self.window - self.waiting)
        return Demand(limit, self._default_room, room, None if again == math.inf else again)

    def lines(self) -> Iterator[Line]:
        """Yield what there is of each host in the window, for display."""
        return iter(self._lines.values())

    def hosts(self) -> Iterator[Host]:
        """Yield the hosts in the window, for display."""
        return (line.host for line in self._lines.values())

    def reconfigure(self, limits: LimitSettings, now: float) -> None:
        """Keep to other limits from now on. What is in the window stays there."""
        if self._alone:
            self._shared.reconfigure(limits, now)
        self._set(limits)
        for line in self._lines.values():
            self.refit(line)
            own = self._own(line.host.name)
            if own != line.own:
                line.own = own
                self._shared.refit(line.host, now)

    def close(self, now: float) -> None:
        """Leave the hosts to the others. Nothing may be in flight. May be called twice."""
        for line in self._lines.values():
            self._drop(line)
            self._shared.leave(line, now)
        self._lines.clear()
        self._missed.clear()
        for quota in self._purse.close(now):
            self._shared.reopen(quota, now)
        self._shared.sweep(now)

    # As the others of a host see it: `fetcher.engine.hosts.Asker`

    def may_start(self) -> bool:
        """Tell whether a job could be started now if a host were free."""
        return self.owner is None or self.owner.may_start()

    def refit(self, line: Line) -> None:
        """Hold as many jobs as the limits of a host ask for now."""
        line.room = self._window.room(line.host.limits)

    def reconsider(self, line: Line, now: float) -> None:
        """Take into account that it may have changed when a job of a line may start."""
        ready = self._list(line, now)
        if self.owner is None:
            return
        if line.entry:
            self.owner.look_again(ready=ready)
        elif not line.waiting:
            self.owner.lease_again()

    def surrender(self, line: Line) -> None:
        """Give back what waits for a host that is to be left alone."""
        dropped = self._drop(line)
        if dropped and self.owner is not None:
            self.owner.take_back(dropped)

    def miss(self, line: Line) -> None:
        """Take into account that another scheduler has taken the turn of a line."""
        self._missed.add(line)

    def _ask_for_turns(self) -> None:
        """Have others wait for this one again: it has looked for a job, and has nothing else to do."""
        for line in self._missed:
            line.missed_until = 0.0
        self._missed.clear()

    def _tell(self, line: Line, now: float) -> None:
        for other in line.host.lines:
            if other is not line and other.waiting:
                other.asker.reconsider(other, now)

    def _tell_unlisted(self, line: Line, now: float) -> None:
        for other in line.host.lines:
            if other is not line and other.waiting and not other.entry:
                other.asker.reconsider(other, now)

    # Within the window

    def _pace(self, line: Line, now: float) -> None:
        """Count a start towards the rate and the budgets of a host, and have more of its jobs leased in time.

        Of such a host no more are held than it starts within the horizon, so that they are used up long before the
        first of them ends if it is slow to answer.
        """
        host = line.host
        if host.limits.interval:
            host.was_free_at = host.free_at
            host.free_at = next_start(host.free_at, now, host.limits)
        if line.quotas:
            accounts.take(line, now)
        if self.owner is not None and 2 * len(line.waiting) <= line.room:
            self.owner.lease_again()

    def _set(self, limits: LimitSettings) -> None:
        self._limits_of = limits.lookup()
        self._listing.concurrency = limits.most
        self._window = Window(limits.most)
        self.window = self._window.size
        self._default_room = self._window.room(self._shared.least(limits.per_host))

    def _drop(self, line: Line) -> list[Lease]:
        dropped = [entry[2] for entry in line.waiting]
        line.waiting.clear()
        line.entry = 0
        self.waiting -= len(dropped)
        return dropped

    def _drop_all(self, line: Line) -> list[Lease]:
        """Take what waits for a host out of every window; return what waited here."""
        for other in line.host.lines:
            if other is not line:
                other.asker.surrender(other)
        return self._drop(line)

    def _line(self, name: str, now: float) -> Line:
        line = self._lines.get(name)
        if line is None:
            host, charged = self._shared.host(name), self._purse.of(name)
            line = self._lines[name] = Line(host, self, deque(), own=self._own(name), credentials=charged)
            self._shared.join(line, now)
            self.refit(line)
        return line

    def _own(self, name: str) -> HostLimits | None:
        """Return what this batch alone asks for at a host, None if nothing."""
        if self._alone or not name:
            return None
        limits = self._limits_of(name)
        return limits if limits.model_fields_set else None

    def _adjust(self, line: Line, now: float) -> None:
        """Have the limits follow what has been learnt about a host."""
        self._shared.adjust(line.host, now)
        self._list(line, now)
        self._tell(line, now)

    def _forget(self, line: Line, now: float) -> bool:
        """Drop a host that has nothing here and no pause to remember, so that memory does not grow with hosts."""
        host = line.host
        # What a rate may catch up with is remembered, too: a host must not earn it anew by being forgotten.
        if line.waiting or line.in_flight or host.free_at + (CATCH_UP if host.limits.interval else 0.0) > now:
            return False
        if line.quotas and accounts.opens_at(line, now) > now:
            return False
        del self._lines[host.name]
        self._shared.leave(line, now)
        return True
