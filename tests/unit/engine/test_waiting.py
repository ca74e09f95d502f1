"""What an engine says it waits for, with fakes at both ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from fetcher.engine.engine import Engine
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.parts import Parts
from fetcher.engine.retry import RetrySettings
from fetcher.engine.waiting import look
from fetcher.interfaces import Chunk, Standing
from fetcher.model import Job, Response
from fetcher.queues.memory import MemoryQueue
from fetcher.testing import MemorySink, MockTransport


class Source:
    """Some jobs of two hosts; ``more`` is waited for before they end."""

    def __init__(self, count, more=None):
        self.count, self.more = count, more

    def check(self):
        pass

    async def read(self, position):
        hosts = [f"h{n % 2}.test" for n in range(self.count)]
        yield Chunk([Job(id=str(n), url=f"http://{host}/{n}", host=host) for n, host in enumerate(hosts)], "end")
        if self.more is not None:
            await self.more.wait()


class Talkative(MockTransport):
    """Tells what every fetch is at."""

    def standing(self, job):
        return Standing(f"fetching {job.id}", 1.5, 10, 20.0)


def busy(job):
    return Response(503, "GET", job.url, [("Retry-After", "30")])


@asynccontextmanager
async def engine(source, transport, sink=None):
    """Run an engine until the block ends."""
    queue = MemoryQueue()
    running = Engine(
        Parts(
            batch="b",
            sources=[source],
            queue=queue,
            transports={"http": transport},
            sinks={"sink:0": sink or MemorySink()},
            limits=LimitSettings(),
            retry=RetrySettings(backoff=0),
            shutdown_timeout=0.01,
        )
    )
    marks = await queue.open()
    await running.start(marks)
    task = asyncio.create_task(running.run(marks))
    try:
        yield running
    finally:
        running.drain()
        await asyncio.wait([task])
        await running.close()
        task.exception()


def seen(running):
    return look(running, asyncio.get_running_loop().time())


async def until(running, condition):
    """Look until something holds, and return what was seen then."""
    async with asyncio.timeout(10):
        while not condition(found := seen(running)):  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.001)
    return found


async def test_those_in_flight_for_longest_are_named():
    async with engine(Source(7), MockTransport(gate=asyncio.Event())) as running:
        found = await until(running, lambda found: found.in_flight == 7 and not found.reading)
        # They began in the order in which they were named.
        oldest = sorted(running.running.values(), key=lambda job: job.started)[:5]
        assert [straggler.url for straggler in found.stragglers] == [job.lease.job.url for job in oldest]
        assert [straggler.standing for straggler in found.stragglers] == [None] * 5
        first = found.stragglers[0]
        assert (first.host, first.attempt) == (first.url.split("/")[2], 1)
        assert first.seconds > 0
        assert (found.queued, found.next_due, found.resting, found.writing) == (0, None, [], [])
        assert not found.draining


async def test_what_the_transport_tells_is_there():
    async with engine(Source(1), Talkative(gate=asyncio.Event())) as running:
        found = await until(running, lambda found: found.in_flight)
    assert found.stragglers[0].standing == Standing("fetching 0-0", 1.5, 10, 20.0)


async def test_jobs_that_come_back_later_and_hosts_that_rest():
    async with engine(Source(2), MockTransport(busy)) as running:
        found = await until(running, lambda found: found.next_due is not None and len(found.resting) == 2)
        assert (found.in_flight, found.queued) == (0, 2)
        assert 25 < found.next_due <= 31
        assert {name for name, _ in found.resting} == {"h0.test", "h1.test"}
        assert all(25 < rest <= 30 for _, rest in found.resting)


async def test_a_sink_that_is_at_work():
    sink = MemorySink()
    sink.gate = asyncio.Event()
    async with engine(Source(3), MockTransport(), sink) as running:
        found = await until(running, lambda found: found.writing)
        assert (found.writing, found.in_flight, found.queued) == (["sink:0"], 0, 0)
        sink.gate.set()


async def test_sources_that_are_not_at_their_end():
    async with engine(Source(1, asyncio.Event()), MockTransport()) as running:
        found = await until(running, lambda found: running.done == 1)
        assert found.reading


@pytest.mark.parametrize("gate", [None, asyncio.Event()])
async def test_a_drain(gate):
    async with engine(Source(1, asyncio.Event()), MockTransport(gate=gate)) as running:
        assert not seen(running).draining
        running.drain()
        assert seen(running).draining
