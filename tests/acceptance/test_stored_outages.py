"""Batches into databases and object stores, whose target is away for part of the time, or which are killed.

``SOAK=20000`` makes them that long; by default they are short.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from origin_process import origin_process
from outage_targets import SERVERS, STORED

from fetcher.assembly import Batch
from fetcher.config import Config
from fetcher.errors import FetcherError

JOBS = int(os.environ.get("SOAK", "1200"))
KILLS = 2 + JOBS // 4000
HELD = 12_000  # what the delivery may hold: two units and what is gathered behind them
pytestmark = pytest.mark.timeout(60 + JOBS // 50 + KILLS * 10)


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


@pytest.fixture(params=STORED)
def target(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return target_of(request.param, request, tmp_path)


def target_of(name, request, folder):
    server = SERVERS.get(name)
    return STORED[name](folder, server and request.getfixturevalue(server), JOBS)


async def test_a_target_that_is_away_costs_nothing_but_time(target, origin, tmp_path):
    """F85, F93, F94: and another sink of the batch has everything once, too (F96)."""
    config = {
        # As slow as it takes to stop a server in the meantime.
        "sources": [f"{origin.url}/delay/0.05/bytes/200?{{1..{JOBS}}}"],
        "queue": "memory",
        "sinks": ["out.jsonl", target.sink],
        "limits": {"concurrency": 40, "per_host": {"concurrency": 40}},
    }
    batch = Batch(Config.model_validate(config))
    await batch.open()
    delivery, outlet = batch.engine.delivery, batch.engine.delivery.outlets[1]
    held = []
    try:
        running = asyncio.create_task(batch.run())
        await until(lambda: batch.engine.done >= JOBS // 10, running)
        await asyncio.to_thread(target.stop)
        try:
            # What is fetched meanwhile waits in the delivery, until that is full or there is nothing left to fetch.
            await until(lambda: outlet.trouble is not None and (delivery.full or everything_is_fetched(batch)), running)
            held.append(delivery.held)
            await asyncio.sleep(0.3)  # this is what is tested: time in which nothing may go on
            held.append(delivery.held)
            assert batch.engine.done < JOBS
        finally:
            await asyncio.to_thread(target.start)
        assert await running
        assert batch.engine.accounted
    finally:
        await batch.close()
    assert max(held) <= HELD
    assert await target.ids() == ids_of(tmp_path)
    assert outlet.errors >= 1
    assert outlet.dead_letters == 0


def ids_of(folder):
    """Return the jobs in the file beside, each of which has to be there once."""
    found = Counter(json.loads(line)["job_id"] for line in (folder / "out.jsonl").read_bytes().splitlines())
    assert len(found) == JOBS
    assert set(found.values()) == {1}
    return found


def everything_is_fetched(batch):
    engine = batch.engine
    return engine.fed and not engine.running and not engine.queued


async def until(condition, running):
    while not condition():
        assert not running.done(), "the batch has ended too early"
        await asyncio.sleep(0.01)


async def test_killed_at_random_moments_every_job_is_there_once(target, origin, tmp_path):
    """F80, F81: what was written and not acknowledged is written again, and is there once for all that."""
    config = {
        "sources": [f"{origin.url}/delay/0.06/bytes/200?{{1..{JOBS}}}"],
        "sinks": ["out.jsonl", target.sink],
        "limits": {"concurrency": 20, "per_host": {"concurrency": 20}},
    }
    (tmp_path / "batch.yaml").write_text(json.dumps(config))
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments = random.Random(seed)
    for _ in range(KILLS):
        run = start(tmp_path)
        time.sleep(moments.uniform(0.6, 1.3))  # noqa: ASYNC251  time is what is random here
        run.kill()
        run.communicate()
        assert run.returncode == -9, "the batch was over before it could be killed"
    last = start(tmp_path)
    _, said = await asyncio.to_thread(last.communicate, timeout=120)
    assert last.returncode == 0, said
    assert "all accounted for" in said
    assert await target.ids() == ids_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("sqlite", lambda target: target.path.write_bytes(b"no database at all")),
        ("postgres", lambda target: target.sink.update(dsn=target.server.dsn_of("postgres", password="wrong"))),
        ("postgres", lambda target: target.sink.update(dsn="postgresql://a:b@127.0.0.1:1/c")),
        ("objectstore", lambda target: target.sink.update(path="s3://no-such-bucket/pages.jsonl")),
    ],
)
async def test_what_can_not_be_written_to_is_refused_before_anything_is_fetched(
    name, edit, request, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    target = target_of(name, request, tmp_path)
    edit(target)
    config = {"sources": ["http://127.0.0.1:1/{1..10}"], "sinks": ["out.jsonl", target.sink]}
    batch = Batch(Config.model_validate(config))
    with pytest.raises(FetcherError) as caught:
        await batch.open()
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)
    assert batch.engine.done == 0
    assert not (tmp_path / "out.jsonl").exists()


def start(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
