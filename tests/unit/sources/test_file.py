from __future__ import annotations

import asyncio
import csv
import gzip
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.errors import ConfigError, ErrorKind, SourceError
from fetcher.sources import inputs as inputs_module
from fetcher.sources import text as module
from fetcher.sources.file import FileSourceConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return write


async def chunks_of(path, position=None, **settings_):
    return [chunk async for chunk in FileSourceConfig(path=path, **settings_).build().read(position)]


async def jobs_of(path, position=None, **settings_):
    return [job for chunk in await chunks_of(path, position, **settings_) for job in chunk.jobs]


def plain(jobs):
    return [(job.id, job.url) for job in jobs]


def messages(jobs):
    return {job.id: job.rejected.message.partition(": ")[2] for job in jobs if job.rejected}


# Text


async def test_txt_ignores_comments_and_empty_lines(write):
    path = write("u.txt", b"\xef\xbb\xbfhttp://a.test/1\r\n\r\n# no\n  # no\n http://a.test/2 \n\nhttp://a.test/3")
    assert plain(await jobs_of(path)) == [
        ("1", "http://a.test/1"),
        ("5", "http://a.test/2"),
        ("7", "http://a.test/3"),
    ]


async def test_bad_txt_lines_are_rejected_by_number(write):
    long = b"http://a.test/" + b"x" * 3_000_000
    path = write("u.txt", b"http://a.test/\xff\n\0\nnope\n" + long + b"\nhttp://a.test/ok\n" + long)
    jobs = await jobs_of(path)
    assert [job.id for job in jobs] == ["1", "2", "3", "4", "5", "6"]
    assert [job.rejected is None for job in jobs] == [False, False, False, False, True, False]
    assert jobs[0].rejected.message == f"{path}:1: not valid UTF-8: byte 0xff at column 15"
    assert jobs[3].rejected.message == f"{path}:4: longer than 65536 bytes"
    assert all(len(job.url) < 300 for job in jobs)


async def test_a_line_of_the_longest_length_is_a_row(write):
    url = "http://a.test/".ljust(65_536, "x")
    assert [job.rejected is None for job in await jobs_of(write("u", f"{url}\n{url}x\n{url}"))] == [
        True,
        False,
        True,
    ]


async def test_memory_is_constant(tmp_path):
    path = tmp_path / "u.txt"
    with path.open("wb") as out:
        out.writelines(b"http://a.test/%d\n" % number for number in range(100_000))
        out.write(b"x" * 30_000_000)
    tracemalloc.start()
    try:
        async with aclosing(FileSourceConfig(path=str(path)).build().read(None)) as chunks:
            count = 0
            async for chunk in chunks:
                count += len(chunk.jobs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 100_001
    assert peak < 4_000_000


async def test_utf16_is_named(write):
    path = write("u.txt", "http://a.test/\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="is UTF-16; convert it"):
        FileSourceConfig(path=path).build().check()


# Gzip


async def test_gzip_of_several_members(write):
    path = write("u.txt.gz", gzip.compress(b"http://a.test/1\nhttp://a.t") + gzip.compress(b"est/2\n"))
    assert plain(await jobs_of(path)) == [("1", "http://a.test/1"), ("2", "http://a.test/2")]


@pytest.mark.parametrize(
    "data",
    [gzip.compress(os.urandom(2_000_000))[:-9], b"http://a.test/\n", gzip.compress(b"x")[:-8] + bytes(8)],
    ids=["cut", "plain", "checksum"],
)
async def test_damaged_gzip(write, data):
    with pytest.raises(SourceError, match=r"u\.gz: can not be read on"):
        await jobs_of(write("u.gz", data))


# Csv


async def test_csv_columns_become_meta(write):
    path = write("u.csv", '\ufeffid, url ,name,\r\n7,http://a.test/1,"a\r\nb",z\r\n\r\n,,,\n8,http://a.test/2\n')
    jobs = await jobs_of(path, key="id")
    assert plain(jobs) == [("2", "http://a.test/1"), ("6", "http://a.test/2")]
    assert [job.meta for job in jobs] == [{"id": "7", "name": "a\r\nb", "column_4": "z"}, {"id": "8"}]
    assert [job.key for job in jobs] == ["7", "8"]


async def test_csv_delimiters(write):
    assert plain(await jobs_of(write("u.tsv", "url\tx\nhttp://a.test/\t1\n"))) == [("2", "http://a.test/")]
    path = write("u.csv", "link;x\nhttp://a.test/;1\n")
    assert plain(await jobs_of(path, delimiter=";", column="link")) == [("2", "http://a.test/")]
    path = write("v.csv", "url\tx\nhttp://a.test/\t1\n")
    assert plain(await jobs_of(path, delimiter="\\t")) == [("2", "http://a.test/")]


async def test_csv_priority_and_bad_rows(write):
    rows = [
        "http://a.test/1,3",
        "http://a.test/2,",
        "http://a.test/3,high",
        "http://a.test/4?a=1,2,3",
        f"{'x' * 140_000},1",
        "nope,1",
        '"http://a.test/7"x,1',
        "http://a.test/8,9",
    ]
    jobs = await jobs_of(write("u.csv", "\n".join(["url,p", *rows])), priority="p")
    assert [(job.id, job.priority) for job in jobs if not job.rejected] == [("2", 3), ("3", 0), ("9", 9)]
    said = messages(jobs)
    assert said.keys() == {"4", "5", "6", "7", "8"}
    assert said["4"] == "priority 'high' is not a whole number"
    assert said["5"].startswith("has 3 cells under 2 columns")
    assert said["6"] == "field larger than field limit (131072)"


async def test_csv_bad_utf8_rejects_the_record(write):
    jobs = await jobs_of(write("u.csv", b'url,x\nhttp://a.test/,"a\n\xff"\nhttp://a.test/2,\xe4\nhttp://a.test/3,\n'))
    assert [(job.id, job.rejected is None) for job in jobs] == [("2", False), ("4", False), ("5", True)]


@pytest.mark.parametrize("rows", [3, 20_000])
async def test_a_quote_that_is_not_closed_swallows_no_rows(write, rows):
    lines = [f"http://a.test/{number},x" for number in range(rows)]
    jobs = await jobs_of(write("u.csv", "\n".join(["url,x", 'http://a.test/bad,"x', *lines])))
    assert [job.id for job in jobs] == [str(number) for number in range(2, rows + 3)]
    assert [job.id for job in jobs if job.rejected] == ["2"]


async def test_an_overlong_line_inside_a_record(write):
    body = b'url,x\nhttp://a.test/1,"a\n' + b"y" * 3_000_000 + b"\nhttp://a.test/2,\n"
    jobs = await jobs_of(write("u.csv", body))
    assert [job.id for job in jobs if job.rejected] == ["2"]
    assert plain(jobs)[-1] == ("4", "http://a.test/2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "there is no column 'url'; its columns are none"),
        ("link,name\nx,y\n", "there is no column 'url'; its columns are link, name"),
        ("url,a,a\n", "two columns are named 'a'"),
        ('url,"a\n', "the header can not be read"),
        (b"url,\xff\n", "the header is not valid UTF-8"),
    ],
)
async def test_bad_headers(write, data, message):
    path = write("u.csv", data)
    with pytest.raises(ConfigError, match=message):
        FileSourceConfig(path=path).build().check()
    with pytest.raises(SourceError, match=message):
        await jobs_of(path)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 9).map("http://a.test/{}".format), st.text('a,"\r\n\0é ', max_size=6)),
        max_size=8,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_round_trip(rows, end):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("url", "x"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "u.csv")
        path.write_bytes(out.getvalue().encode())
        jobs = asyncio.run(jobs_of(str(path)))
    assert [(job.url, job.meta["x"]) for job in jobs] == rows
    assert not any(job.rejected for job in jobs)


# Jsonl


async def test_jsonl_objects_and_strings(write):
    data = (
        '\ufeff{"url": "http://a.test/1", "n": [1], "p": 5, "k": 9}\r\n\n"http://a.test/2"\n{"url":"http://a.test/3"}'
    )
    jobs = await jobs_of(write("u.jsonl", data), key="k", priority="p")
    assert plain(jobs) == [("1", "http://a.test/1"), ("3", "http://a.test/2"), ("4", "http://a.test/3")]
    assert (jobs[0].meta, jobs[0].priority, jobs[0].key) == ({"n": [1], "p": 5, "k": 9}, 5, "9")
    assert (jobs[1].meta, jobs[2].meta) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"5",
        b"[]",
        b"# x",
        b"{}",
        b'{"url": 5}',
        b'{"url": "http://a.test/\xff"}',
        b'{"url": "http://a.test/", "x": "\\ud800"}',
        b'{"url": "http://a.test/", "x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"[" * 100_000,
        b'{"url": "http://a.test/", "x": "' + b"x" * 1_100_000 + b'"}',
        b'{"url": "http://a.test/", "p": 1.5}',
        b'{"url": "http://a.test/", "p": 99999999999999999999}',
        b'{"url": "http://a.test/", "k": {}}',
    ],
    ids=range(14),
)
async def test_bad_jsonl_lines(write, line):
    jobs = await jobs_of(write("u.jsonl", b'"http://a.test/"\n' + line + b'\n"http://a.test/"'), key="k", priority="p")
    assert [(job.id, job.rejected is None) for job in jobs] == [("1", True), ("2", False), ("3", True)]
    assert jobs[1].rejected.kind == ErrorKind.INVALID_ROW
    assert all(msgspec.json.encode(job) for job in jobs)


# Config


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("-", "txt"),
        ("a", "txt"),
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.tsv", "csv"),
        ("a.ndjson", "jsonl"),
        ("a.gz", "txt"),
    ],
)
def test_the_format_comes_from_the_suffix(path, kind):
    assert FileSourceConfig(path=path).kind(path) == kind
    assert FileSourceConfig(path=path, format="csv").kind(path) == "csv"


@pytest.mark.parametrize(
    "settings_",
    [
        {"path": "a.txt", "column": "x"},
        {"path": "a.jsonl", "delimiter": ";"},
        {"path": "a.csv", "delimiter": ";;"},
        {"path": "a.csv", "delimiter": '"'},
        {"path": "a.csv", "delimiter": "\n"},
        {"path": ""},
        {"path": "a", "colum": "x"},
    ],
)
def test_contradictions_are_refused(settings_):
    with pytest.raises(ValidationError):
        FileSourceConfig(**settings_)


def test_check_finds_what_can_not_be_opened(tmp_path, write):
    FileSourceConfig(path=write("ok.txt", "")).build().check()
    FileSourceConfig(path="-").build().check()
    with pytest.raises(ConfigError, match=r"no\.txt: can not be opened: No such file.*working folder"):
        FileSourceConfig(path=str(tmp_path / "no.txt")).build().check()
    with pytest.raises(ConfigError, match="is not a regular file"):
        FileSourceConfig(path=str(tmp_path)).build().check()
    os.mkfifo(tmp_path / "f.gz")
    with pytest.raises(ConfigError, match="gunzip"):
        FileSourceConfig(path=str(tmp_path / "f.gz")).build().check()


def test_check_finds_a_closed_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigError, match="stdin is closed"):
        FileSourceConfig(path="-").build().check()


async def test_a_file_that_vanished(tmp_path):
    with pytest.raises(SourceError, match=r"no\.txt: can not be opened"):
        await jobs_of(str(tmp_path / "no.txt"))


# Resuming


@pytest.fixture
def small(monkeypatch):
    """Small chunks and blocks, so that their edges fall everywhere."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    monkeypatch.setattr(inputs_module, "BLOCK", 7)


@pytest.mark.parametrize("name", ["u.txt", "u.txt.gz"])
async def test_a_changed_file_is_noticed(write, small, name):
    def store(text):
        return write(name, gzip.compress(text.encode()) if name.endswith(".gz") else text)

    text = "".join(f"http://a.test/{number}\n" for number in range(20))
    path = store(text)
    position = (await chunks_of(path))[3].position
    rest = await jobs_of(path, position)
    store(text + "http://a.test/more\n")
    assert len(await jobs_of(path, position)) == len(rest) + 1
    store(text[:50])
    with pytest.raises(SourceError, match="changed since the batch was started: it ends before that"):
        await jobs_of(path, position)
    store(text.replace("/11", "/xx"))
    with pytest.raises(SourceError, match="changed since the batch was started: it has other lines"):
        await jobs_of(path, position)


@pytest.mark.parametrize("position", ["", "x", "5", "{}", '{"offset":-5,"line":1,"crc":0}'])
async def test_a_position_of_something_else(write, position):
    with pytest.raises(SourceError):
        await jobs_of(write("u.txt", "http://a.test/\n"), position)


async def test_a_last_line_without_line_end_may_get_one(write):
    path = write("u.txt", "http://a.test/1\nhttp://a.test/2")
    position = (await chunks_of(path))[-1].position
    assert await jobs_of(path, position) == []
    write("u.txt", "http://a.test/1\nhttp://a.test/2\r\nhttp://a.test/3\n")
    assert plain(await jobs_of(path, position)) == [("3", "http://a.test/3")]
    write("u.txt", "http://a.test/1\nhttp://a.test/23\n")
    with pytest.raises(SourceError, match="that line goes on"):
        await jobs_of(path, position)


async def test_a_file_that_shrinks_while_it_is_read(write):
    path = write("u.txt", "http://a.test/1\n" * 50_000)
    async with aclosing(FileSourceConfig(path=path).build().read(None)) as chunks:
        await anext(chunks)
        os.truncate(path, 100)
        with pytest.raises(SourceError, match="became shorter"):
            async for _ in chunks:
                pass


async def test_skipping_in_a_stream_holds_nothing(tmp_path):
    path = tmp_path / "u.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b"url,x\n")
        out.writelines(b"http://a.test/%d,%s\n" % (number, b"x" * 1000) for number in range(20_000))
    position = (await chunks_of(str(path)))[-2].position
    tracemalloc.start()
    try:
        assert len(await jobs_of(str(path), position)) < 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


PIECES = st.sampled_from(
    [
        *(b"http://a.test/1", b"http://a.test/2", b'{"url":"http://a.test/3"}', b'"http://a.test/4"'),
        *(b"\n", b"\r\n", b"\r", b"\n\n", b"#", b'"', b",", b'"a\nb"', b" ", b"y" * 90),
        *(b"\xff", b"\0", b"\xef\xbb\xbf", b"\xc3\xa9"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["txt", "csv", "jsonl"]),
    zipped=st.booleans(),
    body=st.lists(PIECES, max_size=40).map(b"".join),
    rows=st.integers(1, 3),
    block=st.integers(1, 200),
    limit=st.sampled_from([70, 100, 1000]),
)
@example(kind="csv", zipped=True, body=b'"\n"\n"\n,"\n', rows=1, block=1, limit=70)
def test_resuming_anywhere_is_reading_on(kind, zipped, body, rows, block, limit):
    data = b"url,x\n" + body if kind == "csv" else body
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ROWS", rows)
        patch.setattr(inputs_module, "BLOCK", block)
        patch.setattr(module.FORMATS[kind], "limit", limit)
        patch.setattr(module, "_MAX_RECORD", limit)
        path = Path(folder, f"u.{kind}" + ".gz" * zipped)
        path.write_bytes(gzip.compress(data) if zipped else data)

        async def run():
            chunks = await chunks_of(str(path))
            for number, chunk in enumerate(chunks, 1):
                assert await chunks_of(str(path), chunk.position) == chunks[number:]
            return [job for chunk in chunks for job in chunk.jobs]

        jobs = asyncio.run(run())
    numbers = [int(job.id) for job in jobs]
    assert numbers == sorted(set(numbers))
    assert all(msgspec.json.encode(job) for job in jobs)
    if kind == "txt":
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        rows_ = [
            number
            for number, line in enumerate(lines, 1)
            if (line.strip() and line.strip()[:1] != b"#") or len(line) > limit
        ]
        assert numbers == rows_


# Pipes


@pytest.fixture
def pipe():
    """A pipe that stays open, and the path under which to read it."""
    reader, writer = os.pipe()
    yield writer, f"/dev/fd/{reader}"
    os.close(reader)
    os.close(writer)


def source_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetcher-source")]


async def gone():
    for _ in range(200):
        if not source_threads():
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("txt", [b"http://a.test/1\n", b"# no\nhttp://a.test/2\n"]),
        ("jsonl", [b'"http://a.test/1"\n', b'{"url":"http://a.test/2"}\n']),
        ("csv", [b"url,x\nhttp://a.test/1,\n", b'http://a.test/2,""\n']),
    ],
)
async def test_a_slow_pipe_is_read_promptly(pipe, kind, lines):
    writer, path = pipe
    async with aclosing(FileSourceConfig(path=path, format=kind).build().read(None)) as chunks:
        for number, line in enumerate(lines, 1):
            os.write(writer, line)
            chunk = await asyncio.wait_for(anext(chunks), 5)
            assert [job.url for job in chunk.jobs] == [f"http://a.test/{number}"]
    assert await gone()


async def test_a_csv_record_that_is_not_all_there_holds_up_no_other(pipe):
    writer, path = pipe
    async with aclosing(FileSourceConfig(path=path, format="csv").build().read(None)) as chunks:
        os.write(writer, b'url,x\nhttp://a.test/1,\nhttp://a.test/2,"a\n')
        first = await asyncio.wait_for(anext(chunks), 5)
        assert plain(first.jobs) == [("2", "http://a.test/1")]
        os.write(writer, b'b"\n')
        second = await asyncio.wait_for(anext(chunks), 5)
    assert [(job.id, job.meta) for job in second.jobs] == [("3", {"x": "a\nb"})]


async def test_a_silent_pipe_can_be_given_up(pipe):
    async with aclosing(FileSourceConfig(path=pipe[1]).build().read(None)) as chunks:
        reading = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 5)
    assert await gone()


async def test_a_fifo_without_a_writer_can_be_given_up(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    source = FileSourceConfig(path=str(tmp_path / "fifo")).build()
    source.check()
    async with aclosing(source.read(None)) as chunks:
        reading = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 5)
    assert await gone()


SCRIPT = """
import asyncio, sys
from fetcher.sources.file import FileSourceConfig

async def main():
    source = FileSourceConfig(path="-").build()
    source.check()
    position = sys.argv[1] if len(sys.argv) > 1 else None
    async for chunk in source.read(position):
        print(len(chunk.jobs), chunk.jobs[0].url, chunk.position, flush=True)

try:
    asyncio.run(asyncio.wait_for(main(), 1.5))
except TimeoutError:
    print("gave up", flush=True)
"""


def test_stdin_that_stays_open_holds_up_neither_fetching_nor_exit():
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        process.stdin.write("http://a.test/1\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("1 http://a.test/1")
        started = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - started < 15
        assert process.stdout.read() == "gave up\n"


def test_stdin_is_read_again_and_skipped(tmp_path):
    text = "".join(f"http://a.test/{number}\n" for number in range(700))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        ).stdout.splitlines()

    first, *_ = run()
    count, _, position = first.split(" ", 2)
    again = run(position)
    assert again[0].split()[1] == f"http://a.test/{count}"
    assert sum(int(line.split()[0]) for line in again) == 700 - int(count)


async def test_a_column_of_checksums(write):
    rows = ["http://a.test/1," + "f" * 32, "http://a.test/2,SHA1:" + "0" * 40, "http://a.test/3,", "http://a.test/4,x"]
    jobs = await jobs_of(write("u.csv", "\n".join(["url,sum", *rows])), checksum="sum")
    assert [job.checksum for job in jobs] == ["md5:" + "f" * 32, "sha1:" + "0" * 40, None, None]
    assert jobs[0].meta == {"sum": "f" * 32}
    assert "u.csv:5: checksum 'x' is not one such as" in jobs[3].rejected.message
    with pytest.raises(SourceError, match="there is no column 'digest'"):
        await jobs_of(write("u.csv", "url,sum\n"), checksum="digest")
