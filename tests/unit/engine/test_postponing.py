"""Jobs that could not begin: they go back to the queue, and nobody is blamed for it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fetcher.engine.engine import Engine
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.parts import Parts
from fetcher.engine.postponing import Postponed, put_off
from fetcher.engine.retry import Attempt, RetrySettings
from fetcher.engine.waiting import look
from fetcher.errors import ErrorKind, FetchError
from fetcher.interfaces import Chunk
from fetcher.model import Job, Outcome, Redirect, Result
from fetcher.queues.memory import MemoryQueue
from fetcher.testing import MemorySink, MockTransport, ok

REASON = "no token"


class Source:
    """Jobs of one host."""

    def __init__(self, count: int, **fields) -> None:
        self.jobs = [Job(id=str(n), url=f"http://a.test/{n}", host="a.test", **fields) for n in range(count)]

    def check(self):
        pass

    async def read(self, position):
        yield Chunk([job.__copy__() for job in self.jobs], "end")


def without_token(sent=False, redirects=(), seconds=0.02):
    error = FetchError(ErrorKind.AUTH_FAILED, REASON, sent=sent, postpone=seconds)
    error.redirects = list(redirects)
    return error


def bench(source, respond, **fields):
    sink = MemorySink()
    transport = MockTransport(respond)
    parts = Parts(
        batch="b",
        sources=[source],
        queue=MemoryQueue(),
        transports={"http": transport},
        sinks={"sink:0": sink},
        limits=LimitSettings(),
        retry=RetrySettings(backoff=0),
        **fields,
    )
    return Engine(parts), sink, transport


async def run(engine):
    marks = await engine._queue.open()
    await engine.start(marks)
    try:
        async with asyncio.timeout(20):
            await engine.run(marks)
    finally:
        await engine.close()


async def test_a_job_that_could_not_begin_has_used_no_attempt_and_its_host_has_not_failed():
    seen = Counter()

    def respond(job):
        seen[job.id] += 1
        if sum(seen.values()) <= 20:
            raise without_token()
        return ok(job)

    engine, sink, _ = bench(Source(300), respond)
    await run(engine)
    assert {(result.outcome, result.attempts) for result in sink.results} == {(Outcome.OK, 1)}
    assert len(sink.results) == 300
    assert engine.postponed.count == 20
    assert (engine.retries, engine.scheduler.failed) == (0, 0)


async def test_its_host_rests_so_that_the_others_do_not_all_find_out():
    engine, sink, transport = bench(Source(300), None)
    hopeless = 4 * LimitSettings().per_host.concurrency

    def respond(job):
        if engine.postponed.count < hopeless:
            raise without_token()
        return ok(job)

    transport._respond = respond
    await run(engine)
    # Each time no more than those in flight found out.
    assert hopeless <= engine.postponed.count <= hopeless + LimitSettings().per_host.concurrency
    assert len(sink.results) == 300


async def test_other_batches_ask_the_same_host_meanwhile():
    hosts = Hosts(LimitSettings())
    without, _, _ = bench(Source(50), lambda _: (_ for _ in ()).throw(without_token(seconds=30.0)), hosts=hosts)
    waits = asyncio.create_task(run(without))
    while not without.postponed.count:  # noqa: ASYNC110  no event to wait for
        await asyncio.sleep(0.001)
    other, sink, _ = bench(Source(200), None, hosts=hosts)
    await run(other)
    assert len(sink.results) == 200
    assert without.postponed.count <= LimitSettings().per_host.concurrency
    without.drain()
    await waits


async def test_nothing_is_left_of_a_rest_that_is_over():
    seen, rests = [], []

    def respond(job):
        seen.append(job.id)
        if len(seen) == 1:
            raise without_token(seconds=0.4)
        rests.extend(line.rest for line in engine.scheduler.lines())
        return ok(job)

    engine, sink, _ = bench(Source(2000), respond)
    await run(engine)
    assert len(sink.results) == 2000
    assert rests[-1] is None


async def test_attempts_that_were_made_count_and_the_wait_is_no_part_of_their_time():
    ages, seen = [], Counter()

    def respond(job):
        seen[job.id] += 1
        ages.append((job.attempts, job.first_started_at))
        if seen[job.id] == 1:
            return ok(job, status=503)
        if seen[job.id] == 2:
            raise without_token(seconds=0.3)
        return ok(job)

    engine, sink, _ = bench(Source(1), respond)
    await run(engine)
    (result,) = sink.results
    assert (result.outcome, result.attempts) == (Outcome.OK, 2)
    assert [attempts for attempts, _ in ages] == [0, 1, 1]
    assert 0.3 <= ages[2][1] - ages[1][1] < 1.0


@pytest.mark.parametrize(("method", "outcome"), [("GET", Outcome.OK), ("POST", Outcome.FAILED)])
async def test_what_was_redirected_there_is_put_off_only_if_it_may_be_sent_again(method, outcome):
    seen = []

    def respond(job):
        seen.append(job.id)
        if len(seen) == 1:
            raise without_token(sent=True, redirects=[Redirect(job.url, 307, "http://b.test/")])
        return ok(job)

    engine, sink, _ = bench(Source(1, method=method), respond)
    await run(engine)
    assert [result.outcome for result in sink.results] == [outcome]


async def test_what_jobs_wait_for_is_named():
    engine, _, _ = bench(Source(10), lambda _: (_ for _ in ()).throw(without_token(seconds=30.0)))
    marks = await engine._queue.open()
    await engine.start(marks)
    running = asyncio.create_task(engine.run(marks))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while not engine.postponed.count or engine.queued < 10:  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.001)
    ((reason, left),) = look(engine, loop.time()).postponed
    engine.drain()
    await running
    await engine.close()
    assert reason == REASON
    assert 20 < left <= 30
    assert engine.left == 10


def test_what_is_put_off():
    policy = RetrySettings()
    assert put_off(policy, Attempt(1, 0.0, "POST", sent=False, postpone=3.0)) == 3.0
    assert put_off(policy, Attempt(1, 0.0, "GET", sent=True, postpone=3.0)) == 3.0
    assert put_off(policy, Attempt(1, 0.0, "POST", sent=True, postpone=3.0)) is None
    assert put_off(policy, Attempt(1, 0.0, "GET", sent=False)) is None


def test_reasons_are_few_and_over_when_their_time_is():
    postponed, job = Postponed(), Job(id="1", url="http://a.test/", host="a.test")
    for n in range(100):
        result = Result(batch="b", job_id="1", url=job.url, outcome=Outcome.FAILED, attempts=1, error_message=f"r{n}")
        postponed.note(job, result, 0.0, 100.0 - n)
    assert postponed.count == 100
    assert postponed.reasons(0.0)[0] == ("r99", 1.0)
    assert len(postponed.reasons(0.0)) == 32
    assert [reason for reason, _ in postponed.reasons(31.5)] == ["r68"]
    assert postponed.reasons(40.0) == []
