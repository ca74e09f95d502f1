"""The file of records that a server refuses: whole lines, of several writers, and of one run each."""

from __future__ import annotations

import asyncio
import json
import multiprocessing

import pytest

from fetcher.errors import SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks.rejected import Rejected
from fetcher.sinks.remote import Packed


def item(number, size=10):
    result = Result(batch="b", job_id=str(number), url="u", outcome=Outcome.OK, attempts=1)
    return Packed(result, json.dumps({"job_id": str(number), "body": "x" * size}).encode())


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_a_line_says_by_whom_when_and_why(tmp_path):
    await Rejected(str(tmp_path / "state" / "{batch}.jsonl"), "webhook x").add(item(1), "HTTP 422", "run-1")
    assert lines(tmp_path / "state" / "b.jsonl") == [
        {"refused_by": "webhook x", "run": "run-1", "reason": "HTTP 422", "record": {"job_id": "1", "body": "x" * 10}}
    ]


def _add_many(path, name, count):
    async def add():
        rejected = Rejected(path, name)
        for number in range(count):
            # Of different lengths, so that one who does not see the others' lines would tear them.
            await rejected.add(item(number, number * 37 % 5000), "no", name)

    asyncio.run(add())


def test_several_writers_tear_no_line(tmp_path):
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(str(path), name, 60)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = [(line["run"], line["record"]["job_id"]) for line in lines(path)]
    assert sorted(found) == sorted((name, str(number)) for name in "abc" for number in range(60))


@pytest.mark.parametrize("torn", [b'{"refused_by"', b"x" * 200_000])
@pytest.mark.parametrize("before", [b"", b'{"run":"old"}\n'])
async def test_a_line_that_a_crash_has_torn_is_cut_off(tmp_path, torn, before):
    path = tmp_path / "r.jsonl"
    path.write_bytes(before + torn)
    await Rejected(str(path), "x").add(item(1), "no", "new")
    assert [line["run"] for line in lines(path)] == (["old"] if before else []) + ["new"]


async def test_what_a_run_has_added_is_forgotten_and_nothing_else(tmp_path):
    path = tmp_path / "r.jsonl"
    rejected = Rejected(str(path), "x")
    path.write_bytes(b"somebody's own words\n")
    for number, run in enumerate(["a", "b", "a", "b"]):
        await rejected.add(item(number), "no", run)
    await rejected.forget("a")
    own, *left = path.read_bytes().splitlines()
    assert own == b"somebody's own words"
    assert [json.loads(line)["record"]["job_id"] for line in left] == ["1", "3"]
    assert [found.name for found in tmp_path.iterdir()] == ["r.jsonl"]
    path.write_bytes(b"".join(line + b"\n" for line in left))
    await rejected.forget("b")
    assert [found.name for found in tmp_path.iterdir()] == []
    await rejected.forget("b")
    await rejected.add(item(9), "no", "c")
    assert [line["run"] for line in lines(path)] == ["c"]


async def test_a_file_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    rejected = Rejected(str(tmp_path / "file" / "r.jsonl"), "x")
    with pytest.raises(SinkError, match=r"r\.jsonl: can not be written: .*; it is where rejected records go"):
        await rejected.add(item(1), "no", "a")
