"""Sinks first, then the acknowledgement with their marks; a failure acknowledges nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fetcher.errors import SinkError, StateError
from fetcher.formats.jsonl import JsonlFormat
from fetcher.model import Job, Outcome, Result
from fetcher.pipeline import delivery as module
from fetcher.pipeline.delivery import TALLY_MARK, Delivery
from fetcher.pipeline.tally import Tally
from fetcher.queues.memory import MemoryQueue
from fetcher.sinks.file import FileSink
from fetcher.testing import MemorySink


class Recorder(MemoryQueue):
    """Notes in what order things happen."""

    def __init__(self, log):
        super().__init__()
        self.log = log
        self.marks = []

    async def ack(self, acks, marks):
        self.log.append(("ack", len(acks)))
        self.marks.append(dict(marks))
        return await super().ack(acks, marks)


class LoggedSink(MemorySink):
    """Tells when it has written."""

    def __init__(self, log, name):
        super().__init__()
        self.log, self.name = log, name

    async def write(self, results):
        mark = await super().write(results)
        self.log.append((self.name, len(results)))
        return mark


@pytest.fixture
def log():
    return []


@pytest.fixture
async def queue(log):
    made = Recorder(log)
    await made.put([Job(id=str(n), url=f"u{n}", host="a") for n in range(2000)], {})
    return made


async def leases(queue, count):
    return (await queue.lease(count, count, {})).leases


def result(lease, outcome=Outcome.OK, **fields):
    return Result(batch="b", job_id=lease.job.id, url=lease.job.url, outcome=outcome, attempts=1, **fields)


class Settled(list):
    def __call__(self, leases, accepted):
        self.append((len(leases), accepted))


async def deliver(delivery, queue, count, **fields):
    for lease in await leases(queue, count):
        delivery.add(lease, result(lease, **fields))


async def test_sinks_come_first_and_their_marks_go_with_the_acknowledgement(queue, log):
    sinks, settled = {"sink:0": LoggedSink(log, "a"), "sink:1": LoggedSink(log, "b")}, Settled()
    delivery = Delivery(queue, sinks, settled)
    await delivery.open({})
    log.clear()
    await deliver(delivery, queue, 5)
    delivery.finish()
    await delivery.run()
    assert log == [("a", 5), ("b", 5), ("ack", 5)]
    marks = queue.marks[-1]
    assert (marks["sink:0"], marks["sink:1"]) == ("5", "5")
    assert Tally.load(marks[TALLY_MARK]).outcomes == {Outcome.OK: 5}
    assert settled == [(5, 5)]
    assert (await queue.counts()).outcomes == {Outcome.OK: 5}


async def test_no_acknowledgement_before_the_slowest_sink(queue, log):
    fast, slow = LoggedSink(log, "fast"), LoggedSink(log, "slow")
    delivery = Delivery(queue, {"sink:0": fast, "sink:1": slow}, Settled())
    await delivery.open({})
    log.clear()
    slow.gate = asyncio.Event()
    await deliver(delivery, queue, 3)
    delivery.finish()
    run = asyncio.ensure_future(delivery.run())
    while not log:  # noqa: ASYNC110  no event to wait for
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert log == [("fast", 3)]
    slow.gate.set()
    await run
    assert log == [("fast", 3), ("slow", 3), ("ack", 3)]


async def test_without_sinks_jobs_are_acknowledged_all_the_same(queue):
    delivery = Delivery(queue, {}, Settled())
    await delivery.open({})
    await deliver(delivery, queue, 3)
    delivery.finish()
    await delivery.run()
    assert (await queue.counts()).done == 3


@pytest.mark.parametrize("others", [0, 1, 2])
async def test_a_sink_that_fails_has_nothing_acknowledged(queue, log, others):
    sinks = {f"sink:{n}": LoggedSink(log, str(n)) for n in range(others)}
    sinks["failing"] = failing = LoggedSink(log, "failing")
    failing.fail_with = "full"
    delivery = Delivery(queue, sinks, Settled())
    await delivery.open({})
    log.clear()
    await deliver(delivery, queue, 3)
    delivery.finish()
    with pytest.raises(SinkError, match="full"):
        await delivery.run()
    assert ("ack", 3) not in log
    assert (await queue.counts()).done == 0


async def test_a_failure_is_raised_only_when_no_other_sink_is_writing(queue, log):
    failing, slow = LoggedSink(log, "failing"), LoggedSink(log, "slow")
    failing.fail_with = "full"
    delivery = Delivery(queue, {"sink:0": failing, "sink:1": slow}, Settled())
    await delivery.open({})
    slow.gate = asyncio.Event()
    await deliver(delivery, queue, 3)
    delivery.finish()
    run = asyncio.ensure_future(delivery.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not run.done()
    slow.gate.set()
    with pytest.raises(SinkError):
        await run
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_queue_that_fails_is_heard_of(queue, monkeypatch):
    delivery = Delivery(queue, {"sink:0": MemorySink()}, Settled())
    await delivery.open({})

    async def fails(*_):
        raise StateError("gone")

    monkeypatch.setattr(queue, "ack", fails)
    await deliver(delivery, queue, 1)
    delivery.finish()
    with pytest.raises(StateError, match="gone"):
        await delivery.run()


async def test_refused_leases_are_settled_but_not_counted_as_ended(queue):
    settled = Settled()
    delivery = Delivery(queue, {"sink:0": MemorySink()}, settled)
    await delivery.open({})
    held = await leases(queue, 3)
    held[0].token -= 1
    for lease in held:
        delivery.add(lease, result(lease))
    delivery.finish()
    await delivery.run()
    assert settled == [(3, 2)]


async def test_workers_wait_while_the_sinks_are_behind(queue):
    sink = MemorySink()
    delivery = Delivery(queue, {"sink:0": sink}, Settled())
    await delivery.open({})
    sink.gate = asyncio.Event()
    run = asyncio.ensure_future(delivery.run())
    await deliver(delivery, queue, module.BATCH_SIZE)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not delivery.full
    held = await leases(queue, 1400)
    # One batch is being written, one is ready for the sink, and then they pile up.
    for _ in range(2):
        while not delivery.full:
            lease = held.pop()
            delivery.add(lease, result(lease, body=b"x" * 100_000))
        for _ in range(5):
            await asyncio.sleep(0)
    room = asyncio.ensure_future(delivery.room())
    await asyncio.sleep(0)
    assert not room.done()
    sink.gate.set()
    await room
    delivery.finish()
    await run


async def test_the_tally_goes_on_after_a_resume(queue):
    sink, first = MemorySink(), Delivery(queue, {}, Settled())
    for delivery in (first, Delivery(queue, {"sink:0": sink}, Settled())):
        await delivery.open(await queue.open())
        await deliver(delivery, queue, 4, outcome=Outcome.OK)
        delivery.finish()
        await delivery.run()
    tally = Tally.load((await queue.open())[TALLY_MARK])
    assert tally.total == 8
    assert tally.elapsed >= first.tally.elapsed


async def test_a_resumed_sink_is_cut_back_to_its_mark(queue):
    sink = MemorySink()
    sink.results = ["acknowledged", "not"]
    await Delivery(queue, {"sink:0": sink}, Settled()).open({"sink:0": "1"})
    assert sink.results == ["acknowledged"]


async def test_a_crash_between_the_first_write_and_its_acknowledgement_can_be_resumed(queue, tmp_path, monkeypatch):
    """Without a mark from the beginning, the file would look like somebody else's."""
    path = Path(tmp_path / "out.jsonl")
    sink = FileSink(path, JsonlFormat())
    delivery = Delivery(queue, {"sink:0": sink}, Settled())
    await delivery.open({})

    async def killed(*_):
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "ack", killed)
        await deliver(delivery, queue, 3)
        delivery.finish()
        with pytest.raises(KeyError):
            await delivery.run()
    await delivery.close()
    assert path.read_text().count("\n") == 3  # noqa: ASYNC240  a test may block
    resumed = Delivery(queue, {"sink:0": FileSink(path, JsonlFormat())}, Settled())
    await resumed.open(await queue.open())
    assert path.read_text() == ""  # noqa: ASYNC240  a test may block
    await resumed.close()


async def test_a_task_that_vanishes_as_cancelled_is_a_failure_and_no_wait_for_ever(queue, monkeypatch):
    delivery = Delivery(queue, {"sink:0": MemorySink()}, lambda leases, accepted: None)
    await delivery.open({})

    async def vanishes():
        raise asyncio.CancelledError

    monkeypatch.setattr(delivery, "_next_batch", vanishes)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="'delivery intake' was cancelled"):
            await delivery.run()


async def test_who_cancels_the_delivery_gets_no_other_failure(queue):
    delivery = Delivery(queue, {"sink:0": MemorySink()}, lambda leases, accepted: None)
    await delivery.open({})
    running = asyncio.ensure_future(delivery.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
