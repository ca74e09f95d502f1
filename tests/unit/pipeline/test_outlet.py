"""What becomes of a sink that fails, of one that is not required, and of one with batches of its own."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fetcher.errors import SinkError, StateError
from fetcher.model import Job, Outcome, Result
from fetcher.pipeline import outlet as module
from fetcher.pipeline.delivery import TALLY_MARK, Delivery
from fetcher.pipeline.outlet import Batching, Outlet, Plan
from fetcher.pipeline.tally import Tally
from fetcher.queues.memory import MemoryQueue
from fetcher.testing import MemorySink

JOBS = 3000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 0.0005)
    monkeypatch.setattr(module, "_MAX_BACKOFF", 0.002)


class Failing(MemorySink):
    """Raises what it is given, in turn, and counts calls."""

    def __init__(self, *failures):
        super().__init__()
        self.failures = list(failures)
        self.calls = 0
        self.tried = asyncio.Event()

    async def write(self, results):
        self.calls += 1
        self.tried.set()
        await asyncio.sleep(0)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return await super().write(results)


def away(**fields):
    return SinkError("the server is away", retryable=True, **fields)


class Bench:
    """A delivery over a queue full of jobs."""

    def __init__(self, **outlets):
        self.queue = MemoryQueue()
        self.delivery = Delivery(self.queue, outlets, lambda leases, accepted: None, at_end=lambda: self.ended)
        self.ended = False
        self.marks = []
        ack = self.queue.ack

        async def recorded(acks, marks):
            self.marks.append((len(acks), dict(marks)))
            return await ack(acks, marks)

        self.queue.ack = recorded

    async def open(self, marks=None):
        await self.queue.put([Job(id=str(n), url=f"u{n}", host="a") for n in range(JOBS)], {})
        await self.delivery.open(marks or {})
        self.running = asyncio.ensure_future(self.delivery.run())
        return self

    async def add(self, count, **fields):
        """Deliver results as one batch."""
        for lease in (await self.queue.lease(count, count, {})).leases:
            self.delivery.add(lease, made(lease.job.id, **fields))
        self.delivery.hurry()
        while len(self.delivery._batcher):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def done(self):
        return (await self.queue.counts()).done

    async def until_done(self, count):
        async with asyncio.timeout(10):
            while await self.done() < count:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def end(self):
        self.delivery.finish()
        await self.running

    @property
    def committed(self):
        merged = {}
        for _, marks in self.marks:
            merged |= marks
        return merged


def made(job_id, **fields):
    return Result(batch="b", job_id=job_id, url="u", outcome=Outcome.OK, attempts=1, **fields)


def ids(sink):
    return sorted(int(result.job_id) for result in sink.results)


async def test_what_may_succeed_later_is_tried_again_and_written_once():
    sink, other = Failing(away(), away(), None, away()), MemorySink()
    bench = await Bench(down=sink, up=other).open()
    await bench.add(5)
    await bench.add(5)
    await bench.until_done(10)
    await bench.end()
    assert ids(sink) == ids(other) == list(range(10))
    assert other.batches == [5, 5]  # the others are not written to again
    outlet = bench.delivery.outlets[0]
    assert (outlet.errors, outlet.trouble, outlet.lag) == (3, None, 0)


async def test_while_a_sink_is_away_jobs_wait_then_the_workers_and_it_says_so():
    sink, other = MemorySink(), MemorySink()
    sink.down = True
    bench = await Bench(down=sink, up=other).open()
    await bench.add(512)
    await bench.add(512)
    outlet = bench.delivery.outlets[0]
    while not outlet.trouble or outlet.trouble.failures < 3 or len(other.results) < 1024:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    for lease in (await bench.queue.lease(1700, 1700, {})).leases:
        bench.delivery.add(lease, made(lease.job.id, body=b"x" * 30_000))
    assert bench.delivery.full
    room = asyncio.ensure_future(bench.delivery.room())
    await asyncio.sleep(0.02)
    assert not room.done()
    assert await bench.done() == 0
    assert len(other.results) == 1024  # bounded: no more is handed out than the slowest sink can hold
    assert outlet.troubles() == [("down", outlet.trouble)]
    assert outlet.lag == 1024
    assert bench.delivery.writing == {"down"}
    sink.down = False
    await room
    await bench.until_done(2724)
    await bench.end()
    assert ids(sink) == ids(other) == list(range(2724))


async def test_a_sink_may_say_itself_when_to_come_again(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 3600)
    monkeypatch.setattr(module, "_MAX_BACKOFF", 3600)
    sink = Failing(away(pause=0.001))
    bench = await Bench(sink=sink).open()
    await bench.add(1)
    await bench.until_done(1)
    await bench.end()


async def test_patience_that_has_an_end_stops_the_run_resumable():
    sink = MemorySink()
    sink.down = True
    bench = await Bench(sink=Outlet("sink", sink, Plan(patience=0.01))).open()
    await bench.add(3)
    with pytest.raises(SinkError, match="is down") as stopped:
        await bench.running
    assert stopped.value.exit_code == 75
    assert await bench.done() == 0


async def test_a_failure_for_good_stops_the_run_and_lets_the_others_end_what_they_are_at():
    bad, other = Failing(None, SinkError("no rights")), MemorySink()
    bench = await Bench(bad=bad, other=other).open()
    await bench.add(4)
    await bench.until_done(4)
    await bench.add(4)
    with pytest.raises(SinkError, match="no rights") as stopped:
        await bench.running
    assert stopped.value.exit_code == 1
    assert await bench.done() == 4
    assert bench.committed["other"] == "4"  # what is behind it is cut off when the run is resumed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_end_that_is_asked_for_gives_a_sink_in_trouble_one_more_try(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 3600)
    monkeypatch.setattr(module, "_MAX_BACKOFF", 3600)
    sink = Failing(away(), away())
    bench = await Bench(sink=sink).open()
    await bench.add(1)
    await sink.tried.wait()
    with pytest.raises(SinkError) as stopped:
        await bench.end()
    assert stopped.value.exit_code == 75
    assert sink.calls == 2
    recovered = Failing(away())
    bench = await Bench(sink=recovered).open()
    await bench.add(1)
    await recovered.tried.wait()
    await bench.end()
    assert await bench.done() == 1


async def test_a_cancelled_run_leaves_no_task_behind():
    sink = MemorySink()
    sink.down = True
    bench = await Bench(a=sink, b=MemorySink()).open()
    await bench.add(3)
    bench.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.running
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_sink_that_cancels_itself_is_tried_again():
    sink = Failing(asyncio.CancelledError())
    bench = await Bench(sink=sink).open()
    await bench.add(2)
    await bench.until_done(2)
    await bench.end()
    assert ids(sink) == [0, 1]


# Not required


def optional(sink, dead, **plan):
    return Outlet("sink", sink, Plan(title="extra", required=False, **plan), dead)


@pytest.mark.parametrize("failure", [SinkError("no rights"), ValueError("a fault of the sink")])
async def test_what_a_sink_does_not_take_goes_to_its_dead_letters(failure):
    sink, dead, main = Failing(None, failure, None), MemorySink(), MemorySink()
    bench = await Bench(main=main, sink=optional(sink, dead)).open()
    for done in (2, 4, 6):
        await bench.add(2)
        await bench.until_done(done)
    await bench.end()
    assert (ids(sink), ids(dead), ids(main)) == ([0, 1, 4, 5], [2, 3], list(range(6)))
    assert bench.delivery.tally.dead_letters == {"extra": 2}
    assert bench.committed["dead:sink"] == "2"
    assert bench.delivery.outlets[1].errors == 1


async def test_a_sink_that_is_away_too_long_is_tried_now_and_then(monkeypatch):
    sink, dead = Failing(*(away() for _ in range(1000))), MemorySink()
    monkeypatch.setattr(module, "_MAX_BACKOFF", 3600)
    bench = await Bench(sink=optional(sink, dead, patience=0.01)).open()
    await bench.add(2)
    await bench.until_done(2)
    assert sink.calls > 1
    calls = sink.calls
    await bench.add(2)
    await bench.until_done(4)
    assert sink.calls == calls
    bench.delivery.outlets[0]._rests_until = 0.0
    await bench.add(2)
    await bench.until_done(6)
    assert sink.calls == calls + 1
    sink.failures.clear()
    bench.delivery.outlets[0]._rests_until = 0.0
    await bench.add(2)
    await bench.until_done(8)
    await bench.end()
    assert (ids(sink), ids(dead)) == ([6, 7], list(range(6)))
    assert bench.delivery.outlets[0].trouble is None


async def test_no_dead_letters_are_opened_unless_there_are_some():
    dead = MemorySink()
    bench = await Bench(sink=optional(MemorySink(), dead)).open()
    await bench.add(2)
    await bench.end()
    assert not dead.is_open
    assert "dead:sink" not in bench.committed


async def test_dead_letters_of_an_unfinished_run_are_cut_back():
    dead = MemorySink()
    dead.results = [made("1"), made("2"), made("3")]
    bench = await Bench(sink=optional(MemorySink(), dead)).open({"dead:sink": "2", "sink": "0"})
    assert len(dead.results) == 2
    await bench.end()


async def test_the_count_of_dead_letters_goes_on_after_a_resume():
    marks = {TALLY_MARK: msgspec.json.encode(Tally(dead_letters={"extra": 7})).decode()}
    bench = await Bench(sink=optional(Failing(ValueError("x")), MemorySink())).open(marks)
    await bench.add(2)
    await bench.end()
    assert Tally.load(bench.committed[TALLY_MARK]).dead_letters == {"extra": 9}


async def test_when_another_sink_stops_the_run_nothing_becomes_a_dead_letter():
    """The run will be resumed, and the sink that is not required may be there by then."""
    away_now, dead, bad = MemorySink(), MemorySink(), MemorySink()
    away_now.down, bad.gate, bad.fail_with = True, asyncio.Event(), "no rights"
    bench = await Bench(bad=bad, sink=optional(away_now, dead, patience=3600)).open()
    await bench.add(2)
    while bench.delivery.outlets[1].trouble is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    bad.gate.set()
    with pytest.raises(SinkError, match="no rights"):
        await bench.running
    assert (dead.results, await bench.done()) == ([], 0)


async def test_dead_letters_that_can_not_be_written_stop_the_run():
    dead = Failing(SinkError("no disk"))
    bench = await Bench(sink=optional(Failing(ValueError("x")), dead)).open()
    await bench.add(2)
    with pytest.raises(SinkError, match="no disk"):
        await bench.running
    assert await bench.done() == 0


class Late(MemorySink):
    """Can not be opened at first."""

    async def open(self, mark):
        if self.down:
            raise away()
        return await super().open(mark)


async def test_one_that_is_away_at_the_start_is_opened_when_it_is_there():
    sink = Late()
    sink.down = True
    with pytest.raises(SinkError):
        await Bench(sink=sink).open()
    bench = await Bench(sink=optional(sink, MemorySink(), patience=60)).open()
    await bench.add(2)
    assert not sink.is_open
    sink.down = False
    await bench.until_done(2)
    await bench.end()
    assert ids(sink) == [0, 1]
    assert [marks["sink"] for _, marks in bench.marks if "sink" in marks] == ["0", "2"]


@pytest.mark.parametrize("edited", [False, True])
async def test_one_that_was_away_discards_what_an_earlier_run_has_left_and_nobody_has_changed(edited):
    told = []

    class Left(Late):
        async def check(self, mark, *, resume):
            told.append((mark, resume))
            if edited:
                raise StateError("was changed")

        async def discard(self, mark):
            told.append(mark)

    sink = Left()
    sink.down = True
    bench = await Bench(sink=optional(sink, MemorySink(), patience=60)).open({"stale:sink": "7"})
    sink.down = False
    await bench.add(2)
    await bench.until_done(2)
    await bench.end()
    assert ids(sink) == [0, 1]
    # Once at the start, before it was known to be away, and once when it was there.
    assert told == [("7", False), *([] if edited else ["7"])] * 2
    assert (bench.committed["stale:sink"], bench.committed["sink"]) == ("", "2")


# What a sink gets


async def test_each_sink_has_its_own_records_and_fields():
    failed, urls, everything = MemorySink(), MemorySink(), MemorySink()
    outlets = {
        "failed": Outlet("failed", failed, Plan(where=lambda result: result.status == 500)),
        "urls": Outlet("urls", urls, Plan(reshape=lambda result: msgspec.structs.replace(result, body=None))),
        "everything": everything,
    }
    bench = await Bench(**outlets).open()
    await bench.add(2, status=200, body=b"x")
    await bench.until_done(2)
    await bench.add(1, status=500, body=b"x")
    await bench.end()
    assert (ids(failed), ids(urls), ids(everything)) == ([2], [0, 1, 2], [0, 1, 2])
    assert {result.body for result in urls.results} == {None}
    assert {result.body for result in everything.results} == {b"x"}
    assert bench.committed["failed"] == "1"


@pytest.mark.parametrize("plan", [Plan(where=lambda result: 1 / 0), Plan(reshape=lambda result: 1 / 0)])
async def test_a_plan_that_fails_on_a_record_costs_neither_the_record_nor_the_run(plan):
    sink = MemorySink()
    outlet = Outlet("sink", sink, plan)
    bench = await Bench(sink=outlet).open()
    await bench.add(2, body=b"x")
    await bench.until_done(2)
    await bench.end()
    assert ids(sink) == [0, 1]
    assert {result.body for result in sink.results} == {b"x"}
    assert outlet.errors == 2


# Batches of its own


def batched(key, sink, size=1000, size_bytes=10**9, linger=3600.0, **plan):
    return Outlet(key, sink, Plan(batching=Batching(size, size_bytes, linger), **plan))


async def test_batches_of_its_own_hold_up_no_other_sink():
    large, plain = MemorySink(), MemorySink()
    bench = await Bench(large=batched("large", large, size=700), plain=plain).open()
    for _ in range(4):
        await bench.add(200)
    await bench.until_done(800)
    assert large.batches == [800]
    assert plain.batches == [200] * 4
    assert (bench.committed["large"], bench.committed["plain"]) == ("800", "800")
    await bench.add(5)
    while len(plain.results) < 805:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await bench.done(), large.batches) == (800, [800])  # acknowledged when all have it
    await bench.end()
    assert large.batches == [800, 5]
    assert await bench.done() == 805


async def test_the_first_record_does_not_wait_longer_than_linger_and_bytes_count():
    sink = MemorySink()
    bench = await Bench(sink=batched("sink", sink, linger=0.05)).open()
    await bench.add(3)
    await bench.until_done(3)
    await bench.end()
    heavy = MemorySink()
    bench = await Bench(sink=batched("sink", heavy, size_bytes=100)).open()
    await bench.add(3, body=b"x" * 50)
    await bench.until_done(3)
    await bench.end()


async def test_at_the_end_nobody_waits_for_more():
    sink = MemorySink()
    bench = await Bench(sink=batched("sink", sink)).open()
    await bench.add(3)
    await asyncio.sleep(0.01)
    assert await bench.done() == 0
    bench.ended = True
    await bench.until_done(3)
    await bench.end()


async def test_sinks_with_batches_of_their_own_write_together_so_that_they_have_common_marks():
    a, b = MemorySink(), MemorySink()
    bench = await Bench(a=batched("a", a, size=30), b=batched("b", b, size=70), plain=MemorySink()).open()
    for count in range(10, 101, 10):
        await bench.add(10)
        if count % 30 == 0:
            await bench.until_done(count)
    await bench.end()
    assert a.batches == b.batches == [30, 30, 30, 10]
    for count, marks in bench.marks:
        if count:
            assert marks["a"] == marks["b"] == marks["plain"]


async def test_what_is_filtered_out_does_not_wait_for_a_batch():
    sink = MemorySink()
    bench = await Bench(sink=batched("sink", sink, where=lambda result: False)).open()
    await bench.add(3)
    await bench.until_done(3)
    await bench.end()
    assert sink.batches == []


async def test_memory_is_bounded_whatever_batches_are_asked_for():
    """A filter lets so few records through that the batch would never fill; jobs are not held for it without end."""
    sink = MemorySink()
    few = batched("sink", sink, size=100, where=lambda result: result.job_id.endswith("00"))
    bench = await Bench(sink=few).open()
    for _ in range(10):
        await bench.add(100)
    await bench.until_done(900)
    await bench.end()
    assert len(sink.results) == 9
