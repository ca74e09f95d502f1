"""F54, F90, F93, F96: a full disk, a database that is away, one sink of three, and text that can not be read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from batches import TEST_HOSTS, run_batch
from origin_process import origin_process
from raw_server import answering, raw_server
from rich.console import Console

from fetcher.assembly import Batch
from fetcher.cli import summary
from fetcher.config import Config

JOBS = 600
_ROOM = 2**20


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a megabyte, where that is allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", folder], check=False)
    if mounting.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def start(folder, origin, disk):
    """Start a batch whose output is on a disk that is full."""
    (disk / "filler").write_bytes(bytes(_ROOM - 64 * 1024))
    (folder / "batch.yaml").write_text(
        f"sources: ['{origin.url}/bytes/400?n={{1..{JOBS}}}']\nsinks: [{disk}/out.jsonl]\nshutdown_timeout: 1s\n"
    )
    return again(folder)


def again(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def until_it_says(run, event):
    """Return what a run has said up to an event of its log."""
    said = []
    for line in run.stderr:
        said.append(line)
        if line.startswith("{") and json.loads(line)["event"] == event:
            return said
    raise AssertionError("".join(said))


def whole(path):
    """Return how often there is a record of each job; every line is whole."""
    return Counter(json.loads(line)["job_id"] for line in path.read_bytes().splitlines())


def all_once(records):
    return len(records) == JOBS and set(records.values()) == {1}


def test_f90_a_full_disk_is_said_and_waited_for_and_the_run_goes_on_when_there_is_room(tmp_path, origin, small_disk):
    run = start(tmp_path, origin, small_disk)
    try:
        said = until_it_says(run, "sink away")
        assert "No space left on device; free some space" in said[-1]
        assert run.poll() is None
        assert sum(whole(small_disk / "out.jsonl").values()) < JOBS  # no torn line either
        (small_disk / "filler").unlink()
        _, rest = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 0, rest
    assert "all accounted for" in rest
    assert all_once(whole(small_disk / "out.jsonl"))


def test_f90_a_run_that_waits_for_room_can_be_interrupted_and_resumed(tmp_path, origin, small_disk):
    run = start(tmp_path, origin, small_disk)
    try:
        until_it_says(run, "sink away")
        run.send_signal(signal.SIGTERM)
        _, rest = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 75, rest
    assert rest.splitlines()[-1].endswith("No space left on device; free some space and run again to resume")
    (small_disk / "filler").unlink()
    done = again(tmp_path)
    _, said = done.communicate(timeout=30)
    assert done.returncode == 0, said
    assert all_once(whole(small_disk / "out.jsonl"))


@contextlib.asynccontextmanager
async def opened(config):
    batch = Batch(Config.model_validate(config))
    await batch.open()
    try:
        yield batch
    finally:
        await batch.close()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what is waited for is a figure, not an event
            await asyncio.sleep(0.01)


def outlet(batch, title):
    return next(outlet for outlet in batch.engine.delivery.outlets if outlet.title == title)


def config(folder, origin, postgres, table, jobs=JOBS * 8, **sink):
    database = {"type": "postgres", "name": "database", "dsn": postgres.dsn, "table": table, "connect_timeout": "2s"}
    return {
        "name": table,
        "sources": [f"{origin.url}/bytes/100?n={{1..{jobs}}}"],
        "http": TEST_HOSTS,
        "queue": {"type": "sqlite", "path": str(folder / "queue.db")},
        "limits": {"concurrency": 50, "per_host": {"concurrency": 50}},
        "body": "none",
        "sinks": [str(folder / "first.jsonl"), database | sink, str(folder / "third.jsonl")],
    }


async def in_the_database(postgres, table):
    async with postgres.connect() as connection:
        rows = await connection.fetch(f"SELECT job_id, count(*) AS n FROM {table} GROUP BY job_id")
    return {row["job_id"]: row["n"] for row in rows}


def memory():
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_f93_while_a_database_is_away_little_is_buffered_then_fetching_pauses_then_it_goes_on(
    tmp_path, origin, postgres
):
    jobs = JOBS * 20  # several times of what may be held
    async with opened(config(tmp_path, origin, postgres, "f93", jobs)) as batch:
        engine, database = batch.engine, outlet(batch, "database")
        running = asyncio.ensure_future(batch.run())
        await until(lambda: engine.done)
        postgres.stop()
        try:
            await until(lambda: database.trouble is not None and engine.delivery.full and not engine.running)
            done, before, lag = engine.done, memory(), database.lag
            failures = database.trouble.failures
            await until(lambda: database.trouble.failures > failures)
            # Nothing is fetched, nothing acknowledged, and nothing piles up however long it lasts.
            assert (engine.done, database.lag, len(engine.running)) == (done, lag, 0)
            assert memory() - before < 10 * 2**20
            assert engine.left > JOBS
        finally:
            postgres.start()
        assert await asyncio.wait_for(running, 60)
        assert engine.accounted
        assert (database.trouble, database.dead_letters) == (None, 0)
    stored = await in_the_database(postgres, "f93")
    assert len(stored) == jobs
    assert set(stored.values()) == {1}


async def test_f96_while_one_sink_of_three_is_away_the_others_have_each_record_once_and_jobs_wait(
    tmp_path, origin, postgres
):
    async with opened(config(tmp_path, origin, postgres, "f96")) as batch:
        engine, database = batch.engine, outlet(batch, "database")
        running = asyncio.ensure_future(batch.run())
        await until(lambda: engine.done)
        postgres.stop()
        try:
            await until(lambda: database.trouble is not None and database.trouble.failures > 1)
            await until(lambda: not outlet(batch, "file-1").lag and not outlet(batch, "file-3").lag)
            written = whole(tmp_path / "first.jsonl")
            assert whole(tmp_path / "third.jsonl") == written
            assert set(written.values()) == {1}
            assert engine.done < len(written)  # a job waits for the last of its sinks
        finally:
            postgres.start()
        assert await asyncio.wait_for(running, 60)
        assert engine.accounted
    for name in ("first", "third"):
        found = whole(tmp_path / f"{name}.jsonl")
        assert (len(found), set(found.values())) == (JOBS * 8, {1})
    assert len(await in_the_database(postgres, "f96")) == JOBS * 8


async def test_f96_a_sink_that_is_not_required_costs_no_job_its_end_and_its_records_are_dead_letters(
    tmp_path, origin, postgres, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = config(tmp_path, origin, postgres, "f96b", required=False, patience="100ms")
    async with opened(settings) as batch:
        engine, database = batch.engine, outlet(batch, "database")
        running = asyncio.ensure_future(batch.run())
        await until(lambda: engine.done)
        postgres.stop()
        try:
            assert await asyncio.wait_for(running, 60)
        finally:
            postgres.start()
        assert engine.accounted
        assert engine.delivery.tally.dead_letters == {"database": database.dead_letters}
        console = Console(file=io.StringIO(), width=200)
        console.print(summary.render(batch))
        said = "records that database did not take, in state/f96b.database.dead.jsonl"
        assert f"{database.dead_letters:,} {said}" in console.file.getvalue()
    dead = whole(tmp_path / "state" / "f96b.database.dead.jsonl")
    stored = await in_the_database(postgres, "f96b")
    assert set(dead.values()) == {1}
    assert len(dead) == database.dead_letters > 0
    # Each record is in one or the other; in both, if its answer was lost with the server.
    assert dead.keys() | stored.keys() == whole(tmp_path / "first.jsonl").keys()
    assert len(dead.keys() | stored.keys()) == JOBS * 8


@pytest.mark.parametrize(
    ("body", "charset", "text", "lossy"),
    [
        ("Grüße".encode("latin-1"), "utf-8", "Gr\ufffd\ufffde", True),
        ("Grüße".encode("latin-1"), "no-such-charset", "Grüße", True),
        ("Grüße".encode(), "no-such-charset", "Grüße", None),
    ],
)
async def test_f54_text_in_a_wrong_or_unknown_charset_is_lossy_and_says_so_and_the_bytes_stay(
    tmp_path, body, charset, text, lossy
):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset={charset}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with raw_server(answering(head.encode() + body)) as server:
        (record,) = await run_batch(tmp_path, [server.url()], stages=[{"type": "decode"}])
    assert record["extracted"]["text"] == text
    assert record["extracted"].get("lossy") is lossy
    encoded = record["body"].encode()
    assert (base64.b64decode(encoded) if record["body_encoding"] == "base64" else encoded) == body
