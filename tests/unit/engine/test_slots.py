"""Who gets a slot that several engines wait for."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from fetcher.engine.slots import Slots


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """So many workers of a share, each of which takes a slot again and again; ``one_ends`` gives one back."""

    def __init__(self, share, workers, log):
        self.share, self.log, self.ends = share, log, []
        self.tasks = [asyncio.ensure_future(self.work()) for _ in range(workers)]

    async def work(self):
        while True:
            await self.share.acquire()
            self.log.append(self)
            end = asyncio.get_running_loop().create_future()
            self.ends.append(end)
            try:
                await end
            finally:
                self.share.release()

    async def stop(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def rounds(slots, crowds, count, seed=1):
    """Have the jobs of random crowds end, one at a time, by how many each has."""
    chance = random.Random(seed)
    for _ in range(count):
        await settle()
        running = [crowd for crowd in crowds for end in crowd.ends]
        assert slots.in_flight == len(running) == sum(crowd.share.in_flight for crowd in crowds)
        crowd = chance.choice(running)
        crowd.ends.pop(0).set_result(None)
    await settle()


async def test_a_slot_that_is_free_is_taken_without_waiting():
    slots = Slots(2)
    share = slots.share()
    await asyncio.wait_for(share.acquire(), 5)
    await asyncio.wait_for(share.acquire(), 5)
    assert (slots.in_flight, share.in_flight, share.waiting) == (2, 2, 0)
    third = asyncio.ensure_future(share.acquire())
    await settle()
    assert (third.done(), share.waiting, slots.waiting) == (False, 1, 1)
    share.release()
    await asyncio.wait_for(third, 5)
    share.release()
    share.release()
    assert (slots.in_flight, share.in_flight, slots.waiting) == (0, 0, 0)


async def test_who_waits_in_one_share_is_served_in_turn():
    slots, order = Slots(1), []
    share = slots.share()
    await share.acquire()

    async def wait(name):
        await share.acquire()
        order.append(name)
        share.release()

    waiting = [asyncio.ensure_future(wait(name)) for name in range(5)]
    await settle()
    share.release()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("limit", "weights"), [(40, (1, 1)), (40, (1, 3)), (40, (1, 3, 4)), (8, (0.5, 0.5, 1))])
async def test_shares_that_all_wait_have_slots_by_weight(limit, weights):
    slots, log = Slots(limit), []
    crowds = [Crowd(slots.share(weight), 2 * limit, log) for weight in weights]
    await rounds(slots, crowds, 500)
    parts = [crowd.share.in_flight for crowd in crowds]
    assert parts == pytest.approx([limit * weight / sum(weights) for weight in weights], abs=1)
    for crowd in crowds:
        await crowd.stop()


@pytest.mark.parametrize(("limit", "weights"), [(1, (1, 1)), (1, (1, 3)), (2, (1, 1, 1, 1)), (2, (1, 2, 1))])
async def test_shares_are_served_by_weight_even_if_there_are_more_of_them_than_slots(limit, weights):
    slots, log = Slots(limit), []
    crowds = [Crowd(slots.share(weight), 5, log) for weight in weights]
    await rounds(slots, crowds, 400)
    served = Counter(crowds.index(crowd) for crowd in log)
    parts = [served[index] / len(log) for index in range(len(crowds))]
    assert parts == pytest.approx([weight / sum(weights) for weight in weights], abs=0.1)
    for crowd in crowds:
        await crowd.stop()


async def test_a_small_share_does_not_wait_behind_a_large_one():
    slots, log = Slots(10), []
    large = Crowd(slots.share(), 500, log)
    await settle()
    small = Crowd(slots.share(), 1, log)
    await settle()
    large.ends.pop(0).set_result(None)
    await settle()
    assert small.share.in_flight == 1
    for crowd in (large, small):
        await crowd.stop()
    assert (slots.in_flight, slots.waiting) == (0, 0)


async def test_a_share_of_higher_priority_goes_first_and_others_have_what_it_leaves():
    slots, log = Slots(4), []
    low = Crowd(slots.share(weight=9), 20, log)
    await settle()
    high = Crowd(slots.share(weight=0.1, priority=1), 3, log)
    for _ in range(3):
        low.ends.pop(0).set_result(None)
        await settle()
    assert (high.share.in_flight, low.share.in_flight) == (3, 1)
    for crowd in (low, high):
        await crowd.stop()


async def test_who_has_not_waited_for_long_has_saved_nothing_up():
    slots, log = Slots(1), []
    busy = Crowd(slots.share(), 3, log)
    late = slots.share()
    await rounds(slots, [busy], 100)
    crowd = Crowd(late, 3, log)
    await settle()
    log.clear()
    await rounds(slots, [busy, crowd], 20)
    assert 8 <= log.count(crowd) <= 12
    for each in (busy, crowd):
        await each.stop()


async def test_who_has_never_waited_has_saved_nothing_up_even_if_nobody_waits_when_it_comes():
    slots, log = Slots(1), []
    busy = Crowd(slots.share(), 3, log)
    await rounds(slots, [busy], 100)
    await busy.stop()
    await busy.share.acquire()
    late = Crowd(slots.share(), 3, log)
    await settle()
    more = Crowd(busy.share, 3, log)
    await settle()
    log.clear()
    busy.share.release()
    await rounds(slots, [late, more], 20)
    assert 8 <= log.count(late) <= 13


async def test_who_is_cancelled_while_waiting_costs_no_slot():
    slots = Slots(1)
    share, other = slots.share(), slots.share()
    await share.acquire()
    waiting = asyncio.ensure_future(other.acquire())
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (slots.waiting, other.waiting) == (0, 0)
    share.release()
    assert slots.in_flight == 0


async def test_a_slot_given_to_who_is_cancelled_goes_on_to_the_next():
    slots = Slots(1)
    share, other = slots.share(), slots.share()
    await share.acquire()
    first, second = (asyncio.ensure_future(one.acquire()) for one in (other, share))
    await settle()
    share.release()  # given to the first, which has not run yet
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.wait_for(second, 5)
    assert (slots.in_flight, share.in_flight, other.in_flight) == (1, 1, 0)


async def test_a_slot_that_gets_free_while_who_waits_is_being_cancelled_goes_to_the_next():
    slots = Slots(1)
    share, other = slots.share(), slots.share()
    await share.acquire()
    first, second = (asyncio.ensure_future(one.acquire()) for one in (other, share))
    await settle()
    first.cancel()  # it has not run since
    share.release()
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.wait_for(second, 5)
    assert (slots.in_flight, slots.waiting, other.in_flight) == (1, 0, 0)
    share.release()
    assert slots.in_flight == 0


async def test_more_slots_are_there_at_once_and_fewer_as_they_are_given_back():
    slots = Slots(1)
    share = slots.share()
    waiting = [asyncio.ensure_future(share.acquire()) for _ in range(5)]
    await settle()
    assert slots.in_flight == 1
    slots.resize(4)
    await settle()
    assert (slots.in_flight, share.waiting) == (4, 1)
    slots.resize(2)
    for left in (3, 2):
        share.release()
        await settle()
        assert (slots.in_flight, share.waiting) == (left, 1)
    share.release()
    await settle()
    assert (slots.in_flight, share.waiting) == (2, 0)
    await asyncio.gather(*waiting)


async def test_a_closed_share_is_gone():
    slots = Slots(1)
    share = slots.share()
    assert list(slots.shares()) == [share]
    share.close()
    share.close()
    assert list(slots.shares()) == []


async def test_no_slot_is_lost_whatever_is_cancelled_when():
    slots, chance = Slots(3), random.Random(7)
    shares = [slots.share(weight, priority) for weight, priority in ((1, 0), (3, 0), (1, 1))]
    most = 0

    async def work(share):
        nonlocal most
        await share.acquire()
        try:
            most = max(most, sum(one.in_flight for one in shares))
            await asyncio.sleep(0)
        finally:
            share.release()

    for _ in range(300):
        tasks = [asyncio.ensure_future(work(chance.choice(shares))) for _ in range(12)]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 4):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (slots.in_flight, slots.waiting, [share.in_flight for share in shares]) == (0, 0, [0, 0, 0])
    assert most == 3
