"""Several engines of one process, with hosts and slots that they share; fakes at both ends."""

from __future__ import annotations

import asyncio

import pytest
from unit.engine.test_engine import NO_WAIT, Bench, ListSource, expected, jobs, until

from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.slots import Slots
from fetcher.errors import ErrorKind, FetchError, SinkError
from fetcher.model import Outcome
from fetcher.testing import MemorySink, ok


class Process:
    """What the engines of a process share."""

    def __init__(self, concurrency=100, **limits):
        self.hosts = Hosts(LimitSettings(concurrency=concurrency, **limits))
        self.slots = Slots(concurrency)
        self.log = []

    def bench(self, count, weight=1.0, priority=0, respond=ok, hosts=1, **options):
        name = len(self.log)

        def answer(job):
            self.log.append(share)
            return respond(job)

        share = self.slots.share(weight, priority)
        bench = Bench(ListSource(jobs(count, hosts=hosts)), respond=answer, slots=share, hosts=self.hosts, **options)
        bench.share, bench.name = share, name
        return bench

    @property
    def is_idle(self):
        return (self.slots.in_flight, self.slots.waiting, [host.in_flight for host in self.hosts if host.lines]) == (
            0,
            0,
            [],
        )


def take_time(transport, seconds):
    """Have every fetch take some time: answers at once come faster than jobs are leased."""
    fetch = transport.fetch

    async def slowly(job, within):
        await asyncio.sleep(seconds)
        return await fetch(job, within)

    transport.fetch = slowly


async def run_all(*benches):
    async with asyncio.timeout(30):
        await asyncio.gather(*(bench.run() for bench in benches))
    for bench in benches:
        assert bench.engine.accounted


async def test_all_engines_together_keep_to_the_limits_of_a_host():
    process, gate = Process(per_host={"concurrency": 3}), asyncio.Event()
    benches = [process.bench(20, gate=gate) for _ in range(3)]
    run = asyncio.ensure_future(run_all(*benches))
    most = 0
    await until(lambda: sum(bench.transport.in_flight for bench in benches) == 3)
    for _ in range(50):
        await asyncio.sleep(0)
        most = max(most, sum(bench.transport.in_flight for bench in benches))
    assert most == 3
    gate.set()
    await run
    assert process.is_idle


@pytest.mark.parametrize("weight", [1.0, 3.0])
async def test_engines_that_wait_for_one_host_have_turns_by_weight(weight):
    process, gate = Process(per_host={"concurrency": 1}), asyncio.Event()
    one, two = process.bench(150, gate=gate), process.bench(150, weight=weight, gate=gate)
    for bench in (one, two):
        take_time(bench.transport, 0.003)
    run = asyncio.ensure_future(run_all(one, two))
    await until(lambda: one.engine.scheduler.waiting >= 5 and two.engine.scheduler.waiting >= 5)
    gate.set()
    await run
    first = process.log[:100]
    assert first.count(two.share) == pytest.approx(100 * weight / (1 + weight), abs=8)


async def test_engines_that_wait_for_slots_have_them_by_weight():
    process, gate = Process(concurrency=8, per_host={"concurrency": 50}), asyncio.Event()
    one, two = process.bench(400, hosts=20, gate=gate), process.bench(400, hosts=20, weight=3.0, gate=gate)
    for bench in (one, two):
        take_time(bench.transport, 0.003)
    run = asyncio.ensure_future(run_all(one, two))
    await until(lambda: one.share.waiting and two.share.waiting)
    gate.set()
    await run
    some = process.log[50:300]
    assert some.count(two.share) / len(some) == pytest.approx(0.75, abs=0.05)


async def test_a_small_batch_ends_long_before_a_large_one_that_began_before_it():
    process, gate = Process(concurrency=5, per_host={"concurrency": 5}), asyncio.Event()
    large = process.bench(3000, hosts=50, gate=gate)
    running = asyncio.ensure_future(run_all(large))
    await until(lambda: large.transport.in_flight == 5)
    small = process.bench(20, hosts=5, gate=gate)
    ended = asyncio.ensure_future(run_all(small))
    await until(lambda: small.share.waiting)
    gate.set()
    await ended
    assert large.engine.done < 2000
    await running
    assert process.is_idle


async def test_a_batch_of_higher_priority_has_all_slots_that_it_can_use():
    process, gate = Process(concurrency=4, per_host={"concurrency": 50}), asyncio.Event()
    low = process.bench(500, hosts=10, gate=gate)
    running = asyncio.ensure_future(run_all(low))
    await until(lambda: low.transport.in_flight == 4)
    high = process.bench(100, hosts=10, priority=1, gate=gate)
    ended = asyncio.ensure_future(run_all(high))
    await until(lambda: high.share.waiting)
    gate.set()
    await asyncio.gather(ended, running)
    first = process.log.index(high.share)
    assert process.log[first : first + 60].count(low.share) <= 8


async def test_the_concurrency_of_a_batch_stays_a_bound_of_its_own():
    process, gate = Process(concurrency=50, per_host={"concurrency": 50}), asyncio.Event()
    benches = [process.bench(100, gate=gate, limits=LimitSettings(concurrency=most)) for most in (3, 60)]
    run = asyncio.ensure_future(run_all(*benches))
    await until(lambda: process.slots.in_flight == 50)
    await until(lambda: benches[0].transport.in_flight == 3)
    gate.set()
    await run
    assert benches[0].transport.most_in_flight == 3


async def test_an_engine_that_is_drained_leaves_its_hosts_to_the_others():
    process, gate = Process(per_host={"concurrency": 2}), asyncio.Event()
    one, two = process.bench(50, gate=gate), process.bench(50, gate=gate)
    runs = [asyncio.ensure_future(bench.run()) for bench in (one, two)]
    await until(lambda: one.engine.scheduler.waiting and two.engine.scheduler.waiting)
    one.engine.drain()
    gate.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*runs)
    assert two.ids == expected(50)
    assert len(one.sink.results) < 50
    assert (one.engine.scheduler.waiting, one.engine.queued) == (0, 50 - len(one.sink.results))
    assert list(process.slots.shares()) == []
    assert process.is_idle


async def test_an_engine_that_is_drained_does_not_wait_for_slots_that_others_have():
    process = Process(concurrency=2)
    other = process.slots.share()
    for _ in range(2):
        await other.acquire()
    bench = process.bench(9, shutdown_timeout=600)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.share.waiting)
    bench.engine.drain()
    await asyncio.wait_for(run, 5)
    assert bench.transport.jobs == []
    assert (process.slots.in_flight, process.slots.waiting) == (2, 0)


async def test_an_engine_that_is_cut_off_leaves_its_slots_to_the_others():
    process, gate = Process(concurrency=2, per_host={"concurrency": 2}), asyncio.Event()
    one, two = process.bench(9, gate=asyncio.Event(), shutdown_timeout=0.01), process.bench(9, gate=gate)
    first = asyncio.ensure_future(one.run())
    await until(lambda: one.transport.in_flight == 2)
    second = asyncio.ensure_future(run_all(two))
    await until(lambda: two.engine.scheduler.waiting)
    one.engine.drain()
    await first
    gate.set()
    await second
    assert process.is_idle


async def test_a_host_that_tells_one_engine_to_wait_is_left_alone_by_the_other():
    process, gate = Process(per_host={"concurrency": 20}), asyncio.Event()

    def refuse(job):
        if job.host != "h0.test":
            return ok(job)
        response = ok(job, status=429)
        response.headers.append(("Retry-After", "60"))
        return response

    one = process.bench(1, respond=refuse)
    two = process.bench(80, hosts=2, gate=gate, limits=LimitSettings(concurrency=16))
    running = asyncio.ensure_future(two.run())
    await until(lambda: two.engine.scheduler.waiting >= 10)
    other = asyncio.ensure_future(one.run())
    await until(lambda: len(one.transport.jobs) == 1)
    await until(lambda: two.engine.scheduler.demand(asyncio.get_running_loop().time()).room["h0.test"] == 0)
    before = sum(job.host == "h0.test" for job in two.transport.jobs)
    gate.set()
    await until(lambda: len(two.sink.results) == 40 + before)
    assert sum(job.host == "h0.test" for job in two.transport.jobs) == before
    assert two.engine.scheduler.waiting == 0
    for bench in (one, two):
        bench.engine.drain()
    await asyncio.gather(running, other)


async def test_a_host_that_one_engine_found_down_costs_the_other_no_attempts():
    process = Process(breaker={"failures": 2, "pause": "20ms", "give_up": 1})

    def nobody(job):
        raise FetchError(ErrorKind.CONNECT_REFUSED, "refused", sent=False)

    one, two = process.bench(30, respond=nobody), process.bench(30, respond=nobody)
    await run_all(one)
    asked = len(process.log)
    assert asked < 30
    await run_all(two)
    assert len(process.log) == asked
    assert {result.outcome for result in two.sink.results} == {Outcome.SKIPPED}


async def test_an_idle_engine_looks_again_at_the_time_that_another_has_changed(monkeypatch):
    more, looked = asyncio.Event(), asyncio.Event()
    bench = Bench(ListSource([], more=more))
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.engine._crew._idle)
    monkeypatch.setattr(bench.engine.scheduler, "wake_at", lambda: asyncio.get_running_loop().time() + 0.005)
    monkeypatch.setattr(bench.engine.scheduler, "next", lambda _: looked.set())
    bench.engine.look_again(ready=False)
    await asyncio.wait_for(looked.wait(), 5)
    more.set()
    await run


async def test_an_engine_that_fails_takes_no_other_with_it():
    process, sink = Process(per_host={"concurrency": 2}), MemorySink()
    sink.fail_with = "no room"
    one, two = process.bench(3000, sink=sink), process.bench(300)
    take_time(two.transport, 0.001)
    runs = [asyncio.ensure_future(bench.run()) for bench in (one, two)]
    await until(lambda: one.transport.jobs)
    while not runs[0].done():
        one.engine.look_again(ready=True)  # as another engine does at any moment
        await asyncio.sleep(0)
    with pytest.raises(SinkError, match="no room"):
        await runs[0]
    async with asyncio.timeout(10):
        await runs[1]
    assert two.ids == expected(300)
    assert process.is_idle


# While it runs


async def test_other_limits_hold_at_once_and_no_job_is_lost():
    gate = asyncio.Event()
    bench = Bench(ListSource(jobs(300, hosts=3)), gate=gate, limits=LimitSettings(concurrency=4), retry=NO_WAIT)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 4)
    bench.engine.reconfigure(LimitSettings(concurrency=50, per_host={"concurrency": 10}))
    await until(lambda: bench.transport.in_flight == 30)
    bench.engine.reconfigure(LimitSettings(concurrency=3))
    gate.set()
    gate.clear()
    await until(lambda: bench.transport.in_flight == 3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.transport.in_flight == 3
    bench.engine.reconfigure(LimitSettings(concurrency="auto", per_host={"concurrency": 10}))
    await until(lambda: bench.transport.in_flight == 20)
    gate.set()
    async with asyncio.timeout(10):
        await run
    assert bench.ids == expected(300)


async def test_other_limits_of_the_process_hold_for_the_engines_at_once():
    process, gate = Process(concurrency=4, per_host={"concurrency": 2}), asyncio.Event()
    benches = [process.bench(60, hosts=2, gate=gate) for _ in range(2)]
    run = asyncio.ensure_future(run_all(*benches))
    await until(lambda: sum(bench.transport.in_flight for bench in benches) == 4)
    process.hosts.reconfigure(LimitSettings(per_host={"concurrency": 6}), asyncio.get_running_loop().time())
    process.slots.resize(20)
    await until(lambda: sum(bench.transport.in_flight for bench in benches) == 12)
    gate.set()
    await run


# What is told


async def test_who_observes_is_told_of_every_result_once_and_not_before_it_is_acknowledged():
    told, acknowledged = [], []

    def observe(results):
        acknowledged.append(bench.engine.delivery.tally.total)
        told.extend(result.job_id for result in results)

    bench = Bench(ListSource(jobs(1500)), observe=observe)
    await bench.run()
    assert sorted(told) == sorted(expected(1500))
    assert all(told_then >= 1 for told_then in acknowledged)
    assert len(acknowledged) > 1


async def test_nobody_is_told_of_what_is_not_acknowledged():
    told = []
    bench = Bench(ListSource(jobs(50)), observe=told.extend)

    async def dies(*args):
        raise RuntimeError("the disk is full")

    bench.queue.ack = dies
    with pytest.raises(RuntimeError, match="disk is full"):
        await bench.run()
    assert told == []


async def test_retries_are_counted_by_their_reason():
    seen = set()

    def respond(job):
        number = int(job.id.split("-")[1])
        if job.id in seen or number % 3 == 0:
            return ok(job)
        seen.add(job.id)
        if number % 3 == 1:
            return ok(job, status=503)
        raise FetchError(ErrorKind.CONNECTION_RESET, "reset", sent=False)

    bench = Bench(ListSource(jobs(30)), respond=respond)
    await bench.run()
    assert bench.engine.retry_reasons == {"http_5xx": 10, "connection_reset": 10}
    assert bench.engine.retries == 20
