"""Over whatever sinks do: each file has exactly one record of each job, and no ack comes before all of them have it."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import SinkError
from fetcher.formats.jsonl import JsonlFormat
from fetcher.model import Job, Outcome, Result
from fetcher.pipeline import outlet as module
from fetcher.pipeline.delivery import Delivery
from fetcher.pipeline.outlet import Batching, Outlet, Plan
from fetcher.queues.memory import MemoryQueue
from fetcher.sinks.file import FileSink
from fetcher.testing import FakeClock

JOBS = 40
# What a write does before or after it has reached the disk; a kill ends the process, and so does a failure for good.
WRITES = st.sampled_from(
    ["ok", "ok", "ok", "away", "away", "fatal", "fatal after", "kill", "kill after", "slow", "cancel", "cancel after"]
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF", 0.0)


class KillError(BaseException):
    """The process ends here."""


class Unreliable(FileSink):
    """A file that does what a script says."""

    def __init__(self, path, script):
        super().__init__(path, JsonlFormat())
        self._script = script
        self.cancel = lambda: None

    async def write(self, results):
        does = self._script.pop(0) if self._script else "ok"
        if does == "slow":
            for _ in range(20):
                await asyncio.sleep(0)
        if does == "cancel":
            self.cancel()
        mark = None if does in {"away", "fatal", "kill"} else await super().write(results)
        if does == "cancel after":
            self.cancel()
            await asyncio.sleep(0)
        if does == "away":
            raise SinkError("away", retryable=True)
        if "fatal" in does:
            raise SinkError("no rights")
        if "kill" in does:
            raise KillError
        return mark


class Guarded(MemoryQueue):
    """Sees to it that what is acknowledged is in every file at that moment."""

    def __init__(self, paths, clock):
        super().__init__(clock=clock)
        self.paths = paths

    async def ack(self, acks, marks):
        for path in self.paths if acks else []:
            there = set(ids(path))
            assert {ack.lease.job.id for ack in acks} <= there
        return await super().ack(acks, marks)


def ids(path):
    return [json.loads(line)["job_id"] for line in path.read_bytes().splitlines()]


async def process(queue, paths, scripts, batching, size):
    """Do what one process does, from its start to its end; tell whether everything was delivered."""
    outlets = {
        f"sink:{index}": Outlet(f"sink:{index}", Unreliable(path, script), Plan(batching=own))
        for index, (path, script, own) in enumerate(zip(paths, scripts, batching, strict=True))
    }
    delivery = Delivery(queue, outlets, lambda leases, accepted: None, at_end=lambda: True)
    marks = await queue.open()
    await delivery.open(marks)
    running = asyncio.ensure_future(delivery.run())
    for outlet in outlets.values():
        outlet.sink.cancel = running.cancel
    try:
        while leases := (await queue.lease(size, size, {})).leases:
            for lease in leases:
                delivery.add(lease, Result(batch="b", job_id=lease.job.id, url="u", outcome=Outcome.OK, attempts=1))
            delivery.hurry()
            while len(delivery._batcher) and not running.done():  # noqa: ASYNC110
                await asyncio.sleep(0)
            if running.done():
                break
        while not running.done() and (await queue.counts()).left:  # noqa: ASYNC110
            await asyncio.sleep(0)
        delivery.finish()
        await running
    except (SinkError, KillError, asyncio.CancelledError):
        return False
    finally:
        running.cancel()
        await asyncio.wait([running])
        await delivery.close()
    return True


@settings(max_examples=60, deadline=None)
@given(
    scripts=st.lists(st.lists(WRITES, max_size=8), min_size=1, max_size=3),
    own=st.lists(
        st.sampled_from([None, Batching(15, 10**9, 3600.0), Batching(25, 10**9, 0.0)]), min_size=3, max_size=3
    ),
    size=st.integers(3, 20),
)
def test_exactly_one_record_of_each_job_in_each_file(scripts, own, size):
    async def batch():
        folder = Path(tempfile.mkdtemp())
        try:
            paths = [folder / f"{index}.jsonl" for index in range(len(scripts))]
            clock = FakeClock()
            queue = Guarded(paths, clock)
            await queue.put([Job(id=str(n), url="u", host="a") for n in range(JOBS)], {})
            for _ in range(40):
                if await process(queue, paths, scripts, own[: len(scripts)], size):
                    break
                clock.advance(1000)  # the leases of a process that is gone lapse
            assert (await queue.counts()).done == JOBS
            for path in paths:
                assert Counter(ids(path)) == Counter(str(n) for n in range(JOBS))
        finally:
            shutil.rmtree(folder)

    asyncio.run(batch())
