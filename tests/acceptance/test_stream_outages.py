"""Batches whose target is away for part of the time: they end complete, and hold no more than they may meanwhile.

``SOAK=20000`` makes them that long; by default they are short.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from origin_process import origin_process
from outage_targets import SERVERS, STREAMS

from fetcher.assembly import Batch
from fetcher.config import Config

JOBS = int(os.environ.get("SOAK", "2000"))
HELD = 12_000  # what the delivery may hold: two units and what is gathered behind them
pytestmark = pytest.mark.timeout(60 + JOBS // 50)


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


@pytest.mark.parametrize("name", STREAMS)
async def test_a_target_that_is_away_costs_nothing_but_time(name, request, origin, tmp_path, monkeypatch):
    """F93, F84, F96: another sink of the batch has everything once, too."""
    monkeypatch.chdir(tmp_path)
    target = STREAMS[name](tmp_path, request.getfixturevalue(SERVERS[name]), JOBS)
    config = {
        "sources": [f"{origin.url}/bytes/200?{{1..{JOBS}}}"],
        "queue": "memory",
        "sinks": ["out.jsonl", target.sink],
        "limits": {"concurrency": 200, "per_host": {"concurrency": 200}},
    }
    batch = Batch(Config.model_validate(config))
    await batch.open()
    delivery, outlet = batch.engine.delivery, batch.engine.delivery.outlets[1]
    held = []
    try:
        running = asyncio.create_task(batch.run())
        await until(lambda: batch.engine.done >= JOBS // 4, running)
        await asyncio.to_thread(target.stop)
        try:
            # What is fetched meanwhile waits in the delivery, until that is full or there is nothing left to fetch.
            await until(lambda: outlet.trouble is not None and (delivery.full or everything_is_fetched(batch)), running)
            held.append(delivery.held)
            await asyncio.sleep(0.5)  # this is what is tested: time in which nothing may go on
            held.append(delivery.held)
            assert batch.engine.done < JOBS
            assert JOBS < HELD or batch.engine.queued > 0, "it was fetched on and on"
        finally:
            await asyncio.to_thread(target.start)
        assert await running
        assert batch.engine.accounted
    finally:
        await batch.close()
    assert max(held) <= HELD
    found = await target.ids()
    assert len(found) == JOBS
    if name != "redis":  # at least once: the answer to one transaction may have been lost
        assert set(found.values()) == {1}
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == JOBS
    assert outlet.errors >= 1
    assert outlet.dead_letters == 0


def everything_is_fetched(batch):
    engine = batch.engine
    return engine.fed and not engine.running and not engine.queued


async def until(condition, running):
    while not condition():
        assert not running.done(), "the batch has ended too early"
        await asyncio.sleep(0.01)
