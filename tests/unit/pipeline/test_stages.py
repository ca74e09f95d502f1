"""Stages one after the other: dropped records still count, and a failure costs one job its outcome."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from fetcher.errors import ErrorKind
from fetcher.model import Job, Outcome, Result
from fetcher.pipeline.delivery import Delivery
from fetcher.pipeline.stages import Stages
from fetcher.queues.memory import MemoryQueue
from fetcher.testing import MemorySink


class Applied:
    """A stage of a function."""

    def __init__(self, function, concurrency=0):
        self.apply = function
        self.concurrency = concurrency

    def check(self):
        pass


def results(count, **fields):
    return [
        Result(batch="b", job_id=str(n), url="u", outcome=Outcome.OK, attempts=1, body=b"x", **fields)
        for n in range(count)
    ]


def even(result):
    return result if int(result.job_id) % 2 == 0 else None


def bare(result):
    return msgspec.structs.replace(result, body=None, status=None)


def bad_third(result):
    if result.job_id == "2":
        raise ValueError("there is no price")
    if result.job_id == "4":
        raise KeyError("price")
    return result


async def test_stages_come_one_after_the_other_and_what_is_dropped_still_counts():
    given = results(6, status=200)
    staged = await Stages({"a": Applied(even), "b": Applied(bare)}).run(given)
    assert [(record.job_id, record.body) for record in staged.records] == [("0", None), ("2", None), ("4", None)]
    assert staged.results == given
    assert staged.filtered == 3


async def test_a_failure_is_that_of_one_job_and_its_record_goes_on_as_it_was():
    staged = await Stages({"price": Applied(bad_third), "rest": Applied(bare)}).run(results(6, status=200))
    failed = {record.job_id: record for record in staged.records if record.outcome is Outcome.FAILED}
    assert {record.error_message for record in failed.values()} == {
        "stage price: there is no price",
        "stage price: KeyError: 'price'",
    }
    assert {record.error_kind for record in failed.values()} == {ErrorKind.STAGE_FAILED}
    assert len(staged.records) == 6
    counted = {result.job_id: result for result in staged.results}
    assert counted["2"].outcome is Outcome.FAILED
    assert (counted["2"].status, counted["2"].body) == (200, b"x")
    assert counted["0"].outcome is Outcome.OK


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
async def test_whatever_a_function_raises_on_the_thread_of_stages_is_about_one_job(error):
    def leaves(result):
        if result.job_id == "1":
            raise error
        return result

    staged = await Stages({"leaves": Applied(leaves)}).run(results(3))
    assert [record.error_kind for record in staged.records] == [None, ErrorKind.STAGE_FAILED, None]
    assert staged.records[1].error_message.startswith(f"stage leaves: {type(error).__name__}")


async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def awaits_what_was_cancelled():
    task = asyncio.ensure_future(asyncio.sleep(3600))
    task.cancel()
    await task


async def raises_it():
    raise asyncio.CancelledError


async def leaves():
    raise SystemExit(0)


@pytest.mark.parametrize("function", [cancels_itself, awaits_what_was_cancelled, raises_it, leaves])
async def test_an_async_function_that_ends_as_cancelled_fails_its_job_and_not_the_run(function):
    async def apply(result):
        if result.job_id == "1":
            await function()
        return result

    staged = await Stages({"s": Applied(apply, concurrency=2)}).run(results(4))
    assert [record.error_kind for record in staged.records] == [None, ErrorKind.STAGE_FAILED, None, None]


async def test_who_cancels_the_stages_has_them_cancelled():
    started, ended = asyncio.Event(), []

    async def apply(result):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(result.job_id)

    running = asyncio.ensure_future(Stages({"s": Applied(apply, concurrency=1)}).run(results(2)))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["0"]


async def test_awaitables_are_awaited_so_many_at_a_time():
    running = most = 0

    async def later(result):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return bad_third(result)

    staged = await Stages({"later": Applied(later, concurrency=3)}).run(results(20))
    assert [record.job_id for record in staged.records] == [str(n) for n in range(20)]
    assert most == 3
    assert sum(record.outcome is Outcome.FAILED for record in staged.records) == 2


async def test_the_loop_goes_on_while_a_stage_computes():
    loop, turns = asyncio.get_running_loop(), []

    def slow(result):
        asyncio.run_coroutine_threadsafe(turn(), loop).result(5)  # would never end if the loop stood still
        return result

    async def turn():
        turns.append(1)

    await Stages({"slow": Applied(slow)}).run(results(3))
    assert len(turns) == 3


@pytest.mark.parametrize("sinks", [0, 1])
async def test_every_job_is_acknowledged_with_the_outcome_that_its_record_has(sinks):
    queue, sink = MemoryQueue(), MemorySink()
    await queue.put([Job(id=str(n), url="u", host="a") for n in range(6)], {})
    stages = {"even": Applied(even), "bad": Applied(bad_third), "bare": Applied(bare)}
    delivery = Delivery(queue, {"sink": sink} if sinks else {}, lambda leases, accepted: None, stages)
    await delivery.open({})
    for lease, result in zip((await queue.lease(6, 6, {})).leases, results(6, status=200, body_size=1), strict=True):
        delivery.add(lease, result)
    delivery.finish()
    await delivery.run()
    assert (await queue.counts()).outcomes == {Outcome.OK: 4, Outcome.FAILED: 2}
    tally = delivery.tally
    assert (tally.total, tally.filtered, tally.body_bytes) == (6, 3, 6)
    assert tally.kinds["stage_failed"].count == 2
    assert len(sink.results) == 3 * sinks


async def test_a_stage_at_work_is_named_for_who_asks_what_is_waited_for():
    gate, seen = asyncio.Event(), asyncio.Event()

    async def waits(result):
        seen.set()
        await gate.wait()
        return result

    queue = MemoryQueue()
    await queue.put([Job(id="0", url="u", host="a")], {})
    delivery = Delivery(queue, {}, lambda leases, accepted: None, {"slow-1": Applied(waits, concurrency=1)})
    await delivery.open({})
    delivery.add((await queue.lease(1, 1, {})).leases[0], results(1)[0])
    delivery.finish()
    running = asyncio.ensure_future(delivery.run())
    await seen.wait()
    assert delivery.writing == {"stage slow-1"}
    gate.set()
    await running
    assert delivery.writing == set()


async def test_a_call_that_does_not_return_costs_one_job_and_nobody_waits_for_it():
    never, seen = threading.Event(), []

    def hangs(result):
        seen.append(result.job_id)
        if result.job_id == "2":
            never.wait()
        return result

    stage = Applied(hangs)
    stage.timeout = 0.05
    try:
        staged = await Stages({"slow": stage}).run(results(5))
    finally:
        never.set()
    assert [record.error_message for record in staged.records] == [
        "stage slow: took longer than 0.05 s" if record.job_id == "2" else None for record in results(5)
    ]
    assert seen == ["0", "1", "2", "3", "4"]


async def test_a_call_that_does_not_return_can_be_cancelled():
    begun, never = threading.Event(), threading.Event()

    def hangs(result):
        begun.set()
        never.wait()
        return result

    running = asyncio.ensure_future(Stages({"slow": Applied(hangs)}).run(results(2)))
    await asyncio.to_thread(begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    never.set()
