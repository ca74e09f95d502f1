"""Several engines that share hosts, on a heap of events instead of a loop.

An engine looks for jobs when one of its own has ended, when it is told to, and when its timer fires, and leases more
when one of its own has ended, when it is told to, and when it is time for it, and not else: as the real one does. So
what nobody tells it of, it misses.
"""

from __future__ import annotations

import heapq
from collections import Counter

from fetcher.engine.hosts.host import Hosts
from fetcher.engine.scheduler import Scheduler
from fetcher.interfaces import Lease, Leased
from fetcher.model import Job


class World:
    """The clock, the hosts, and every start as (time, engine, host)."""

    def __init__(self, limits):
        self.now = 0.0
        self.hosts = Hosts(limits)
        self.engines = []
        self.starts = []
        self.in_flight = Counter()
        self.most = Counter()
        self._events, self._order = [], 0

    def at(self, when, event):
        self._order += 1
        heapq.heappush(self._events, (when, self._order, event))

    def run(self, until):
        """Let time pass; return whether there still is something to come."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until
        return bool(self._events)

    def started(self, engine, host=None, since=0.0):
        return sum(one is engine and host in (None, name) and when >= since for when, one, name in self.starts)


class SimulatedEngine:
    """Works on jobs that take ``serve(host)`` seconds, at most ``concurrency`` at a time.

    ``jobs``: how many it has of each host, of which it leases ``held`` at a time at most. ``stuck``: it says that it
    could start a job, but does not. ``full``: it says that it could not.
    """

    def __init__(self, world, limits, jobs, serve=lambda _: 0.1, held=20, **kwargs):
        self.world, self.serve, self.held, self.concurrency = world, serve, held, limits.most
        self.left = Counter(jobs)
        self.total = Counter(jobs)
        self.on_the_way = []
        self.stuck = self.full = False
        self.running = 0
        self.ended = Counter()
        self.returned = []
        self._number = 0
        self._looking = self._feeding = False
        self._timer_at = self._feed_at = None
        self.scheduler = Scheduler(limits, world.hosts, owner=self, **kwargs)
        world.engines.append(self)

    def begin(self):
        self.feed()
        self.look_soon()

    def feed(self):
        """Lease what there is room for, and look again when there will be some."""
        demand, leases = self.scheduler.demand(self.world.now), []
        for host, left in self.left.items():
            count = min(left, self.held, demand.room.get(host, demand.per_host))
            for _ in range(count):
                self._number += 1
                job = Job(id=str(self._number), url=f"http://{host}/", host=host)
                leases.append(Lease(job, f"{id(self)}-{self._number}", 1))
            self.left[host] -= count
        if leases:
            backlog = Counter(lease.job.host for lease in leases) + self.left
            excess = self.scheduler.add(Leased(leases, None, dict(backlog)), self.world.now)
            for lease in excess:
                self.left[lease.job.host] += 1
            if len(excess) < len(leases):
                self.look_soon()
        if demand.again is not None and (self._feed_at is None or self.world.now + demand.again < self._feed_at):
            self._feed_at = self.world.now + max(demand.again, 0.01)
            self.world.at(self._feed_at, self.feed_again)

    def feed_again(self):
        self._feed_at = None
        self.feed()

    def take_back(self, leases):
        self.returned += leases
        for lease in leases:
            self.left[lease.job.host] += 1
        self.world.at(self.world.now + 0.05, self.feed)

    def lease_again(self):
        if not self._feeding:
            self._feeding = True
            self.world.at(self.world.now + 0.01, self.feed_soon)

    def feed_soon(self):
        self._feeding = False
        self.feed()

    def may_start(self):
        return not self.full and self.running < self.concurrency

    def look_again(self, *, ready):
        if ready:
            self.look_soon()
        else:
            self.set_timer()

    def look_soon(self):
        if not self._looking:
            self._looking = True
            self.world.at(self.world.now, self.look)

    def set_timer(self):
        wake_at = self.scheduler.wake_at()
        if wake_at is not None and (self._timer_at is None or wake_at < self._timer_at):
            self._timer_at = wake_at
            self.world.at(max(wake_at, self.world.now), self.on_timer)

    def on_timer(self):
        self._timer_at = None
        self.look()

    def look(self):
        self._looking = False
        while not self.stuck and not self.full and self.running < self.concurrency:
            lease = self.scheduler.next(self.world.now)
            self.set_timer()
            if lease is None:
                break
            self.start(lease)

    def start(self, lease):
        world, host, started = self.world, lease.job.host, self.world.now
        self.running += 1
        self.on_the_way.append(lease)
        world.starts.append((started, self, host))
        world.in_flight[host] += 1
        world.most[host] = max(world.most[host], world.in_flight[host])
        world.at(started + self.serve(host), lambda: self.end(lease, started))

    def end(self, lease, started):
        self.running -= 1
        self.on_the_way.remove(lease)
        self.ended[lease.job.host] += 1
        self.world.in_flight[lease.job.host] -= 1
        self.scheduler.done(lease, started, self.world.now)
        self.look()
        self.feed()
