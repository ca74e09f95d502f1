"""A lock for each name, and none for names that nobody asks for."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.config import ConfigProblems
from fetcher.service.batches.identity import batch_id_for, check_id
from fetcher.service.batches.locks import Locks


async def test_one_at_a_time_for_each_name_and_nothing_is_left():
    locks, inside, seen = Locks(), [], []

    async def work(name):
        async with locks.hold(name):
            assert name not in inside
            inside.append(name)
            await asyncio.sleep(0)
            seen.append(sorted(inside))
            inside.remove(name)

    await asyncio.gather(*(work(name) for name in "abab"))
    assert ["a", "b"] in seen
    assert len(locks) == 0


async def test_who_is_cancelled_while_waiting_holds_nothing():
    locks = Locks()
    async with locks.hold("a"):
        waiting = asyncio.create_task(locks.hold("a").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert len(locks) == 0


def test_ids_sort_by_time_are_unique_and_can_be_names_of_files():
    ids = [batch_id_for("x", 1_700_000_000.0) for _ in range(20)]
    assert len(set(ids)) > 15
    assert ids[0].startswith("x-20231114T221320-")
    check_id(batch_id_for("n" * 100, 1.0))
    for bad in ("", "a/b", "../x", ".x", "a b", "x" * 201, "a\n"):
        with pytest.raises(ConfigProblems):
            check_id(bad)
