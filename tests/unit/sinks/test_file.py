"""A file, its marks, and what becomes of it when things go wrong."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.formats.compression import compressor
from fetcher.formats.csv import CsvConfig
from fetcher.formats.jsonl import JsonlConfig, JsonlFormat
from fetcher.formats.warc import WarcConfig
from fetcher.interfaces import Ending
from fetcher.model import Outcome, Result
from fetcher.sinks.file import FileSink, FileSinkConfig

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Headed:
    """A format with a head, as CSV has one."""

    def begin(self):
        return b"head\n"

    def encode(self, results):
        return b"".join(f"{result.job_id}\n".encode() for result in results)


def results(*names):
    return [Result(batch="b", job_id=str(name), url="u", outcome=Outcome.OK, attempts=1) for name in names]


def mark_of(path, offset, start=0, before=b""):
    """Return the mark of a file in which ``before`` comes before the offset."""
    return json.dumps({"path": str(path), "offset": offset, "start": start, "crc": zlib.crc32(before[-4096:])})


def ending(stopped=None):
    """Return how a batch has ended that had no jobs."""
    return Ending(
        batch="b", jobs=0, outcomes={}, statuses={}, kinds={}, seconds=1.0, limit="0%", exceeded=False, stopped=stopped
    )


async def start_over(sink, mark):
    """Do what a batch does that replaces a finished one."""
    await sink.check(mark, resume=False)
    await sink.discard(mark)
    await sink.open(None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "x.jsonl"


@pytest.fixture
async def opened():
    """Open a sink and close it in the end."""
    sinks = []

    async def make(path, mark=None, form=None, **settings):
        sink = make.unopened(path, form, **settings)
        await sink.open(mark)
        return sink

    def unopened(path, form=None, **settings):
        sinks.append(FileSink(path, form or Headed(), **settings))
        return sinks[-1]

    make.unopened = unopened
    yield make
    for sink in sinks:
        await sink.close()
        await sink.close()


async def test_a_mark_is_the_path_the_length_the_start_and_a_checksum_of_the_end(opened, path):
    sink = await opened(path)
    assert json.loads(sink.mark()) == json.loads(mark_of(path, 0))
    assert json.loads(await sink.write(results(1, 2))) == json.loads(mark_of(path, 9, before=b"head\n1\n2\n"))
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


def unzstd(data):
    assert data
    return zstd.decompress(data)


@pytest.mark.parametrize(
    ("form", "read", "begins"),
    [
        (CsvConfig(columns=["url", "status"]), bytes, b"url,status\r\n"),
        (CsvConfig(columns=["url"], compression="gzip"), gzip.decompress, b"url\r\n"),
        (JsonlConfig(), bytes, b""),
        (JsonlConfig(compression="gzip"), gzip.decompress, b""),
        (JsonlConfig(compression="zstd"), unzstd, b""),
        (WarcConfig(compression="gzip"), gzip.decompress, b"WARC/1.1\r\nWARC-Type: warcinfo"),
    ],
)
async def test_a_batch_without_records_leaves_a_whole_file(opened, path, form, read, begins):
    sink = await opened(path, form=form.build())
    begun = sink.mark()
    await sink.conclude(ending())
    await sink.conclude(ending())
    data = path.read_bytes()
    assert read(data).startswith(begins)
    assert bool(data) == (form.type != "jsonl" or form.compression != "none")
    mark = sink.mark()
    await sink.close()
    assert json.loads(mark)["offset"] == len(data)
    # Killed before the mark was kept, or finished and run again: the records come where the head was.
    for earlier in (begun, mark):
        again = opened.unopened(path, form.build())
        await again.check(earlier, resume=earlier == begun)
        if earlier == begun:
            await again.open(begun)
        else:
            await again.discard(mark)
            await again.open(None)
        await again.write(results(1))
        await again.close()
        assert read(path.read_bytes()).startswith(begins)
        assert len(path.read_bytes()) > len(data)
        path.write_bytes(data)


async def test_a_head_alone_is_not_written_where_a_batch_has_not_ended_or_others_wrote_before(opened, path):
    sink = await opened(path)
    assert await sink.conclude(ending("a fault")) is None
    assert path.read_bytes() == b""
    await sink.close()
    path.write_bytes(b"theirs\n")
    beside = await opened(path, if_exists="append")
    assert await beside.conclude(ending()) is None
    assert path.read_bytes() == b"theirs\n"
    unopened = opened.unopened(path.with_name("y"))
    assert await unopened.conclude(ending()) is None


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


async def test_a_file_that_vanished_is_refused_and_not_made_anew(opened, path):
    for attempt in (lambda sink: sink.open(mark_of(path, 7)), lambda sink: sink.check(mark_of(path, 7), resume=True)):
        with pytest.raises(StateError, match="is not there, but 7 bytes were recorded as written; put the file back"):
            await attempt(opened.unopened(path))
        assert not path.parent.exists()


async def test_an_empty_file_that_vanished_is_made_anew(opened, path):
    await (await opened(path, mark_of(path, 0))).write(results(1))
    assert path.read_bytes() == b"head\n1\n"


@pytest.mark.parametrize("edit", [lambda old: b"# a title\n" + old, lambda old: old.replace(b"2", b"3")])
@pytest.mark.parametrize("if_exists", ["fail", "append"])
async def test_a_file_that_was_changed_is_refused_and_not_touched(opened, path, edit, if_exists):
    first = await opened(path)
    mark = await first.write(results(1, 2))
    await first.close()
    path.write_bytes(edited := edit(path.read_bytes()))
    for call in (
        lambda sink: sink.open(mark),
        lambda sink: sink.check(mark, resume=True),
        lambda sink: sink.check(mark, resume=False),
        lambda sink: sink.discard(mark),
    ):
        sink = opened.unopened(path, if_exists=if_exists)
        with pytest.raises(StateError, match="was changed since this batch wrote it; put it back as it was"):
            await call(sink)
        await sink.close()
        assert path.read_bytes() == edited


async def test_a_long_file_is_known_by_its_last_bytes(opened, path):
    first = await opened(path)
    for _ in range(3):
        mark = await first.write(results(*range(3000)))
    mark = await first.write(results("short"))
    await first.close()
    assert mark == mark_of(path, path.stat().st_size, before=path.read_bytes()).replace(" ", "")
    second = await opened(path, mark)
    assert second.mark() == mark


async def test_a_file_that_was_moved_is_known_by_its_end(opened, path, tmp_path):
    first = await opened(path)
    mark = await first.write(results(1))
    await first.close()
    moved = path.rename(tmp_path / "moved")
    await (await opened(moved, mark)).write(results(2))
    assert moved.read_bytes() == b"head\n1\n2\n"


async def test_a_mark_of_another_empty_file_says_nothing(opened, path, tmp_path):
    path.parent.mkdir()
    path.write_bytes(b"precious")
    with pytest.raises(StateError, match="was changed"):
        await opened(path, mark_of(tmp_path / "other", 0))
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("mark", ["17", "{}", "nonsense"])
async def test_a_mark_that_is_none_is_refused(opened, path, mark):
    with pytest.raises(StateError, match="recorded in a way unknown here"):
        await opened(path, mark)
    assert not path.exists()


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
    assert json.loads(mark) == json.loads(mark_of(path, 6, 4, b"old\n1\n"))
    await sink.close()
    again = await opened(path, mark, if_exists="append")
    assert json.loads(await again.write(results(2)))["start"] == 4
    await again.close()
    await opened(path, begun, if_exists="append")
    assert path.read_bytes() == b"old\n"


async def test_what_was_written_can_be_replaced(opened, path):
    sink = await opened(path)
    mark = await sink.write(results(1))
    await sink.close()
    sink = opened.unopened(path, synchronous=True)
    await sink.check(mark, resume=False)
    assert path.read_bytes() == b"head\n1\n"
    await sink.discard(mark)
    assert path.read_bytes() == b""
    await start_over(sink, mark)  # as after a crash in between
    await sink.write(results(2))
    assert path.read_bytes() == b"head\n2\n"


async def test_what_was_written_and_is_gone_can_be_replaced(opened, path):
    sink = opened.unopened(path)
    await start_over(sink, mark_of(path, 7, before=b"head\n1\n"))
    await sink.write(results(1))
    assert path.read_bytes() == b"head\n1\n"


async def test_what_was_there_before_is_not_discarded(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"old\n")
    sink = await opened(path, if_exists="append")
    mark = await sink.write(results(1))
    await start_over(sink, mark)
    assert path.read_bytes() == b"old\n"
    path.write_bytes(b"o")
    await start_over(sink, mark)
    assert path.read_bytes() == b"o"  # not made longer


async def test_what_was_there_before_is_kept_when_append_becomes_fail(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"old\n")
    sink = await opened(path, if_exists="append")
    mark = await sink.write(results(1))
    await sink.close()
    with pytest.raises(ConfigError, match="exists and was not written by"):
        await opened.unopened(path).check(mark, resume=False)
    assert path.read_bytes() == b"old\n1\n"


async def test_what_others_appended_stays(opened, path):
    first = await opened(path, if_exists="append")
    mark = await first.write(results(1))
    await first.close()
    other = await opened(path, if_exists="append")
    await other.write(results(2))
    await other.close()
    again = opened.unopened(path, if_exists="append")
    await start_over(again, mark)
    await again.write(results(3))
    assert path.read_bytes() == b"head\n1\n2\n3\n"


async def test_lines_added_by_hand_are_not_replaced(opened, path):
    sink = await opened(path)
    mark = await sink.write(results(1))
    with path.open("ab") as file:
        file.write(b"a note\n")
    with pytest.raises(StateError, match="was changed"):
        await sink.check(mark, resume=False)
    await sink.close()
    sink = opened.unopened(path, if_exists="replace")
    await start_over(sink, mark)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("compression", "read"), [("none", bytes), ("gzip", gzip.decompress), ("zstd", zstd.decompress)]
)
async def test_a_run_keeps_the_columns_that_it_began_with(opened, path, compression, read):
    pack = compressor(compression) or bytes
    earlier = pack(b"url,job_id,status,extracted\r\n") + pack(b"u,1,200,\r\n")
    path.parent.mkdir()
    path.write_bytes(earlier + b"torn")
    mark, form = mark_of(path, len(earlier), before=earlier), CsvConfig(compression=compression)
    sink = opened.unopened(path, form.build())
    await sink.check(mark, resume=True)
    await sink.open(mark)
    await sink.write(results(2))
    assert read(path.read_bytes()) == b"url,job_id,status,extracted\r\nu,1,200,\r\nu,2,,\r\n"
    # A new run has nothing to keep to.
    again = sink.mark()
    await sink.close()
    sink = opened.unopened(path, form.build())
    await start_over(sink, again)
    await sink.write(results(3))
    assert read(path.read_bytes()).startswith(b"schema_version,batch,job_id,url,")


async def test_a_run_whose_columns_are_not_known_is_not_gone_on_with(opened, path):
    path.parent.mkdir()
    earlier = b"url,later\r\nu,1\r\n"
    path.write_bytes(earlier)
    mark = mark_of(path, len(earlier), before=earlier)
    sink = opened.unopened(path, CsvConfig().build())
    with pytest.raises(
        StateError, match=r"no field 'later'.*resume with the version of fetcher that began it, or .*--fr"
    ):
        await sink.check(mark, resume=True)
    with pytest.raises(StateError, match="no field 'later'"):
        await sink.open(mark)
    assert path.read_bytes() == earlier


async def test_rows_are_appended_with_the_columns_that_are_there(opened, path):
    path.parent.mkdir()
    path.write_bytes(b"job_id,url\n1,u\n")
    sink = opened.unopened(path, CsvConfig().build(), if_exists="append")
    await sink.check(None, resume=False)
    await sink.open(None)
    mark = await sink.write(results(2))
    await sink.close()
    again = await opened(path, mark, CsvConfig().build(), if_exists="append")
    await again.write(results(3))
    assert path.read_bytes() == b"job_id,url\n1,u\n2,u\r\n3,u\r\n"


@pytest.mark.parametrize(
    ("header", "form"), [(b"job_id,price\n", CsvConfig()), (b"job_id,url\n", CsvConfig(columns=["url", "job_id"]))]
)
async def test_nothing_is_appended_below_other_columns(opened, path, header, form):
    path.parent.mkdir()
    path.write_bytes(header)
    sink = opened.unopened(path, form.build(), if_exists="append")
    with pytest.raises(ConfigError, match=r"nothing is appended to it: choose another path, name the columns"):
        await sink.check(None, resume=False)
    with pytest.raises(ConfigError, match="nothing is appended"):
        await sink.open(None)
    assert path.read_bytes() == header


async def test_a_check_changes_nothing_and_leaves_nothing(opened, path):
    sink = opened.unopened(path, if_exists="replace")
    await sink.check(None, resume=False)
    await sink.close()
    assert not path.exists()
    path.write_bytes(b"old")
    sink = opened.unopened(path, if_exists="replace")
    await sink.check(None, resume=False)
    assert path.read_bytes() == b"old"
    await sink.close()
    assert path.read_bytes() == b"old"


async def test_a_check_leaves_a_link_that_led_nowhere(opened, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    sink = opened.unopened(tmp_path / "link")
    await sink.check(None, resume=False)
    await sink.close()
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "target").exists()


async def test_a_file_is_written_by_one_run_at_a_time(opened, path):
    first = await opened(path, if_exists="append")
    second = opened.unopened(path, if_exists="append")
    for _ in range(2):
        with pytest.raises(StateBusyError, match="another run is writing to it; wait until it has ended"):
            await second.check(None, resume=False)
    await first.close()
    await second.check(None, resume=False)


async def test_a_file_system_without_locks_is_good_enough(opened, path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr("fcntl.flock", unsupported)
    await (await opened(path)).write(results(1))


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
        print(error, error.exit_code)
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
    assert message == f"{path}: File too large; free some space and run again to resume 75"
    assert int(size) == 25
    assert path.read_text() == "head\n" + "".join(f"{n}\n" for n in range(10)) + "x\n"
    assert resource.RLIM_INFINITY


async def test_a_full_disk_says_what_to_do(opened, path, monkeypatch):
    import os  # noqa: PLC0415

    sink = await opened(path)
    await sink.write(results(1))
    pwrite = os.pwrite

    def half(fd, data, offset):
        if len(data) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data[: len(data) // 2], offset)

    monkeypatch.setattr("fetcher.sinks.file.os.pwrite", half)
    with pytest.raises(SinkError, match="No space left on device; free some space and run again to resume") as full:
        await sink.write(results(*range(100)))
    assert full.value.exit_code == 75
    assert path.read_bytes() == b"head\n1\n"


def test_the_config_takes_its_format_from_the_name(tmp_path):
    sink = FileSinkConfig(path=str(tmp_path / "x.ndjson"), if_exists="append", durability="fsync").build()
    assert isinstance(sink._format, JsonlFormat)
    assert (sink._if_exists, sink._synchronous) == ("append", True)
