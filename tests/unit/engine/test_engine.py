"""The whole way of a job with fakes at both ends; no sleep but those that only let other tasks run."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter

import pytest

from fetcher.engine import engine as module
from fetcher.engine import scheduler as scheduler_module
from fetcher.engine.engine import Engine
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.parts import Parts
from fetcher.engine.retry import RetrySettings
from fetcher.engine.slots import Slots
from fetcher.errors import ErrorKind, FetchError, SinkError, SourceError, StateError
from fetcher.interfaces import Chunk
from fetcher.model import Job, Outcome, Redirect, Rejection
from fetcher.queues.memory import MemoryQueue
from fetcher.queues.sqlite import SqliteQueue
from fetcher.testing import FakeClock, MemorySink, MockTransport, ok

NO_WAIT = RetrySettings(backoff=0)


@pytest.fixture(autouse=True)
async def nothing_left_behind():
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    await asyncio.sleep(0)
    assert problems == []


class ListSource:
    """Yields jobs in chunks; ``failing`` is raised after them; ``more`` is waited for before they end."""

    def __init__(self, jobs, size=10, failing=None, more=None):
        self.jobs, self.size, self.failing, self.more = jobs, size, failing, more

    def check(self):
        pass

    async def read(self, position):
        for start in range(int(position or 0), len(self.jobs), self.size):
            end = min(start + self.size, len(self.jobs))
            yield Chunk([job.__copy__() for job in self.jobs[start:end]], str(end))
        if self.more is not None:
            await self.more.wait()
        if self.failing is not None:
            raise self.failing


def jobs(count, hosts=5, **fields):
    return [
        Job(id=str(n), url=f"http://h{n % hosts}.test/{n}", host=f"h{n % hosts}.test", **fields) for n in range(count)
    ]


class Bench:
    """An engine and what it is made of."""

    def __init__(self, source, *, respond=None, gate=None, queue=None, sink=None, limits=None, retry=NO_WAIT, **parts):
        self.queue = queue or MemoryQueue()
        self.transport = MockTransport(respond, gate=gate)
        self.sink = sink or MemorySink()
        sources = source if isinstance(source, list) else [source]
        self.engine = Engine(
            Parts(
                batch="b",
                sources=sources,
                queue=self.queue,
                transports={"http": self.transport},
                sinks={"sink:0": self.sink},
                limits=limits or LimitSettings(),
                retry=retry,
                **parts,
            )
        )

    async def run(self):
        marks = await self.queue.open()
        await self.engine.start(marks)
        try:
            await self.engine.run(marks)
        finally:
            await self.engine.close()

    @property
    def ids(self):
        return sorted((result.job_id for result in self.sink.results), key=lambda name: int(name.split("-")[1]))


async def until(condition):
    """Let the loop run until something holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.001)


def expected(count):
    return [f"0-{n}" for n in range(count)]


# A run to its end


async def test_every_job_has_exactly_one_record():
    bench = Bench(ListSource(jobs(500)))
    await bench.run()
    assert bench.ids == expected(500)
    assert bench.engine.finished
    assert (bench.engine.added, bench.engine.done, bench.engine.left) == (500, 500, 0)
    counts = await bench.queue.counts()
    assert (counts.left, counts.outcomes) == (0, {Outcome.OK: 500})
    assert not bench.transport.is_open
    assert not bench.sink.is_open


async def test_a_batch_of_nothing_ends():
    bench = Bench([ListSource([]), ListSource([])])
    await bench.run()
    assert bench.engine.finished
    assert bench.sink.results == []


async def test_several_sources_are_told_apart():
    bench = Bench([ListSource(jobs(20)), ListSource(jobs(30))])
    await bench.run()
    assert Counter(result.job_id[0] for result in bench.sink.results) == {"0": 20, "1": 30}


async def test_dedupe_drops_what_was_asked_before():
    bench = Bench([ListSource(jobs(20)), ListSource(jobs(30))], dedupe=True)
    await bench.run()
    assert len(bench.sink.results) == 30
    assert bench.engine.duplicates == 20


async def test_a_finished_batch_is_not_done_again():
    queue, sink = MemoryQueue(), MemorySink()
    await Bench(ListSource(jobs(20)), queue=queue, sink=sink).run()
    bench = Bench(ListSource(jobs(20)), queue=queue, sink=sink)
    await bench.run()
    assert len(sink.results) == 20
    assert bench.transport.jobs == []


@pytest.mark.parametrize("concurrency", [1, 7, 50])
async def test_no_more_than_the_limit_is_in_flight(concurrency):
    gate = asyncio.Event()
    limits = LimitSettings(concurrency=concurrency, per_host={"concurrency": 100})
    bench = Bench(ListSource(jobs(300)), gate=gate, limits=limits)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == concurrency)
    gate.set()
    await run
    assert bench.transport.most_in_flight == concurrency
    assert bench.ids == expected(300)


async def test_no_more_than_the_limit_is_in_flight_for_a_host():
    gate = asyncio.Event()
    bench = Bench(ListSource(jobs(300)), gate=gate, limits=LimitSettings(per_host={"concurrency": 3}))
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 15)
    assert set(Counter(job.host for job in bench.transport.jobs).values()) == {3}
    gate.set()
    await run
    assert bench.transport.most_in_flight == 15


async def test_engines_may_share_their_slots():
    gate, slots = asyncio.Event(), Slots(5)
    benches = [Bench(ListSource(jobs(50)), gate=gate, slots=slots.share()) for _ in range(2)]
    runs = [asyncio.ensure_future(bench.run()) for bench in benches]
    together = 0

    def in_flight():
        nonlocal together
        now = sum(bench.transport.in_flight for bench in benches)
        together = max(together, now)
        return now

    await until(lambda: in_flight() == 5)
    for _ in range(20):
        await asyncio.sleep(0)
        in_flight()
    gate.set()
    await asyncio.gather(*runs)
    assert together == 5
    assert [len(bench.sink.results) for bench in benches] == [50, 50]
    assert (slots.in_flight, slots.waiting, list(slots.shares())) == (0, 0, [])


# Failures of jobs


async def test_a_failure_is_tried_again_and_attempts_are_counted():
    seen = Counter()

    def respond(job):
        seen[job.id] += 1
        return ok(job, status=503 if seen[job.id] < 3 else 200)

    bench = Bench(ListSource(jobs(20)), respond=respond)
    await bench.run()
    assert bench.ids == expected(20)
    assert {(result.attempts, result.outcome) for result in bench.sink.results} == {(3, Outcome.OK)}
    assert bench.engine.retries == 40
    assert bench.engine.delivery.tally.retries == 40


async def test_the_last_failure_is_the_record():
    def respond(job):
        raise FetchError(ErrorKind.CONNECT_REFUSED, "refused", sent=False)

    bench = Bench(ListSource(jobs(3)), respond=respond, retry=RetrySettings(attempts=4, backoff=0))
    await bench.run()
    kinds = {(result.attempts, result.outcome, result.error_kind) for result in bench.sink.results}
    assert kinds == {(4, Outcome.FAILED, ErrorKind.CONNECT_REFUSED)}
    assert len(bench.transport.jobs) == 12


async def test_a_rejected_row_is_skipped_and_never_fetched():
    rejected = [Job(id=f"{n}", url="", host="", rejected=Rejection(ErrorKind.INVALID_URL, "no")) for n in range(200)]
    bench = Bench([ListSource(rejected), ListSource(jobs(5))])
    await bench.run()
    assert Counter(result.outcome for result in bench.sink.results) == {Outcome.SKIPPED: 200, Outcome.OK: 5}
    assert len(bench.transport.jobs) == 5
    assert bench.engine.finished


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError(), TimeoutError(), RecursionError("deep")])
async def test_a_transport_that_fails_in_its_own_way_costs_one_job(error):
    def respond(job):
        if job.id == "0-3":
            raise error
        return ok(job)

    bench = Bench(ListSource(jobs(9)), respond=respond)
    await bench.run()
    assert bench.ids == expected(9)
    failed = [result for result in bench.sink.results if result.outcome is Outcome.FAILED]
    assert [(result.job_id, result.error_kind) for result in failed] == [("0-3", ErrorKind.INTERNAL)]


# Time


async def test_a_host_with_a_delay_is_asked_in_time_though_its_answers_are_slow():
    gate = asyncio.Event()
    limits = LimitSettings(per_host={"delay": 0.005, "concurrency": 4})
    bench = Bench(ListSource(jobs(8, hosts=1)), gate=gate, limits=limits)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 4)
    gate.set()
    await run
    assert bench.ids == expected(8)


async def test_a_delay_longer_than_the_window_looks_ahead_does_not_stall(monkeypatch):
    monkeypatch.setattr(scheduler_module, "HORIZON", 0.002)
    bench = Bench(ListSource(jobs(12, hosts=2)), limits=LimitSettings(per_host={"delay": 0.01}))
    async with asyncio.timeout(10):
        await bench.run()
    assert bench.ids == expected(12)


async def test_a_host_with_stricter_limits_than_the_rest_gives_back_what_it_can_not_start(monkeypatch):
    monkeypatch.setattr(scheduler_module, "HORIZON", 0.002)
    limits = LimitSettings(hosts={"*.test": {"delay": 0.005}})
    bench = Bench(ListSource(jobs(12, hosts=2)), limits=limits)
    async with asyncio.timeout(10):
        await bench.run()
    assert bench.ids == expected(12)


async def test_a_host_that_asks_for_rest_gets_it_and_all_its_jobs_end(monkeypatch):
    monkeypatch.setattr(scheduler_module, "HORIZON", 0.0)
    answered = []

    def respond(job):
        answered.append((time.monotonic(), job.host))
        if len(answered) == 1:
            response = ok(job, status=429)
            response.headers.append(("Retry-After", "9"))
            return response
        return ok(job)

    retry = RetrySettings(backoff=0, max_retry_after=0.05)
    limits = LimitSettings(per_host={"concurrency": 1})
    bench = Bench(ListSource(jobs(20, hosts=2)), respond=respond, limits=limits, retry=retry)
    async with asyncio.timeout(10):
        await bench.run()
    assert bench.ids == expected(20)
    rested = [when for when, host in answered if host == answered[0][1]]
    assert rested[1] - rested[0] >= 0.05


async def test_a_job_that_waits_for_its_time_while_all_workers_are_busy_keeps_nobody_awake(monkeypatch):
    """A timer that fires with nobody to wake must not be set again at once."""
    gate = asyncio.Event()
    limits = LimitSettings(concurrency=1, per_host={"delay": 0.005})
    bench = Bench(ListSource(jobs(4, hosts=1)), gate=gate, limits=limits)
    fired = 0
    on_timer = bench.engine._crew._on_timer

    def count():
        nonlocal fired
        fired += 1
        on_timer()

    monkeypatch.setattr(bench.engine._crew, "_on_timer", count)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: fired and bench.transport.in_flight)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert fired < 10
    gate.set()
    await run
    assert bench.ids == expected(4)


async def test_leases_are_renewed_while_a_job_takes_longer_than_their_term():
    gate = asyncio.Event()
    queue = MemoryQueue(lease=0.03)
    bench = Bench(ListSource(jobs(3)), gate=gate, queue=queue)
    renewed = 0
    extend = queue.extend

    async def counting(leases):
        nonlocal renewed
        renewed += bool(leases)
        return await extend(leases)

    queue.extend = counting
    run = asyncio.ensure_future(bench.run())
    await until(lambda: renewed > 6)
    gate.set()
    await run
    assert bench.ids == expected(3)
    assert len(bench.transport.jobs) == 3


async def test_a_process_that_was_stopped_for_longer_than_the_term_fetches_nothing_twice(monkeypatch):
    """As after Ctrl-Z and fg: on waking, a lease must not come before the renewal."""
    gate, more, clock = asyncio.Event(), asyncio.Event(), FakeClock()
    queue = MemoryQueue(lease=60.0, clock=clock)
    bench = Bench([ListSource(jobs(3)), ListSource(jobs(1), more=more)], gate=gate, queue=queue)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 4)
    clock.advance(100.0)
    bench.engine._holding.renewed -= 100.0  # the loop's clock went on as well
    bench.engine._want_lease.set()
    await until(lambda: not bench.engine._want_lease.is_set())
    for _ in range(20):
        await asyncio.sleep(0.001)
    gate.set()
    more.set()
    await run
    assert len(bench.transport.jobs) == 4
    assert len(bench.sink.results) == 4


# Hosts in trouble


async def test_a_crawl_delay_that_an_answer_carries_is_kept_from_then_on():
    asked = []

    def respond(job):
        asked.append(time.monotonic())
        response = ok(job)
        response.crawl_delay = 0.03
        return response

    bench = Bench(ListSource(jobs(5, hosts=1)), respond=respond, limits=LimitSettings(per_host={"concurrency": 1}))
    await bench.run()
    assert bench.ids == expected(5)
    assert min(b - a for a, b in itertools.pairwise(asked)) >= 0.029


def redirected(job, status):
    response = ok(job, status=status)
    response.final_url = "http://cdn.test/x"
    response.redirects = [Redirect(job.url, 302, response.final_url)]
    return response


@pytest.mark.parametrize("status", [429, 503])
async def test_a_host_that_jobs_are_redirected_to_is_asked_for_less_when_it_refuses_and_so_is_theirs(status):
    bench = Bench(
        ListSource(jobs(60, hosts=1)),
        respond=lambda job: redirected(job, status),
        retry=RetrySettings(attempts=1),
        limits=LimitSettings(breaker="off"),
    )
    run = asyncio.ensure_future(bench.run())
    scheduler = bench.engine.scheduler
    for name in ("cdn.test", "h0.test"):
        await until(lambda name=name: scheduler._shared.host(name).limits.concurrency < 8)
    bench.engine.drain()
    await run


async def test_a_redirect_to_a_host_that_answers_makes_no_host_of_it():
    bench = Bench(ListSource(jobs(20, hosts=1)), respond=lambda job: redirected(job, 404))
    await bench.run()
    assert "cdn.test" not in bench.engine.scheduler._shared._remembered
    assert bench.ids == expected(20)


async def test_the_jobs_of_a_host_that_is_given_up_end_as_skipped_and_those_of_others_do_not():
    def respond(job):
        if job.host == "h0.test":
            raise FetchError(ErrorKind.CONNECT_REFUSED, "refused", sent=False)
        return ok(job)

    rules = {"failures": 5, "pause": 0.01, "give_up": 2}
    bench = Bench(ListSource(jobs(1000)), respond=respond, limits=LimitSettings(breaker=rules))
    async with asyncio.timeout(20):
        await bench.run()
    assert bench.ids == expected(1000)
    assert bench.engine.accounted
    found = Counter((result.outcome, result.error_kind) for result in bench.sink.results)
    assert found[Outcome.OK, None] == 800
    assert found[Outcome.SKIPPED, ErrorKind.HOST_DOWN] > 150
    assert found.total() == 1000
    asked = Counter(job.id for job in bench.transport.jobs if job.host == "h0.test")
    skipped = {result.job_id: result.attempts for result in bench.sink.results if result.outcome is Outcome.SKIPPED}
    assert all(asked[name] == attempts for name, attempts in skipped.items())
    assert sum(asked.values()) < 60


async def test_a_run_can_be_drained_while_a_host_is_paused_and_its_jobs_are_kept():
    def respond(job):
        raise FetchError(ErrorKind.CONNECT_REFUSED, "refused", sent=False)

    queue = MemoryQueue()
    bench = Bench(ListSource(jobs(100, hosts=1)), respond=respond, queue=queue, limits=LimitSettings())
    run = asyncio.ensure_future(bench.run())
    await until(lambda: any(host.free_at > time.monotonic() + 5 for host in bench.engine.scheduler.hosts()))
    await until(lambda: not bench.engine.running and not bench.engine.scheduler.waiting)
    bench.engine.drain()
    async with asyncio.timeout(5):
        await run
    counts = await queue.counts()
    assert (counts.leased, counts.left) == (0, 100 - len(bench.sink.results))
    assert not any(result.outcome is Outcome.SKIPPED for result in bench.sink.results)


async def test_workers_that_are_too_many_leave_and_come_back_when_more_are_allowed():
    gate = asyncio.Event()
    limits = LimitSettings(concurrency="auto", per_host={"concurrency": 100})
    bench = Bench(ListSource(jobs(300)), gate=gate, limits=limits)
    engine = bench.engine
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 20)
    engine._pulse.allowed = 3
    release(gate)
    await until(lambda: bench.transport.in_flight == 3)
    assert len(engine._crew._workers) == 3
    engine._pulse.allowed = 50
    engine._crew.wake()
    await until(lambda: bench.transport.in_flight == 50)
    gate.set()
    await run
    assert bench.ids == expected(300)


def release(gate):
    """Let go those who wait, and no others."""
    gate.set()
    gate.clear()


async def test_retries_of_a_host_without_a_budget_for_them_are_put_off_and_not_dropped(monkeypatch):
    monkeypatch.setattr("fetcher.engine.hosts.budget.BURST", 0.0)
    bench = Bench(
        ListSource(jobs(10, hosts=1)),
        respond=lambda job: ok(job, status=500),
        retry=RetrySettings(attempts=3, backoff=0.001),
    )
    spread = []
    decide = module.decide

    def noting(policy, attempt, chance, **options):
        spread.append((attempt.number, options.get("spread", False)))
        return decide(policy, attempt, chance, **options)

    monkeypatch.setattr(module, "decide", noting)
    await bench.run()
    assert {(result.attempts, result.error_kind) for result in bench.sink.results} == {(3, ErrorKind.HTTP_5XX)}
    assert {number for number, put_off in spread if put_off} == {2}


# Draining


async def test_a_drain_ends_what_is_in_flight_and_gives_back_the_rest():
    gate, queue, sink = asyncio.Event(), MemoryQueue(), MemorySink()
    limits = LimitSettings(concurrency=6)
    bench = Bench(ListSource(jobs(100)), gate=gate, queue=queue, sink=sink, limits=limits)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 6 and bench.engine.fed)
    bench.engine.drain()
    await asyncio.sleep(0.01)
    assert not run.done()
    gate.set()
    await run
    assert len(sink.results) == len(bench.transport.jobs) == 6
    assert not bench.engine.finished
    counts = await queue.counts()
    assert (counts.leased, counts.left, counts.done) == (0, 94, 6)
    second = Bench(ListSource(jobs(100)), queue=queue, sink=sink)
    await second.run()
    assert second.ids == expected(100)
    assert {result.attempts for result in sink.results} == {1}


async def test_a_drain_cuts_off_what_takes_too_long_and_does_not_count_it():
    queue, sink = MemoryQueue(), MemorySink()
    bench = Bench(ListSource(jobs(9)), gate=asyncio.Event(), queue=queue, sink=sink, shutdown_timeout=0.01)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight == 9)
    bench.engine.drain()
    await run
    assert sink.results == []
    assert bench.transport.in_flight == 0
    assert (await queue.counts()).leased == 0
    second = Bench(ListSource(jobs(9)), queue=queue, sink=sink)
    await second.run()
    assert second.ids == expected(9)
    assert {result.attempts for result in sink.results} == {1}


async def test_a_drain_before_anything_happened():
    bench = Bench(ListSource(jobs(9)))
    bench.engine.drain()
    await bench.run()
    assert bench.sink.results == []


async def test_a_drain_while_a_lease_is_under_way_gives_those_jobs_back(tmp_path):
    class SlowQueue(SqliteQueue):
        leasing = asyncio.Event()

        async def lease(self, *args):
            leased = await super().lease(*args)
            if leased.leases:
                self.leasing.set()
                await asyncio.sleep(0.02)
            return leased

    queue = SlowQueue(tmp_path / "q.db")
    bench = Bench(ListSource(jobs(50)), queue=queue)
    run = asyncio.ensure_future(bench.run())
    await queue.leasing.wait()
    bench.engine.drain()
    await run
    counts = await queue.counts()
    assert (counts.leased, counts.left) == (0, 50)
    await queue.close()


async def test_a_drain_starts_nothing_that_waited_for_a_slot():
    gate, slots = asyncio.Event(), Slots(1)
    other = slots.share()
    await other.acquire()
    bench = Bench(ListSource(jobs(9)), gate=gate, slots=slots.share())
    run = asyncio.ensure_future(bench.run())
    await until(lambda: slots.waiting)
    bench.engine.drain()
    await asyncio.sleep(0.01)
    other.release()
    async with asyncio.timeout(5):
        await run
    assert bench.transport.jobs == []


async def test_a_drain_starts_nothing_that_waited_for_the_sink(monkeypatch):
    sink = MemorySink()
    sink.gate = asyncio.Event()
    limits = LimitSettings(concurrency=2)
    bench = Bench(ListSource(jobs(50)), sink=sink, limits=limits)
    monkeypatch.setattr(bench.engine.delivery._batcher, "_size", 2)
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.engine.delivery.full)
    await asyncio.sleep(0.01)
    before = len(bench.transport.jobs)
    bench.engine.drain()
    await asyncio.sleep(0.01)
    sink.gate.set()
    async with asyncio.timeout(5):
        await run
    assert len(bench.transport.jobs) == len(sink.results) == before


# What stops a run


async def failing(bench, error, match):
    with pytest.raises(error, match=match):
        async with asyncio.timeout(10):
            await bench.run()


async def test_a_source_that_dies_is_heard_of_and_stops_neither_its_jobs_nor_other_sources():
    bench = Bench(ListSource(jobs(5), failing=SourceError("vanished")))
    async with asyncio.timeout(10):
        await bench.run()
    assert [str(failure) for failure in bench.engine.failures] == ["vanished"]
    assert bench.engine.done == 5
    assert not bench.engine.finished


async def test_a_sink_that_dies_stops_the_run_and_nothing_is_acknowledged():
    queue, sink = MemoryQueue(), MemorySink()
    sink.fail_with = "no room"
    bench = Bench(ListSource(jobs(300)), queue=queue, sink=sink)
    await failing(bench, SinkError, "no room")
    assert (await queue.counts()).done == 0


@pytest.mark.parametrize("method", ["put", "lease", "ack", "nack", "extend"])
async def test_a_queue_that_dies_stops_the_run(method, monkeypatch):
    queue = MemoryQueue(lease=0.01)

    async def dies(*args):
        if args[0]:
            raise StateError(f"{method} failed")
        return 0

    monkeypatch.setattr(queue, method, dies)
    gate = asyncio.Event() if method == "extend" else None
    status = 503 if method == "nack" else 200
    bench = Bench(ListSource(jobs(9)), queue=queue, gate=gate, respond=lambda job: ok(job, status=status))
    await failing(bench, StateError, f"{method} failed")


async def test_a_timer_that_was_set_does_nothing_after_a_failed_run():
    sink = MemorySink()
    sink.fail_with = "no room"
    bench = Bench(ListSource(jobs(9, hosts=1)), sink=sink, limits=LimitSettings(per_host={"delay": 0.15}))
    await failing(bench, SinkError, "no room")
    assert bench.engine._crew._timer is None or bench.engine._crew._timer.cancelled()


async def test_a_cancelled_run_leaves_nothing_running():
    bench = Bench(ListSource(jobs(50)), gate=asyncio.Event())
    run = asyncio.ensure_future(bench.run())
    await until(lambda: bench.transport.in_flight)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert bench.transport.in_flight == 0


def test_the_first_failure_is_the_reason_however_deep():
    group = BaseExceptionGroup("a", [BaseExceptionGroup("b", [ValueError("reason")]), KeyError("other")])
    assert str(module._first(group)) == "reason"
