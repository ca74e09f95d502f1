"""Reading ahead, putting together, and where it goes on."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.engine import feeder as module
from fetcher.engine.feeder import Feeder
from fetcher.errors import ErrorKind, SourceError
from fetcher.interfaces import Chunk
from fetcher.model import FormPart, Job, Receive, Rejection
from fetcher.queues.memory import MemoryQueue


def job(name, **fields):
    return Job(id=str(name), url=f"http://a.test/{name}", host="a.test", **fields)


class Source:
    """Yields the chunk of each number from ``position`` on, when ``allowed``."""

    def __init__(self, count=10, allowed=None, failing=None):
        self.count, self.allowed, self.failing = count, allowed, failing
        self.read_up_to = 0
        self.closed = False

    def check(self):
        pass

    async def read(self, position):
        try:
            for number in range(int(position or 0), self.count):
                if self.allowed is not None:
                    await self.allowed.acquire()
                self.read_up_to = number + 1
                yield Chunk([job(number)], str(number + 1))
            if self.failing:
                raise self.failing
        finally:
            self.closed = True


class Recorder(MemoryQueue):
    """Notes what is put in one call; ``gate`` holds calls up."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.calls = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def put(self, jobs, marks):
        await self.gate.wait()
        self.calls.append(([one.id for one in jobs], dict(marks)))
        return await super().put(jobs, marks)


def feeder(sources, queue, on_put=lambda *_: None, *, dedupe=False):
    return Feeder(sources, queue, dedupe=dedupe, on_put=on_put)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_everything_is_put_and_the_end_is_marked():
    queue, told = Recorder(), []
    await feeder([Source(3), Source(0)], queue, lambda *args: told.append(args)).run({})
    marks = await queue.open()
    assert marks == {"source:0": '{"position":null,"done":true}', "source:1": '{"position":null,"done":true}'}
    assert sorted(name for names, _ in queue.calls for name in names) == ["0-0", "0-1", "0-2"]
    assert sum(read for read, _ in told) == sum(added for _, added in told) == 3


async def test_each_put_commits_the_position_after_its_last_job():
    queue = Recorder()
    await feeder([Source(30)], queue).run({})
    for names, marks in queue.calls[:-1]:
        after = int(names[-1].split("-")[1]) + 1
        assert marks == {"source:0": f'{{"position":"{after}","done":false}}'}


async def test_what_was_read_meanwhile_is_put_together():
    queue = Recorder()
    queue.gate.clear()
    run = asyncio.ensure_future(feeder([Source(100)], queue).run({}))
    await settle()
    queue.gate.set()
    await run
    sizes = [len(names) for names, _ in queue.calls]
    assert sum(sizes) == 100
    assert max(sizes) == module._MOST_PENDING
    assert len(sizes) < 40


async def test_a_slow_queue_holds_the_source_up():
    queue, source = Recorder(), Source(1000)
    queue.gate.clear()
    run = asyncio.ensure_future(feeder([source], queue).run({}))
    await settle()
    assert source.read_up_to <= 2 * module._MOST_PENDING + 2
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert source.closed


async def test_jobs_of_a_source_that_trickles_are_put_at_once():
    queue, allowed = Recorder(), asyncio.Semaphore(0)
    run = asyncio.ensure_future(feeder([Source(3, allowed)], queue).run({}))
    for number in range(3):
        allowed.release()
        await settle()
        assert (await queue.counts()).added == number + 1
    await run


async def test_reading_pauses_while_the_queue_is_full_and_goes_on():
    queue, source, unfinished = Recorder(capacity=10), Source(100), 0

    def on_put(_, added):
        nonlocal unfinished
        unfinished += added
        made.set_backlog(unfinished)

    made = feeder([source], queue, on_put)
    run = asyncio.ensure_future(made.run({}))
    for step in range(1, 5):
        await settle()
        assert 10 <= unfinished <= 10 + 2 * module._MOST_PENDING + 2
        before = source.read_up_to
        await settle()
        assert source.read_up_to == before
        assert not run.done()
        unfinished = 0
        made.set_backlog(0)
        assert step
    while not run.done():
        await settle()
        unfinished = 0
        made.set_backlog(0)
    await run
    assert (await queue.counts()).added == 100


async def test_a_source_goes_on_where_it_stopped_and_one_that_ended_is_not_read():
    queue, sources = Recorder(), [Source(5), Source(5)]
    marks = {"source:0": '{"position":"3","done":false}', "source:1": '{"position":null,"done":true}'}
    await feeder(sources, queue).run(marks)
    assert sorted(name for names, _ in queue.calls for name in names) == ["0-3", "0-4"]
    assert sources[1].read_up_to == 0


async def test_a_cut_at_any_put_neither_loses_nor_repeats_a_job():
    for cut in range(1, 12):
        queue, puts = Recorder(), 0

        def on_put(*_, cut=cut):
            nonlocal puts
            puts += 1
            if puts == cut:
                raise RuntimeError("cut")

        allowed = asyncio.Semaphore(0)
        run = asyncio.ensure_future(feeder([Source(10, allowed)], queue, on_put).run({}))
        for _ in range(10):
            allowed.release()
            await settle()
        await asyncio.gather(run, return_exceptions=True)
        await feeder([Source(10)], queue).run(await queue.open())
        names = [name for names, _ in queue.calls for name in names]
        assert names == [f"0-{n}" for n in range(10)]


async def test_a_source_that_fails_is_heard_of_and_what_it_gave_is_kept_up_to_a_position():
    queue = Recorder()
    broken = feeder([Source(3, failing=SourceError("gone"))], queue)
    await broken.run({})
    assert [str(failure) for failure in broken.failures] == ["gone"]
    await feeder([Source(3)], queue).run(await queue.open())
    assert [name for names, _ in queue.calls for name in names] == ["0-0", "0-1", "0-2"]


async def test_keys_are_those_given_and_what_was_asked_if_duplicates_are_to_go():
    class Mixed(Source):
        async def read(self, position):
            no = Rejection(ErrorKind.INVALID_URL, "no")
            yield Chunk([job(1), job(1), job(1, method="POST"), job(1, body=b"x"), job(1, body=b"y")], "1")
            yield Chunk([job(1, key="own"), job(2, key="own"), job(1, rejected=no), job(1, rejected=no)], "2")

    for dedupe, fresh in ((True, 7), (False, 8)):
        queue = Recorder()
        await feeder([Mixed()], queue, dedupe=dedupe).run({})
        counts = await queue.counts()
        assert (counts.added, counts.duplicates) == (fresh, 9 - fresh)


async def test_what_is_sent_in_parts_and_what_is_waited_for_tell_jobs_apart():
    class Mixed(Source):
        async def read(self, position):
            files = [[FormPart("f", path=name)] for name in ("a", "a", "b")]
            waits = [Receive(length=count) for count in (1, 1, 2)]
            jobs = [job(1, parts=parts) for parts in files] + [job(1, receive=receive) for receive in waits]
            yield Chunk([*jobs, job(1)], "1")

    queue = Recorder()
    await feeder([Mixed()], queue, dedupe=True).run({})
    counts = await queue.counts()
    assert (counts.added, counts.duplicates) == (5, 2)
