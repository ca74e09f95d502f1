"""A file, its marks, and what becomes of it when things go wrong."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.errors import ConfigError, SinkError, StateError
from fetcher.formats.jsonl import JsonlFormat
from fetcher.model import Outcome, Result
from fetcher.sinks.file import FileSink, FileSinkConfig


class Headed:
    """A format with a head, as CSV has one."""

    def begin(self):
        return b"head\n"

    def encode(self, results):
        return b"".join(f"{result.job_id}\n".encode() for result in results)


def results(*names):
    return [Result(batch="b", job_id=str(name), url="u", outcome=Outcome.OK, attempts=1) for name in names]


def mark_of(path, offset, start=0):
    return json.dumps({"path": str(path), "offset": offset, "start": start})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "x.jsonl"


@pytest.fixture
async def opened():
    """Open a sink and close it in the end."""
    sinks = []

    async def make(path, mark=None, form=None, **settings):
        sink = FileSink(path, form or Headed(), **settings)
        sinks.append(sink)
        await sink.open(mark)
        return sink

    yield make
    for sink in sinks:
        await sink.close()
        await sink.close()


async def test_a_mark_is_the_path_the_length_and_the_start(opened, path):
    sink = await opened(path)
    assert json.loads(sink.mark()) == {"path": str(path), "offset": 0, "start": 0}
    assert json.loads(await sink.write(results(1, 2))) == {"path": str(path), "offset": 9, "start": 0}
    mark = await sink.write(results(3))
    assert path.read_bytes() == b"head\n1\n2\n3\n"
    assert json.loads(mark)["offset"] == path.stat().st_size
    assert mark == sink.mark()


async def test_it_goes_on_after_its_mark_and_drops_what_came_later(opened, path):
    first = await opened(path)
    mark = await first.write(results(1))
    await first.write(results(2, 3))
    await first.close()
    with path.open("ab") as file:
        file.write(b'{"torn')
    second = await opened(path, mark)
    assert path.read_bytes() == b"head\n1\n"
    await second.write(results(2))
    assert path.read_bytes() == b"head\n1\n2\n"


async def test_a_mark_before_the_first_record_is_a_new_beginning(opened, path):
    first = await opened(path)
    mark = first.mark()
    await first.write(results(1))
    await first.close()
    second = await opened(path, mark)
    await second.write(results(9))
    assert path.read_bytes() == b"head\n9\n"


async def test_a_file_shorter_than_its_mark_is_refused_and_not_touched(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"short")
    with pytest.raises(StateError, match=r"has 5 bytes, but 100 were recorded as written; put the file back"):
        await opened(path, mark_of(path, 100))
    assert path.read_bytes() == b"short"


async def test_a_file_that_vanished_is_refused(opened, path):
    with pytest.raises(StateError, match="has 0 bytes, but 7"):
        await opened(path, mark_of(path, 7))


async def test_a_mark_of_another_file_is_a_beginning_here(opened, path, tmp_path):
    sink = await opened(path, mark_of(tmp_path / "other", 100))
    await sink.write(results(1))
    assert path.read_bytes() == b"head\n1\n"


async def test_a_file_that_is_there_is_refused_by_default_and_not_touched(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="exists and was not written by an earlier run of this batch"):
        await opened(path)
    assert path.read_bytes() == b"precious"


async def test_an_empty_file_is_in_nobodys_way(opened, path):
    path.parent.mkdir()
    path.touch()
    await (await opened(path)).write(results(1))
    assert path.read_bytes() == b"head\n1\n"


async def test_a_file_that_is_there_can_be_replaced(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"old" * 100)
    await (await opened(path, if_exists="replace")).write(results(1))
    assert path.read_bytes() == b"head\n1\n"


async def test_a_file_that_is_there_can_be_gone_on_with(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"old\n")
    sink = await opened(path, if_exists="append")
    begun = sink.mark()
    mark = await sink.write(results(1))
    assert path.read_bytes() == b"old\n1\n"
    assert json.loads(mark) == {"path": str(path), "offset": 6, "start": 4}
    await sink.close()
    again = await opened(path, mark, if_exists="append")
    assert json.loads(await again.write(results(2)))["start"] == 4
    await again.close()
    await opened(path, begun, if_exists="append")
    assert path.read_bytes() == b"old\n"


async def test_what_was_written_can_be_discarded(opened, path):
    sink = await opened(path)
    mark = await sink.write(results(1))
    await sink.discard(mark)
    assert not path.exists()
    await sink.discard(mark)


async def test_what_was_there_before_is_not_discarded(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"old\n")
    sink = await opened(path, if_exists="append")
    mark = await sink.write(results(1))
    await sink.discard(mark)
    assert path.read_bytes() == b"old\n"
    path.write_bytes(b"o")
    await sink.discard(mark)
    assert path.read_bytes() == b"o"  # not made longer


@pytest.mark.parametrize("name", ["folder", "file/x", "/proc/no/x", "/dev/full", "/dev/null", "fifo"])
async def test_what_can_not_be_a_file_is_a_config_error(opened, tmp_path, name):
    import os  # noqa: PLC0415

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="choose another path"):
        await opened(tmp_path / name)


async def test_no_results_are_no_bytes(opened, path):
    sink = await opened(path, form=JsonlFormat())
    assert json.loads(await sink.write([]))["offset"] == 0


async def test_a_sink_that_is_not_open_says_so(path):
    sink = FileSink(path, Headed())
    with pytest.raises(SinkError, match="is not open"):
        await sink.write(results(1))
    await sink.close()


async def test_a_cancelled_write_is_over_before_it_returns(opened, path):
    sink = await opened(path)
    write = asyncio.ensure_future(sink.write(results(*range(20_000))))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert path.stat().st_size == sink._offset > 0


async def test_fsync_covers_file_and_folder(opened, path, monkeypatch):
    synced = []
    monkeypatch.setattr("fetcher.sinks.file.os.fsync", synced.append)
    sink = await opened(path, synchronous=True)
    assert len(synced) == 1
    await sink.write(results(1))
    assert len(synced) == 2


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_file import Headed, results
from fetcher.errors import SinkError
from fetcher.sinks.file import FileSink

async def main():
    sink = FileSink(Path(sys.argv[1]), Headed())
    await sink.open(None)
    mark = await sink.write(results(*range(10)))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        await sink.write(results(*range(1000)))
    except SinkError as error:
        print(error)
    assert sink.mark() == mark
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(Path(sys.argv[1]).stat().st_size)
    await sink.write(results("x"))
    await sink.close()

asyncio.run(main())
"""


def test_a_file_that_may_not_grow_fails_and_keeps_no_torn_line(tmp_path):
    path = tmp_path / "x"
    command = [sys.executable, "-c", FULL, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    message, size = done.stdout.splitlines()
    assert message == f"{path}: File too large"
    assert int(size) == 25
    assert path.read_text() == "head\n" + "".join(f"{n}\n" for n in range(10)) + "x\n"
    assert resource.RLIM_INFINITY


async def test_a_full_disk_says_what_to_do(opened, path, monkeypatch):
    import errno  # noqa: PLC0415
    import os  # noqa: PLC0415

    sink = await opened(path)
    await sink.write(results(1))
    pwrite = os.pwrite

    def half(fd, data, offset):
        if len(data) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data[: len(data) // 2], offset)

    monkeypatch.setattr("fetcher.sinks.file.os.pwrite", half)
    with pytest.raises(SinkError, match="No space left on device; free some space and run again to resume"):
        await sink.write(results(*range(100)))
    assert path.read_bytes() == b"head\n1\n"


def test_the_config_takes_its_format_from_the_name(tmp_path):
    sink = FileSinkConfig(path=str(tmp_path / "x.ndjson"), if_exists="append", durability="fsync").build()
    assert isinstance(sink._format, JsonlFormat)
    assert (sink._if_exists, sink._synchronous) == ("append", True)
