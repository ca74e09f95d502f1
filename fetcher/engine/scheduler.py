"""Which job may start now. Pure: no await, no clock; time is passed in, in seconds.

The scheduler holds a bounded window of leased jobs by host. A host with a job and a free slot stands in one of two
heaps: *timed* while it may not be asked yet, *ready* from then on. So a worker is only ever given a job that may
start at once, and a job that waits for its host occupies no worker.

Among ready hosts priority decides, then how long the host has still to go at the best pace that its limits allow: a
host whose own limit makes it the last to end must never wait for others (longest processing time first; Graham,
"Bounds on Multiprocessing Timing Anomalies", 1969).

The window is shared out by need: a host is given room for what it can start soon and no more. A host that fills
its room, be it busy, slow or told to rest, therefore keeps no other host's jobs out of the window.

What is learnt about a host (`fetcher.engine.care`) changes its limits, and nothing else here: a host that is asked for
less is a host with stricter limits, and one that was given up has none, so that its jobs come out and end. Of a host
some of whose origins (ports) alone are in trouble, jobs come out in their turn, and `Scheduler.verdict` has the word.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.care import LONGEST_CRAWL_DELAY, UNLIMITED, Care
from fetcher.engine.limiter import CATCH_UP, HostLimits, next_start
from fetcher.interfaces import Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.engine.care import Failure
    from fetcher.engine.limiter import LimitSettings
    from fetcher.interfaces import Leased
    from fetcher.model import Rejection

# Leased jobs for each one in flight: enough that a host never waits for the next lease, which takes milliseconds.
_AHEAD = 8
_SMALLEST_WINDOW = 1024
# A host with a rate is given what it will start within this many seconds, and nothing while it may not be asked for
# longer: jobs that can not start soon would keep those out that can. Many times what a lease takes.
_HORIZON = 0.25
_SMOOTHING = 0.2
_SHORTEST_LATENCY = 0.001
# Entries that are out of date are dropped once they are this many times as many as the hosts.
_MOST_STALE = 4
# Hosts without jobs of which something is remembered; the oldest are forgotten first.
_MOST_REMEMBERED = 10_000


class Demand(msgspec.Struct):
    """What to lease: ``limit`` jobs in all, and of each host ``room``, or ``per_host`` if it is not named.

    ``again``: in how many seconds some host that has no room now will have some, None if none will by time alone.
    """

    limit: int
    per_host: int
    room: dict[str, int]
    again: float | None = None


class Host(msgspec.Struct, eq=False):
    """One host in the window.

    ``backlog``: how many jobs it has to come, here and in the queue, as far as known. ``free_at``: when it may be
    asked next; ``was_free_at``: the same before the last start. ``entry``: the order of its entry in one of the heaps,
    0 if it has none; any other entry is out of date. ``latency``: of late, in seconds, for display. ``limits``: what
    holds now; ``configured``: what the config says.
    """

    name: str
    configured: HostLimits
    care: Care
    limits: HostLimits
    room: int
    waiting: deque[tuple[int, int, Lease]]
    backlog: int = 0
    in_flight: int = 0
    latency: float = 0.0
    free_at: float = 0.0
    was_free_at: float = 0.0
    entry: int = 0


class Scheduler:
    """Hands out jobs that may start now, within the limits of each host. Global concurrency is its caller's."""

    def __init__(self, limits: LimitSettings) -> None:
        self._settings = limits
        self._limits_of = limits.lookup()
        self._concurrency = limits.most
        self.window = max(_SMALLEST_WINDOW, limits.most * _AHEAD)
        self._default_room = self._room(limits.per_host)
        self._hosts: dict[str, Host] = {}
        self._remembered: OrderedDict[str, Care] = OrderedDict()
        self._ready: list[tuple[int, float, int, Host]] = []
        self._timed: list[tuple[float, int, Host]] = []
        self._order = 0
        self._latency = 0.0
        self.waiting = 0
        self.in_flight = 0
        self.answered = 0
        self.failed = 0
        # So that nobody is asked for a verdict before there may be one.
        self.some_in_trouble = False
        # This process is too busy to tell a slow host from its own delays.
        self.strained = False

    def add(self, leased: Leased, now: float) -> list[Lease]:
        """Take leased jobs into the window; return those to give back, of hosts for which they were too many."""
        excess: list[Lease] = []
        had: dict[str, int] = {}
        for lease in leased.leases:
            host = self._host(lease.job.host)
            had.setdefault(host.name, len(host.waiting))
            self._order += 1
            entry = (-lease.job.priority, self._order, lease)
            # Leases come by priority; only one that overtakes what already waits has to be sorted in.
            if host.waiting and entry[0] < host.waiting[-1][0]:
                host.waiting = deque(sorted([*host.waiting, entry], key=itemgetter(0, 1)))
            else:
                host.waiting.append(entry)
        self.waiting += len(leased.leases)
        for name, waiting in had.items():
            host = self._hosts[name]
            host.backlog = waiting + leased.backlog.get(name, len(host.waiting) - waiting)
            # The queue knew nothing of this host's own limits if it was not in the window.
            while len(host.waiting) > max(host.room, waiting):
                excess.append(host.waiting.pop()[2])
            # Anew even if it is listed: it may have become more urgent than its entry says.
            self._relist(host, now)
        self.waiting -= len(excess)
        return excess

    def next(self, now: float) -> Lease | None:
        """Return a job that may start now and count it as in flight, or None if there is none."""
        timed = self._timed
        while timed and timed[0][0] <= now:
            _, order, host = heapq.heappop(timed)
            if order == host.entry:
                self._relist(host, now)
        ready = self._ready
        while ready:
            _, _, order, host = heapq.heappop(ready)
            if order != host.entry:
                continue
            if host.free_at > now:
                self._relist(host, now)  # it was told to rest after it had been listed
                continue
            lease = host.waiting.popleft()[2]
            host.in_flight += 1
            host.backlog -= 1
            self.waiting -= 1
            self.in_flight += 1
            if host.limits.interval:
                host.was_free_at = host.free_at
                host.free_at = next_start(host.free_at, now, host.limits)
            self._relist(host, now)
            return lease
        return None

    def done(self, lease: Lease, started: float, now: float) -> None:
        """Give back the slot of a job that ``next`` returned at ``started``."""
        host = self._hosts[lease.job.host]
        host.latency += (now - started - host.latency) * _SMOOTHING
        self._latency += (now - started - self._latency) * _SMOOTHING
        host.in_flight -= 1
        self.in_flight -= 1
        if not host.entry:
            self._relist(host, now)
        self._forget(host, now)

    def well(self, lease: Lease, started: float, now: float, latency: float | None) -> None:
        """Take into account that the host of a job in flight answered, and within what time if that is known."""
        self.answered += 1
        host = self._hosts[lease.job.host]
        if host.care.answered(lease.job.url, started, now, None if self.strained else latency):
            self._adjust(host, now)

    def badly(self, lease: Lease, failure: Failure, started: float, now: float) -> list[Lease]:
        """Take a failure of the host of a job in flight into account; return leases to give back if it is paused."""
        self.failed += 1
        host = self._hosts[lease.job.host]
        changed = host.care.slower(lease.job.url, failure, started, now, host.in_flight)
        pause = host.care.pause(lease.job.url, failure, started, now)
        if pause is None:
            if changed:
                self._adjust(host, now)
            return []
        self.some_in_trouble = True
        self._adjust(host, now)
        if not pause or not host.care.paused:
            return []
        host.free_at = max(host.free_at, now + pause)
        return self._drop(host)

    def badly_elsewhere(self, url: str, name: str, failure: Failure, started: float, now: float) -> None:
        """Take into account that a host failed to which a job of another was redirected, at ``url``.

        It is slowed down, but neither paused nor given up: whether somebody is there, its own jobs find out.
        """
        host = self._host(name)
        if host.care.slower(url, failure, started, now, host.in_flight):
            self._adjust(host, now)

    def may_retry(self, name: str, now: float) -> bool:
        """Tell whether another retry of a retry is within the budget of a host, and count it."""
        return self._host(name).care.may_retry(now)

    def verdict(self, lease: Lease, now: float) -> Rejection | float | None:
        """Return why a job that ``next`` has just returned is not to be fetched: for good, or for so many seconds.

        None if it is. To be asked only if ``some_in_trouble``, and at once, so that the start is not counted.
        """
        host = self._hosts[lease.job.host]
        care = host.care
        verdict = care.verdict(lease.job.url, now) if care.breakers else None
        if verdict is None:
            if care.given_up:
                # Another origin of the same host, of which nothing is known.
                care.given_up = False
                self._adjust(host, now)
        elif host.limits.interval:
            host.free_at = host.was_free_at
            self._relist(host, now)
        return verdict

    def slow_down(self, name: str, crawl_delay: float, now: float) -> None:
        """Keep to what the robots.txt of a host asks for, in seconds between two starts, from now on."""
        host = self._host(name)
        crawl_delay = min(crawl_delay, LONGEST_CRAWL_DELAY)
        # A host may have several files, one for each port; the strictest holds.
        if crawl_delay > host.care.crawl_delay:
            host.care.crawl_delay = crawl_delay
            self._adjust(host, now)

    def rest(self, name: str, until: float, now: float) -> list[Lease]:
        """Start nothing more on a host before ``until``; return leases to give back, if that is not soon."""
        host = self._host(name)
        host.free_at = max(host.free_at, until)
        return self._drop(host) if host.free_at > now + _HORIZON else []

    @property
    def has_ready(self) -> bool:
        """Tell whether some host may be asked now; ``next`` has the last word."""
        return bool(self._ready)

    def wake_at(self) -> float | None:
        """Return when a job becomes startable by the passing of time alone, or None if none waits for that."""
        timed = self._timed
        while timed and timed[0][1] != timed[0][2].entry:
            heapq.heappop(timed)
        return timed[0][0] if timed else None

    def demand(self, now: float) -> Demand:
        """Say what to lease next."""
        room = {}
        again = math.inf
        for host in list(self._hosts.values()):
            if self._forget(host, now):
                continue
            if host.free_at <= now + _HORIZON:
                room[host.name] = max(0, host.room - len(host.waiting))
            else:
                room[host.name] = 0
                again = min(again, host.free_at - _HORIZON - now)
        limit = max(0, self.window - self.waiting)
        return Demand(limit, self._default_room, room, None if again == math.inf else again)

    def drop_waiting(self) -> list[Lease]:
        """Take every job that has not started out of the window."""
        return [lease for host in self._hosts.values() for lease in self._drop(host)]

    def hosts(self) -> Iterator[Host]:
        """Yield the hosts in the window, for display."""
        return iter(self._hosts.values())

    def _drop(self, host: Host) -> list[Lease]:
        dropped = [entry[2] for entry in host.waiting]
        host.waiting.clear()
        host.entry = 0
        self.waiting -= len(dropped)
        return dropped

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            # Rows that can not be fetched have no host, and nothing to be polite to.
            configured = self._limits_of(name) if name else UNLIMITED
            limits, care = configured, self._remembered.pop(name, None)
            if care is None:
                care = Care.begin(self._settings, configured)
            else:
                limits = care.limits(configured)
            host = self._hosts[name] = Host(name, configured, care, limits, self._room(limits), deque())
        return host

    def _adjust(self, host: Host, now: float) -> None:
        """Have the limits follow what has been learnt about a host."""
        before, host.limits = host.limits, host.care.limits(host.configured)
        host.room = self._room(host.limits)
        if host.limits.interval > before.interval:
            host.free_at = max(host.free_at, now + host.limits.interval)
        self._relist(host, now)

    def _room(self, limits: HostLimits) -> int:
        """Return how many jobs of a host to hold: its share of the window if every slot were taken."""
        share = max(1, self.window * min(limits.concurrency, self._concurrency) // self._concurrency)
        if limits.interval:
            share = min(share, max(1, math.ceil(_HORIZON / limits.interval)))
        return share

    def _relist(self, host: Host, now: float) -> None:
        if not host.waiting or host.in_flight >= host.limits.concurrency:
            host.entry = 0
            return
        self._order += 1
        host.entry = self._order
        if host.free_at > now:
            heapq.heappush(self._timed, (host.free_at, self._order, host))
        else:
            heapq.heappush(self._ready, (host.waiting[0][0], -self._to_go(host), self._order, host))
            if len(self._ready) > _MOST_STALE * len(self._hosts) + _SMALLEST_WINDOW:
                self._ready = [entry for entry in self._ready if entry[2] == entry[3].entry]
                heapq.heapify(self._ready)

    def _to_go(self, host: Host) -> float:
        """Return how long the jobs of a host will take, in terms of the time that one job takes."""
        limits = host.limits
        pace = 1 / min(limits.concurrency, self._concurrency)
        if limits.interval:
            pace = max(pace, limits.interval / max(self._latency, _SHORTEST_LATENCY))
        return host.backlog * pace

    def _forget(self, host: Host, now: float) -> bool:
        """Drop a host that has nothing here and no pause to remember, so that memory does not grow with hosts."""
        # What a rate may catch up with is remembered, too: a host must not earn it anew by being forgotten.
        if host.waiting or host.in_flight or host.free_at + (CATCH_UP if host.limits.interval else 0.0) > now:
            return False
        self._hosts.pop(host.name, None)
        if host.care.notable:
            self._remembered[host.name] = host.care
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return True
