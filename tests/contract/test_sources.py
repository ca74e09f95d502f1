"""What every source promises, whatever its type: see ``fetcher.interfaces.Source``."""

from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from fetcher.registry import config_class
from fetcher.sources import file as file_module
from fetcher.sources import inline as inline_module
from fetcher.sources import lines as lines_module
from fetcher.sources import template as template_module

COUNT = 47
BAD = 20


def text(number):
    return "http://a.test/ bad" if number == BAD else f"http://a.test/{number}"


def lines():
    return "".join(f"{text(number)}\n" for number in range(1, COUNT + 1))


def table():
    rows = "".join(f'{text(number)},"two\nlines"\n' for number in range(1, COUNT + 1))
    return f"url,x\n{rows}"


def objects():
    return "".join(f'{{"url": "{text(number)}"}}\n' for number in range(1, COUNT + 1))


def file_config(folder, name, data):
    path = folder / name
    path.write_bytes(gzip.compress(data.encode()) if name.endswith(".gz") else data.encode())
    return config_class("sources", "file")(path=str(path))


# What makes the source, and which id its bad row has. The config of the last two can not hold a bad URL.
CASES = {
    "txt": (lambda folder: file_config(folder, "u.txt", lines()), BAD),
    "txt.gz": (lambda folder: file_config(folder, "u.txt.gz", lines()), BAD),
    "csv": (lambda folder: file_config(folder, "u.csv", table()), 2 * BAD),
    "csv.gz": (lambda folder: file_config(folder, "u.csv.gz", table()), 2 * BAD),
    "jsonl": (lambda folder: file_config(folder, "u.jsonl", objects()), BAD),
    "template": (lambda _: config_class("sources", "template")(url=f"http://a.test/{{1..{COUNT}}}"), None),
    "inline": (
        lambda _: config_class("sources", "inline")(jobs=[f"http://a.test/{n}" for n in range(1, COUNT + 1)]),
        None,
    ),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    monkeypatch.setattr(file_module, "_CHUNK_ROWS", 5)
    monkeypatch.setattr(lines_module, "BLOCK", 64)
    monkeypatch.setattr(inline_module, "_ROWS", 5)
    monkeypatch.setattr(template_module, "_ROWS", 5)
    make, bad = CASES[request.param]
    return make(tmp_path), bad


@pytest.fixture
def source(case):
    return case[0].build()


async def read(source, position=None):
    async with aclosing(source.read(position)) as chunks:
        return [chunk async for chunk in chunks]


def jobs_of(chunks):
    return [job for chunk in chunks for job in chunk.jobs]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetcher-source")]


async def settled(before):
    """Wait until there are no more descriptors and threads than before."""
    for _ in range(200):
        if not threads() and descriptors() <= before:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_check_finds_nothing_wrong_and_uses_nothing_up(source):
    before = descriptors()
    source.check()
    source.check()
    assert descriptors() == before
    assert len(jobs_of(await read(source))) == COUNT


async def test_every_row_is_a_job_in_order(source):
    jobs = jobs_of(await read(source))
    good = [job.url for job in jobs if job.rejected is None]
    assert good == [f"http://a.test/{n}" for n in range(1, COUNT + 1) if n != BAD or len(good) == COUNT]
    assert len(jobs) == COUNT


async def test_no_chunk_is_empty_or_large(source):
    sizes = [len(chunk.jobs) for chunk in await read(source)]
    assert set(sizes) <= {1, 2, 3, 4, 5}
    assert len(sizes) == -(-COUNT // 5)


async def test_ids_are_unique_and_the_same_every_time(case):
    first = jobs_of(await read(case[0].build()))
    assert len({job.id for job in first}) == COUNT
    assert jobs_of(await read(case[0].build())) == first


async def test_resumes_at_every_position_without_loss_or_repeat(case):
    chunks = await read(case[0].build())
    for number, chunk in enumerate(chunks, 1):
        assert await read(case[0].build(), chunk.position) == chunks[number:]


async def test_positions_are_short_text(source):
    assert all(0 < len(chunk.position) < 200 for chunk in await read(source))


async def test_a_bad_row_is_a_rejected_job_with_its_position(case):
    config, bad = case
    rejected = [job for job in jobs_of(await read(config.build())) if job.rejected is not None]
    if bad is None:
        assert rejected == []
        return
    assert [job.id for job in rejected] == [str(bad)]
    assert rejected[0].rejected.message
    assert rejected[0].host == ""
    assert msgspec.json.encode(rejected[0])


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_can_be_closed_early_without_a_leak(source, taken):
    before = descriptors()
    chunks = source.read(None)
    for _ in range(taken):
        await anext(chunks)
    await chunks.aclose()
    assert await settled(before)


async def test_can_be_cancelled_at_any_step_without_a_leak(source):
    before = descriptors()
    for steps in range(12):
        task = asyncio.create_task(read(source))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await settled(before)


async def test_reading_leaves_nothing_behind(source):
    before = descriptors()
    await read(source)
    assert await settled(before)
