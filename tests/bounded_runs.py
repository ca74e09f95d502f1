"""Batches of which something bounds the throughput, and what is said of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from batches import TEST_HOSTS

from fetcher.assembly import Batch
from fetcher.config import Config
from fetcher.service.observing.why import Reasons

LOOKS = 6


def batch(folder, sources, *, shared=None, **sections):
    config = {
        "name": folder.name,
        "sources": sources,
        "queue": "memory",
        "http": TEST_HOSTS,
        "shutdown_timeout": "100ms",
        "sinks": [{"type": "file", "path": str(folder / "out.jsonl"), "format": "jsonl"}],
    }
    return Batch(Config.model_validate(config | sections), fresh=True, shared=shared)


async def true(condition):
    while not condition():  # noqa: ASYNC110  the state of an engine, which tells nobody
        await asyncio.sleep(0.01)


class Calm(Reasons):
    """Takes no account of how busy this machine is, which depends on who else is at work."""

    def _update(self, cpu, late):
        pass


async def why(*batches, until=lambda: True, kind=Calm):
    """Run batches until there were some looks after ``until`` is true; return what bounds them."""
    async with AsyncExitStack() as stack:
        for one in batches:
            await one.open()
            stack.push_async_callback(one.close)
        late = []
        reasons = kind(lambda: [one.engine for one in batches], late.append)
        runs = [asyncio.create_task(one.run()) for one in batches]
        await true(until)
        looking = asyncio.create_task(reasons.run())
        await true(lambda: len(late) > LOOKS or all(run.done() for run in runs))
        looking.cancel()
        for one in batches:
            one.drain()
        await asyncio.wait([looking, *runs])
        return reasons


def first(reasons):
    said = reasons.get()
    assert sum(one.share for one in said.bounds) == pytest.approx(1, abs=0.001)
    assert said.bounds[0].name in said.verdict
    return said.bounds[0]
