"""F91, F92, F97, F104: outputs that a crash has torn, and what a spreadsheet would make of what servers send."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os

import fastwarc
import pyarrow.parquet as pq
import pytest
from batches import run_batch
from raw_server import answering, ok, raw_server

from fetcher.model import Outcome, Result
from fetcher.sinks.file import FileSinkConfig


def results(*numbers, **fields):
    return [
        Result(batch="b", job_id=str(n), url="http://a.test/", outcome=Outcome.OK, attempts=1, **fields)
        for n in numbers
    ]


def sink_of(path, **settings):
    return FileSinkConfig(path=str(path), **settings).build()


def jobs_of_lines(data):
    return [json.loads(line)["job_id"] for line in data.splitlines()]


def jobs_of_rows(data):
    return [row["job_id"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]


def jobs_of_archive(data):
    records = fastwarc.ArchiveIterator(io.BytesIO(data), record_types=fastwarc.WarcRecordType.metadata)
    return [json.loads(record.reader.read())["job_id"] for record in records]


READERS = {
    "x.jsonl": jobs_of_lines,
    "x.jsonl.gz": lambda data: jobs_of_lines(gzip.decompress(data)),
    "x.csv.gz": lambda data: jobs_of_rows(gzip.decompress(data)),
    "x.warc.gz": jobs_of_archive,
}


@pytest.mark.parametrize("name", READERS)
async def test_f91_a_torn_end_is_cut_back_to_the_mark(name, tmp_path):
    """Whatever was on its way when the process ended: half a line, half a member, half a record."""
    path = tmp_path / name
    first = sink_of(path)
    await first.open(None)
    mark = await first.write(results(1, 2))
    await first.write(results(*range(3, 40)))
    await first.close()
    whole = path.read_bytes()
    for end in range(json.loads(mark)["offset"], len(whole), 97):
        path.write_bytes(whole[:end])
        again = sink_of(path)
        await again.check(mark, resume=True)
        await again.open(mark)
        assert READERS[name](path.read_bytes()) == ["1", "2"]
        await again.write(results(3))
        await again.close()
        assert READERS[name](path.read_bytes()) == ["1", "2", "3"]


@pytest.mark.parametrize("acknowledged", [1, 2, 3])
async def test_f92_parts_are_whole_and_what_was_not_acknowledged_comes_once(tmp_path, acknowledged):
    path = tmp_path / "x.parquet"
    settings = {"format": {"type": "parquet", "part_size": 1}}
    first = sink_of(path, **settings)
    await first.open(None)
    marks = [await first.write(results(n, n + 10)) for n in (1, 2, 3)]
    for part in path.glob("part-*"):
        assert pq.ParquetFile(part).read().num_rows == 2  # while the run goes on
    await first.close()
    again = sink_of(path, **settings)
    await again.open(marks[acknowledged - 1])
    for n in range(acknowledged + 1, 4):
        await again.write(results(n))
    await again.close()
    expected = [str(n + tens) for n in range(1, acknowledged + 1) for tens in (0, 10)]
    expected += [str(n) for n in range(acknowledged + 1, 4)]
    assert sorted(pq.read_table(path)["job_id"].to_pylist()) == sorted(expected)


@pytest.mark.parametrize("name", ["x.jsonl.zst", "x.parquet"])
async def test_f97_what_is_acknowledged_is_on_the_disk(name, tmp_path, monkeypatch):
    """With ``durability: fsync`` a write returns after the file, and a folder that has a new name, are synced."""
    events = []
    fsync, append = os.fsync, os.pwrite
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "pwrite", lambda *args: (events.append("write"), append(*args))[1])
    sink = sink_of(tmp_path / name, durability="fsync")
    await sink.open(None)
    await sink.write(results(1))
    assert events[0] == "sync"
    assert events[-2:] == ["write", "sync"]
    await sink.close()


FORMULAS = ["=HYPERLINK(A1)", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "'=1"]


async def test_f104_what_a_server_sends_is_no_formula(tmp_path):
    """Through a whole batch: bodies and a media type that begin as formulas do."""
    path = tmp_path / "x.csv"
    answers = [ok(text.encode(), f"Content-Type: {text}") for text in FORMULAS]
    async with raw_server(answering(*answers)) as server:
        sinks = [{"type": "file", "path": str(tmp_path / "out.jsonl")}, {"type": "file", "path": str(path)}]
        jobs = [f"http://127.0.0.1:{server.port}/{n}" for n in range(len(FORMULAS))]
        records = await run_batch(tmp_path, jobs, sinks=sinks, limits={"concurrency": 1})
    assert sorted(record["body"] for record in records) == sorted(FORMULAS)
    rows = rows_of(path)
    assert sorted(row["body"] for row in rows) == sorted(f"'{text}" for text in FORMULAS)
    assert not [cell for row in rows for cell in row.values() if cell[:1] in set("=+-@\t\r\n")]


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
async def test_f104_a_cell_says_that_it_is_text_unless_that_is_switched_off(text, tmp_path):
    found = []
    for safe in (True, False):
        path = tmp_path / f"{safe}.csv"
        form = {"type": "csv", "columns": ["error_message", "body", "body_encoding"], "spreadsheet_safe": safe}
        sink = sink_of(path, format=form)
        await sink.open(None)
        await sink.write(results(1, error_message=text, body=text.encode()))
        await sink.close()
        [row] = rows_of(path)
        found.append((row["error_message"], row["body"]))
    assert found == [(f"'{text}", f"'{text}"), (text, text)]
