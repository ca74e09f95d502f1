"""Standard output: a pipe that may be slow, full, or closed."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import threading

import pytest
from pydantic import ValidationError

from fetcher.errors import SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks.stdout import StdoutConfig, StdoutSink

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Plain:
    """A format with a head."""

    def begin(self):
        return b"head\n"

    def encode(self, results):
        return b"".join(result.job_id.encode() for result in results)


def results(*names):
    return [Result(batch="b", job_id=name, url="u", outcome=Outcome.OK, attempts=1) for name in names]


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


async def test_the_head_comes_once_and_there_are_no_marks(pipe):
    reader, writer = pipe
    sink = StdoutSink(Plain(), writer)
    await sink.open(None)
    assert await sink.write(results("a", "b")) is None
    await sink.close()
    await sink.close()
    assert os.read(reader, 100) == b"head\nab"
    os.write(writer, b"still open")


async def test_a_mark_means_that_the_head_was_written(pipe):
    reader, writer = pipe
    sink = StdoutSink(Plain(), writer)
    await sink.open("anything")
    await sink.write(results("a"))
    await sink.close()
    assert os.read(reader, 100) == b"a"


async def test_a_reader_that_has_gone_is_a_sink_error(pipe):
    reader, writer = pipe
    sink = StdoutSink(Plain(), writer)
    await sink.open("x")
    os.close(reader)
    with pytest.raises(SinkError, match="closed by its reader"):
        await sink.write(results("a"))
    await sink.close()


async def test_a_full_disk_behind_it_is_a_sink_error():
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = StdoutSink(Plain(), fd)
    with pytest.raises(SinkError, match="standard output: No space left on device"):
        await sink.open(None)
    await sink.close()
    os.close(fd)


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_slow_reader_holds_up_the_write_and_not_the_loop(pipe, blocking):
    reader, writer = pipe
    os.set_blocking(writer, blocking)
    sink = StdoutSink(Plain(), writer)
    await sink.open("x")
    size, got = 500_000, []
    write = asyncio.ensure_future(sink.write(results("x" * size)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not write.done()

    def read():
        while sum(map(len, got)) < size:
            got.append(os.read(reader, 65536))

    thread = threading.Thread(target=read)
    thread.start()
    await write
    thread.join()
    await sink.close()
    assert b"".join(got) == b"x" * size


async def test_it_is_the_process_s_own_unless_told_otherwise(capfdbinary, monkeypatch):
    sink = StdoutConfig().build()
    monkeypatch.setattr("fetcher.sinks.stdout.sys.stdout", os.fdopen(os.dup(1), "w"))
    await sink.open(None)
    await sink.write(results("a"))
    await sink.close()
    import sys  # noqa: PLC0415

    sys.stdout.close()
    assert capfdbinary.readouterr().out.count(b'"job_id":"a"') == 1


READERS = {
    "csv": lambda data: data.decode().splitlines()[1:],
    "warc": lambda data: data.split(b"WARC-Type: metadata")[1:],
    "jsonl": lambda data: data.splitlines(),
}


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("name", READERS)
async def test_every_format_that_streams_can_be_piped(pipe, name, compression):
    reader, writer = pipe
    config = StdoutConfig.model_validate({"format": {"type": name, "compression": compression}})
    sink = StdoutSink(config.format.build(), writer)
    await sink.open(None)
    await sink.write(results("a", "b"))
    await sink.write(results("c"))
    await sink.close()
    data = os.read(reader, 100_000)
    if compression == "gzip":
        data = gzip.decompress(data)
    elif compression == "zstd":
        data = zstd.decompress(data)
    assert len(READERS[name](data)) == 3


def test_parquet_can_not_be_piped():
    with pytest.raises(ValidationError, match="parquet is written in whole files, which a pipe can not take"):
        StdoutConfig.model_validate({"format": "parquet"})
