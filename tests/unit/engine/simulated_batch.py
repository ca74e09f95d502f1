"""A whole batch, simulated: MemoryQueue and Scheduler together, on a heap of events instead of a loop."""

from __future__ import annotations

import heapq
from collections import Counter

from fetcher.engine.scheduler import Scheduler
from fetcher.interfaces import Ack, Nack
from fetcher.model import Job, Outcome
from fetcher.queues.memory import MemoryQueue

LEASE_PAUSE = 0.01  # as the engine has it


class Simulation:
    """Runs jobs that take ``serve(job)`` seconds; at most ``read_ahead`` unfinished are in the queue.

    ``conclude(simulation, lease, started)`` says what came of an attempt: None if the job has ended, or in how many
    seconds it is tried again. ``skipped`` has the jobs of hosts that were given up, and why.
    """

    def __init__(self, jobs, limits, serve, read_ahead=None, conclude=None, budgets=()):
        self.jobs, self.serve, self.limits = jobs, serve, limits
        self.conclude = conclude or (lambda *_: None)
        self.skipped = {}
        self.read_ahead = read_ahead or len(jobs)
        self.now = 0.0
        self.scheduler = Scheduler(limits, owner=self, budgets=budgets)
        self.queue = MemoryQueue(lease=1e9, clock=lambda: self.now)
        self.events, self.order = [], 0
        self.fed = self.ended = self.in_flight = 0
        self.starts = []
        self.in_flight_of = Counter()
        self.most_of = Counter()
        self.most = 0
        self.lease_at = None
        self.returned = 0

    def run(self):
        self.feed()
        self.lease()
        while self.ended < len(self.jobs):
            self.start()
            self.now, _, event = heapq.heappop(self.events)
            event()
        return self.now

    def at(self, when, event):
        self.order += 1
        heapq.heappush(self.events, (when, self.order, event))

    def feed(self):
        count = min(len(self.jobs) - self.fed, self.read_ahead - (self.fed - self.ended))
        if count > 0:
            call(self.queue.put(self.jobs[self.fed : self.fed + count], {}))
            self.fed += count

    def lease(self):
        if self.lease_at is not None and self.lease_at > self.now:
            return
        self.lease_at = None
        demand = self.scheduler.demand(self.now)
        if demand.limit:
            some = call(self.queue.lease(demand.limit, demand.per_host, demand.room))
            back = self.scheduler.add(some, self.now)
            call(self.queue.nack([Nack(lease, 0.0) for lease in back]))
            if back or some.next_due is not None:
                wait = 0.0 if back else some.next_due
                self.lease_by(self.now + max(wait, LEASE_PAUSE))
        if demand.again is not None:
            self.lease_by(self.now + max(demand.again, LEASE_PAUSE))

    # As its scheduler sees it: `fetcher.engine.hosts.host.Owner`

    def may_start(self):
        return self.in_flight < self.limits.concurrency

    def look_again(self, *, ready):
        if ready:
            self.at(self.now, lambda: None)

    def take_back(self, leases):
        self.returned += len(leases)
        self.give_back(leases)
        self.lease_again()

    def lease_again(self):
        self.lease_by(self.now + LEASE_PAUSE)

    def lease_by(self, when):
        if self.lease_at is None or when < self.lease_at:
            self.lease_at = when
            self.at(when, self.lease)

    def start(self):
        while self.in_flight < self.limits.concurrency:
            lease = self.scheduler.next(self.now)
            if lease is None:
                break
            host, started = lease.job.host, self.now
            self.in_flight += 1
            verdict = self.scheduler.verdict(lease, started) if self.scheduler.some_in_trouble else None
            if verdict is not None:
                self.put_off(lease, verdict)
                continue
            self.in_flight_of[host] += 1
            self.most = max(self.most, self.in_flight)
            self.most_of[host] = max(self.most_of[host], self.in_flight_of[host])
            self.starts.append((started, host))
            self.at(started + self.serve(lease.job), lambda lease=lease, started=started: self.end(lease, started))
        wake_at = self.scheduler.wake_at()
        if wake_at is not None and self.in_flight < self.limits.concurrency:
            self.at(max(wake_at, self.now), lambda: None)

    def put_off(self, lease, verdict):
        self.in_flight -= 1
        self.scheduler.done(lease, self.now, self.now)
        if isinstance(verdict, float):
            self.give_back([lease], verdict)
        else:
            self.skipped[lease.job.id] = verdict.message
            self.ended += 1
            assert call(self.queue.ack([Ack(lease, Outcome.OK)], {})) == 0
        self.at(self.now, self.feed)
        self.lease_by(self.now + LEASE_PAUSE)

    def end(self, lease, started):
        self.in_flight -= 1
        self.in_flight_of[lease.job.host] -= 1
        again = self.conclude(self, lease, started)
        self.scheduler.done(lease, started, self.now)
        if again is None:
            self.ended += 1
            assert call(self.queue.ack([Ack(lease, Outcome.OK)], {})) == 0
        else:
            self.give_back([lease], again)
        self.feed()
        self.lease_by(self.now + LEASE_PAUSE)

    def give_back(self, leases, delay=0.0):
        assert call(self.queue.nack([Nack(lease, delay) for lease in leases])) == 0


def call(coroutine):
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("a queue in memory never waits")


def job(host, name, priority=0, port=80):
    return Job(id=str(name), url=f"http://{host}:{port}/", host=host, priority=priority)
