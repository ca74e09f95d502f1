"""Batches by size, by weight and by time, on a loop whose time the test moves."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.pipeline.batcher import Batcher

FAR = 3600.0


def make(size=3, size_bytes=100, linger=FAR):
    return Batcher(size=size, size_bytes=size_bytes, linger=linger, weigh=len)


def waiting(batcher):
    return asyncio.ensure_future(batcher.next())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_batch_is_handed_out_when_it_has_its_size():
    batcher = make()
    next_one = waiting(batcher)
    for item in ("a", "b"):
        batcher.add(item)
    await settle()
    assert not next_one.done()
    batcher.add("c")
    assert await next_one == ["a", "b", "c"]
    assert len(batcher) == 0


async def test_a_batch_is_handed_out_when_it_has_its_weight():
    batcher = make(size=100)
    next_one = waiting(batcher)
    batcher.add("x" * 99)
    await settle()
    assert not next_one.done()
    batcher.add("y")
    assert len(await next_one) == 2
    next_one = waiting(batcher)
    batcher.add("z" * 99)  # the weight begins anew
    await settle()
    assert not next_one.done()
    next_one.cancel()


async def test_a_small_batch_lingers_from_its_first_item(monkeypatch):
    loop, now = asyncio.get_running_loop(), 0.0
    begun = loop.time()
    monkeypatch.setattr(loop, "time", lambda: begun + now)
    batcher = make(linger=10.0)
    next_one = waiting(batcher)
    await settle()
    batcher.add("a")
    now = 9.0
    batcher.add("b")
    await settle()
    assert not next_one.done()
    now = 10.1
    await settle()
    assert next_one.result() == ["a", "b"]
    next_one = waiting(batcher)
    now = 30.0
    await settle()
    assert not next_one.done()  # there is nothing to hand out
    batcher.add("c")
    now = 39.0
    await settle()
    assert not next_one.done()
    now = 41.0
    await settle()
    assert next_one.result() == ["c"]


async def test_a_timer_of_a_batch_that_went_before_does_not_cut_the_next_short():
    batcher = make()
    for item in "abc":
        batcher.add(item)
    assert await batcher.next() == ["a", "b", "c"]
    assert batcher._timer is None
    batcher.add("d")
    next_one = waiting(batcher)
    await settle()
    assert not next_one.done()
    next_one.cancel()


async def test_producers_wait_while_too_much_is_not_taken():
    batcher = make()
    for number in range(3 * Batcher._DEEP):
        assert not batcher.full
        batcher.add(str(number))
    assert batcher.full
    room = asyncio.ensure_future(batcher.room())
    await settle()
    assert not room.done()
    assert len(await batcher.next()) == 12
    await room
    assert not batcher.full


async def test_producers_wait_for_bytes_too():
    batcher = make(size=1000)
    batcher.add("x" * 399)
    assert not batcher.full
    batcher.add("x")
    assert batcher.full


async def test_closing_hands_out_the_rest_and_then_none():
    batcher = make()
    batcher.add("a")
    next_one = waiting(batcher)
    await settle()
    batcher.close()
    assert await next_one == ["a"]
    assert await batcher.next() is None
    assert await batcher.next() is None


async def test_closing_an_empty_one_ends_it():
    batcher = make()
    next_one = waiting(batcher)
    await settle()
    batcher.close()
    assert await next_one is None


async def test_a_cancelled_wait_loses_nothing():
    batcher = make()
    next_one = waiting(batcher)
    batcher.add("a")
    await settle()
    next_one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await next_one
    batcher.close()
    assert await batcher.next() == ["a"]


async def test_nothing_is_lost_between_many_producers_and_a_consumer():
    batcher, seen = make(size=7, linger=0.001), []

    async def produce(name):
        for number in range(50):
            if batcher.full:
                await batcher.room()
            batcher.add(f"{name}-{number}")
            await asyncio.sleep(0)

    async def consume():
        while (batch := await batcher.next()) is not None:
            assert batch
            seen.extend(batch)

    consumer = asyncio.ensure_future(consume())
    await asyncio.gather(*(produce(n) for n in range(10)))
    batcher.close()
    await consumer
    assert len(seen) == len(set(seen)) == 500


async def test_hurry_hands_out_what_there_is_and_nothing_is_no_batch():
    batcher = Batcher(size=100, size_bytes=10**9, linger=3600, weigh=lambda _: 1)
    batcher.hurry()
    waiting = asyncio.ensure_future(batcher.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    batcher.add("a")
    batcher.hurry()
    assert await waiting == ["a"]
    batcher.close()
    assert await batcher.next() is None
