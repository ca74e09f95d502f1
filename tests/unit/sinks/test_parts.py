"""Parts in a folder: what is there after each end of the process, and whose it is."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.formats.parquet import ParquetConfig
from fetcher.interfaces import Concluding, Ending
from fetcher.model import Outcome, Result
from fetcher.sinks.file import FileSinkConfig
from fetcher.sinks.parts import PartsSink

LARGE = 2**30


def results(*numbers):
    return [
        Result(batch="b", job_id=str(n), url=f"http://h{n % 3}.test/", outcome=Outcome.OK, attempts=1) for n in numbers
    ]


def ending(stopped=None):
    """Return how a batch has ended that had no jobs."""
    return Ending(
        batch="b", jobs=0, outcomes={}, statuses={}, kinds={}, seconds=1.0, limit="0%", exceeded=False, stopped=stopped
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "x.parquet"


@pytest.fixture
async def made(path):
    sinks = []

    def make(part_size=LARGE, partition_by="none", **settings):
        sinks.append(PartsSink(path, ParquetConfig(part_size=part_size, partition_by=partition_by).build(), **settings))
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()
        await sink.close()


def shown(path):
    """Return the numbers of all records that a reader of the folder sees."""
    files = [file for file in path.rglob("*.parquet") if file.is_file() and not file.name.startswith("_")]
    return sorted(int(n) for file in files for n in pq.ParquetFile(file).read(["job_id"])["job_id"].to_pylist())


def names(path):
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*") if entry.is_file())


async def test_records_appear_when_a_part_is_large_enough_and_at_the_end(made, path):
    sink = made(part_size=1)
    await sink.check(None, resume=False)
    token = json.loads(await sink.open(None))["token"]
    await sink.write(results(1, 2))
    assert (shown(path), names(path)) == ([], [f"_part-00000-{token}.drafts"])
    mark = json.loads(await sink.write(results(3)))
    assert mark == {"token": token, "number": 1, "rows": 1, "columns": list(Result.__struct_fields__)}
    assert names(path) == [f"_part-00001-{token}.drafts", f"part-00000-{token}.parquet"]
    assert shown(path) == [1, 2]
    await sink.close()
    assert names(path) == [f"part-00000-{token}.parquet", f"part-00001-{token}.parquet"]
    assert shown(path) == [1, 2, 3]
    assert sorted(pq.read_table(path)["job_id"].to_pylist()) == ["1", "2", "3"]


async def test_nothing_written_leaves_an_empty_folder(made, path):
    sink = made()
    await sink.open(None)
    await sink.close()
    assert list(path.iterdir()) == []


async def test_a_check_leaves_nothing_behind(made, path):
    sink = made()
    await sink.check(None, resume=False)
    await sink.close()
    assert not path.parent.exists()


@pytest.mark.parametrize("partition_by", ["none", "host"])
async def test_a_batch_without_records_ends_with_a_part_that_has_the_columns(made, path, partition_by):
    sink = made(partition_by=partition_by)
    mark = await sink.open(None)
    await sink.conclude(ending("a fault"))
    assert names(path) == []
    await sink.conclude(ending())
    await sink.conclude(ending())
    [name] = names(path)
    assert name.startswith("part-00000-")
    table = pq.read_table(path / name)
    assert (table.num_rows, "status" in table.column_names) == (0, True)
    await sink.close()
    assert names(path) == [name]
    # The run goes on after all, as after a crash before it was known to be finished; then a later one starts over.
    again = made(partition_by=partition_by)
    await again.check(mark, resume=True)
    await again.open(mark)
    assert names(path) == []
    last = await again.write(results(1))
    await again.conclude(ending())
    await again.close()
    assert shown(path) == [1]
    other = made()
    await other.check(last, resume=False)
    await other.discard(last)
    assert names(path) == []


EARLIER = [name for name in Result.__struct_fields__ if name not in {"parent_id", "page", "has_more"}]
"""The columns of the versions that did not note them in a mark."""


async def earlier(path, *batches, part_size):
    """Write as such a version does until its process ends; return its last mark."""
    sink = PartsSink(path, ParquetConfig(columns=EARLIER, part_size=part_size).build())
    await sink.open(None)
    for batch in batches:
        mark = json.loads(await sink.write(batch))
    for fd in (sink._fd, sink._lock):
        os.close(fd)
    del mark["columns"]
    return json.dumps(mark)


def columns(path):
    """Return the columns of each part."""
    return [pq.read_schema(path / name).names for name in names(path) if name.endswith(".parquet")]


async def test_a_run_keeps_the_columns_that_it_began_with(made, path):
    mark = await earlier(path, results(1, 2), results(3), part_size=1)
    sink = made(part_size=1)
    await sink.check(mark, resume=True)
    await sink.open(mark)
    again = await sink.write(results(4))
    assert json.loads(again)["columns"] == EARLIER
    await sink.close()
    # Not even if somebody has taken all parts away, as the mark has them now; nor if a part is taken back.
    for part in sorted(path.glob("*.parquet"))[:-1]:
        part.unlink()
    sink = made(part_size=1)
    await sink.check(again, resume=True)
    await sink.open(again)
    await sink.write(results(5))
    await sink.close()
    assert shown(path) == [4, 5]
    assert columns(path) == [EARLIER, EARLIER]


async def test_a_part_that_is_taken_back_keeps_its_columns(made, path):
    first = PartsSink(path, ParquetConfig(columns=EARLIER).build())
    await first.open(None)
    mark = json.loads(await first.write(results(1)))
    await first.write(results(2))
    await first.close()
    del mark["columns"]
    sink = made()
    await sink.open(json.dumps(mark))
    await sink.write(results(3))
    await sink.close()
    assert shown(path) == [1, 3]
    assert columns(path) == [EARLIER]


async def test_drafts_whose_columns_are_not_known_are_not_gone_on_with(made, path):
    mark = await earlier(path, results(1, 2), part_size=LARGE)
    before = {name: (path / name).read_bytes() for name in names(path)}
    for begin in (lambda sink: sink.check(mark, resume=True), lambda sink: sink.open(mark)):
        sink = made()
        with pytest.raises(StateError, match=r"without some of the columns.*the version of fetcher that began it"):
            await begin(sink)
        await sink.close()
    assert {name: (path / name).read_bytes() for name in names(path)} == before
    noted = json.dumps(json.loads(mark) | {"columns": EARLIER})
    sink = made()
    await sink.open(noted)
    await sink.close()
    assert columns(path) == [EARLIER]


async def test_drafts_of_a_version_with_the_same_columns_are_gone_on_with(made, path):
    first = made()
    await first.open(None)
    mark = json.loads(await first.write(results(1)))
    os.close(first._lock)
    first._mark = first._lock = None
    del mark["columns"]
    sink = made()
    await sink.check(json.dumps(mark), resume=True)
    await sink.open(json.dumps(mark))
    await sink.write(results(2))
    await sink.close()
    assert shown(path) == [1, 2]


async def test_columns_of_a_later_version_are_refused(made, path):
    first = made()
    mark = json.loads(await first.open(None))
    await first.close()
    sink = made()
    with pytest.raises(StateError, match="a record has no field 'later'"):
        await sink.check(json.dumps(mark | {"columns": ["url", "later"]}), resume=True)


async def test_a_batch_ends_with_all_its_records_shown(made, path, monkeypatch):
    """Whoever ends it can not say that it is finished while its last records are drafts."""
    sink = made()
    assert isinstance(sink, Concluding)
    await sink.open(None)
    mark = await sink.write(results(1, 2))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(SinkError, match="free some space") as failure:
        await sink.conclude(ending())
    assert failure.value.retryable
    assert shown(path) == []
    monkeypatch.undo()
    assert await sink.conclude(ending()) is await sink.conclude(ending()) is None
    assert shown(path) == [1, 2]
    before = names(path)
    await sink.close()
    assert names(path) == before
    assert json.loads(await made().open(mark))["number"] == 1


async def test_what_was_shown_after_the_mark_is_taken_back(made, path):
    first = made()
    await first.open(None)
    mark = await first.write(results(1, 2))
    await first.write(results(3))
    await first.close()
    assert shown(path) == [1, 2, 3]
    second = made()
    await second.check(mark, resume=True)
    assert shown(path) == [1, 2, 3]
    assert json.loads(await second.open(mark)) == json.loads(mark)
    assert shown(path) == []
    await second.write(results(4))
    await second.close()
    assert shown(path) == [1, 2, 4]


async def test_a_part_that_ends_with_the_mark_stays(made, path):
    first = made()
    await first.open(None)
    mark = await first.write(results(1, 2))
    await first.close()
    before = names(path)
    second = made()
    assert json.loads(await second.open(mark)) == json.loads(mark) | {"number": 1, "rows": 0}
    assert names(path) == before
    await second.write(results(3))
    await second.close()
    assert shown(path) == [1, 2, 3]


async def test_a_part_that_went_missing_is_said(made, path):
    first = made()
    await first.open(None)
    mark = await first.write(results(1, 2))
    await first.close()
    for file in path.iterdir():
        file.unlink()
    for call in (lambda sink: sink.check(mark, resume=True), lambda sink: sink.open(mark)):
        sink = made()
        with pytest.raises(StateError, match="part 0 has 0 records, but 2 were recorded as written; put it back"):
            await call(sink)
        await sink.close()


async def test_drafts_that_were_cut_are_said(made, path):
    first = made()
    await first.open(None)
    mark = await first.write(results(1, 2))
    [drafts] = path.iterdir()
    copy = drafts.read_bytes()
    await first.close()
    drafts.write_bytes(copy[:-1])
    with pytest.raises(StateError, match="2 records were recorded as written, but it ends before them; put the file"):
        await made().check(mark, resume=True)


async def test_a_mark_that_is_none_is_refused(made, path):
    with pytest.raises(StateError, match="recorded in a way unknown here"):
        await made().check('{"token": 1}', resume=True)
    assert not path.exists()


@pytest.mark.parametrize("if_exists", ["fail", "append", "replace"])
async def test_an_earlier_run_is_replaced_and_what_others_wrote_is_not_touched(made, path, if_exists):
    first = made(partition_by="host", part_size=1)
    await first.open(None)
    for number in range(4):
        mark = await first.write(results(number))
    await first.close()
    other = made(if_exists="append")
    await other.open(None)
    await other.write(results(100))
    await other.close()
    again = made(if_exists=if_exists)
    if if_exists == "fail":
        with pytest.raises(ConfigError, match=r"has part-00000-\w{8}.parquet, which was not written by an earlier run"):
            await again.check(mark, resume=False)
        assert shown(path) == [0, 1, 2, 3, 100]
        return
    await again.check(mark, resume=False)
    await again.discard(mark)
    assert shown(path) == [100]
    assert not list(path.glob("host=*"))
    await again.open(None)
    await again.write(results(7))
    await again.close()
    assert shown(path) == ([7, 100] if if_exists == "append" else [7])


@pytest.mark.parametrize("if_exists", ["fail", "replace"])
async def test_a_folder_with_something_else_in_it_is_refused(made, path, if_exists):
    path.mkdir(parents=True)
    (path / "precious.parquet").write_bytes(b"mine")
    (path / ".DS_Store").touch()
    for call in (lambda sink: sink.check(None, resume=False), lambda sink: sink.open(None)):
        sink = made(if_exists=if_exists)
        with pytest.raises(ConfigError, match=r"x.parquet: has precious.parquet, which was not written by an earlier"):
            await call(sink)
        await sink.close()
    assert (path / "precious.parquet").read_bytes() == b"mine"


async def test_a_folder_is_written_by_one_run_at_a_time(made):
    await made().open(None)
    with pytest.raises(StateBusyError, match="another run is writing to it"):
        await made(if_exists="append").check(None, resume=False)


@pytest.mark.parametrize("name", ["file", "file/x", "/proc/no/x"])
async def test_what_can_not_be_a_folder_is_a_config_error(tmp_path, name):
    (tmp_path / "file").touch()
    sink = PartsSink(tmp_path / name, ParquetConfig().build())
    with pytest.raises(ConfigError, match=r"can not be written: .*; choose another path"):
        await sink.check(None, resume=False)
    await sink.close()


async def test_a_sink_that_is_not_open_says_so(made):
    with pytest.raises(SinkError, match="is not open"):
        await made().write(results(1))


async def test_a_full_disk_costs_nothing_but_time(made, path, monkeypatch):
    sink = made(part_size=1)
    await sink.open(None)
    await sink.write(results(1))
    write = type(sink._format).write

    def full(self, drafts, create):
        create("").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(sink._format), "write", full)
    with pytest.raises(SinkError, match="No space left on device; free some space") as failure:
        await sink.write(results(2))
    assert failure.value.retryable
    assert [name for name in names(path) if not name.endswith(".drafts")] == []
    monkeypatch.setattr(type(sink._format), "write", write)
    await sink.write(results(2))
    await sink.close()
    assert shown(path) == [1, 2]


async def test_fsync_covers_drafts_parts_and_folders(made, path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "fetcher.sinks.parts.os.fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    sink = made(synchronous=True)
    await sink.open(None)
    assert path.parent in synced
    synced.clear()
    await sink.write(results(1))
    assert [name.suffix for name in synced] == [".parquet", ".drafts"]  # the folder is called so
    synced.clear()
    await sink.close()
    assert [name.suffix for name in synced] == [".unfinished", ".parquet"]


async def test_a_cancelled_write_is_over_before_it_returns(made, path):
    sink = made()
    mark = await sink.open(None)
    write = asyncio.ensure_future(sink.write(results(*range(5000))))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert sink._mark.rows == 5000
    await sink.close()
    again = made()
    await again.open(mark)
    assert shown(path) == []


def test_the_file_sink_writes_parts_if_its_format_is_one_of_parts(tmp_path):
    sink = FileSinkConfig(path=str(tmp_path / "x.parquet"), durability="fsync").build()
    assert isinstance(sink, PartsSink)
    assert sink._synchronous


class Killed(BaseException):
    """The process ended here."""


class Kill:
    """Ends the process at the n-th thing that it does to the disk, when that is half done."""

    def __init__(self, monkeypatch):
        self.left = None
        for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (os, "ftruncate"), (os, "close")):
            monkeypatch.setattr(owner, name, self._before(getattr(owner, name)))
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._torn)

    def _count(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def _before(self, function):
        def wrapped(*args, **options):
            self._count()
            return function(*args, **options)

        return wrapped

    def _torn(self, fd, data, offset):
        try:
            self._count()
        except Killed:
            self._pwrite(fd, data[: len(data) // 2], offset)
            raise
        return self._pwrite(fd, data, offset)


@pytest.mark.parametrize("partition_by", ["none", "host"])
@pytest.mark.parametrize("lag", [0, 4])
def test_whenever_the_process_ends_there_is_one_record_for_each_job(path, monkeypatch, partition_by, lag):
    """Killed at each of its steps, and again while it resumes; marks lag behind what was written."""
    kill = Kill(monkeypatch)
    chance = random.Random(7)
    step = steps = 0
    while True:
        folder = path / str(step)
        kill.left = step
        done, mark = run(folder, partition_by, None, 0, lag)
        if kill.left >= 0:
            break
        for _ in range(2):
            shown(folder)  # what has appeared is readable
            kill.left = chance.randrange(12)
            done, mark = run(folder, partition_by, mark, done, lag)
        kill.left = None
        run(folder, partition_by, mark, done, lag)
        assert shown(folder) == list(range(27)), step
        assert all(name.rpartition("/")[2].startswith("part-") for name in names(folder))
        step, steps = step + 1, steps + 1
    assert shown(folder) == list(range(27))
    assert steps > 20


def run(folder, partition_by, mark, done, lag):
    """Write what is left, three at a time; return what was acknowledged when the process ended."""
    shape = ParquetConfig(part_size=9000, partition_by=partition_by).build()
    sink = PartsSink(folder, shape, if_exists="append" if mark is None else "fail")
    acknowledged = [(done, mark)]
    try:
        acknowledged = [(done, sink._open(sink._decoded(mark)))]
        while done < 27:
            latest = sink._write(results(*range(done, done + 3)))
            done += 3
            acknowledged.append((done, latest))
        lag = 0
        sink._close()
    except Killed:
        pass
    for fd in (sink._fd, sink._lock):
        if fd is not None:
            os.closerange(fd, fd + 1)
    return acknowledged[max(0, len(acknowledged) - 1 - lag)]
