from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime

import arbitrary
import pytest
import rows
from hypothesis import HealthCheck, given, settings

from fetcher.errors import ConfigError, ErrorKind, StateError
from fetcher.model import Outcome, Result
from fetcher.sinks.sqlite import SqliteSink, SqliteSinkConfig, _schema


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "pages.db"


@pytest.fixture
async def begun(path):
    """Check and open a sink; those of earlier calls are closed first."""
    opened = []

    async def begin(mark=None, *, table="results", resume=False):
        while opened:
            await opened.pop().close()
        sink = SqliteSink(path, table, busy=0.1)
        opened.append(sink)
        await sink.check(mark, resume=resume)
        return sink, await sink.open(mark)

    yield begin
    for sink in opened:
        await sink.close()


def result(number, **fields):
    base = {"batch": "b", "url": f"http://a.test/{number}", "outcome": Outcome.OK, "attempts": 1}
    return Result(job_id=f"0:{number}", **(base | fields))


def query(path, sql, *values):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


async def refused(sink, error, mark=None, *, resume=False):
    with pytest.raises(error) as caught:
        await sink.check(mark, resume=resume)
    await sink.close()
    return str(caught.value)


async def test_columns_have_types_that_can_be_queried(begun, path):
    sink, _ = await begun()
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await sink.write(
        [
            result(
                1,
                status=200,
                total_s=0.5,
                truncated=True,
                started_at=moment,
                body=b"\0\xff",
                headers=[("A", "b")],
                meta={"n": 7},
            )
        ]
    )
    columns = "typeof(status), typeof(total_s), truncated, started_at, body, json_extract(meta, '$.n'), error_kind"
    found = query(path, f"SELECT {columns}, json_extract(headers, '$[0][1]') FROM results")
    assert found == [("integer", "real", 1, "2026-01-02T03:04:05.000000Z", b"\0\xff", 7, None, "b")]
    assert query(path, "SELECT strftime('%Y', started_at) FROM results") == [("2026",)]


async def test_a_record_that_comes_again_takes_the_place_of_the_earlier_one(begun, path):
    sink, _ = await begun()
    await sink.write([result(1, status=500, meta={"a": 1}), result(2)])
    await sink.write([result(1, status=503), result(1, status=200), result(1, batch="other", status=404)])
    found = query(path, "SELECT batch, job_id, status, meta FROM results ORDER BY batch, job_id")
    assert found == [("b", "0:1", 200, None), ("b", "0:2", None, None), ("other", "0:1", 404, None)]


async def test_there_is_a_view_of_the_failures(begun, path):
    sink, _ = await begun()
    failed = result(2, outcome=Outcome.FAILED, error_kind=ErrorKind.CONNECT_REFUSED, error_message="no")
    kinds = [ErrorKind.INVALID_ROW, ErrorKind.HOST_DOWN, ErrorKind.ROBOTS_DISALLOWED, None]
    skipped = [result(n, outcome=Outcome.SKIPPED, error_kind=kind) for n, kind in enumerate(kinds, 3)]
    await sink.write([result(1), failed, *skipped])
    found = query(path, "SELECT job_id, url, error_kind, error_message FROM results_failures ORDER BY 1")
    assert found[0] == ("0:2", "http://a.test/2", "connect_refused", "no")
    # What robots.txt disallows was not wanted.
    assert [row[0] for row in found] == ["0:2", "0:3", "0:4", "0:6"]


async def test_the_file_can_be_queried_while_a_batch_runs(begun, path):
    sink, _ = await begun()
    await sink.write([result(1)])
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        found = reader.execute("SELECT job_id FROM results")
        assert found.fetchone() == ("0:1",)
        await sink.write([result(2)])
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


async def test_batches_of_any_size_are_written_whole(begun, path):
    sink, _ = await begun()
    total = 0
    for size in (1, 3, 4, 31, 33, 255, 257, 512, 600):
        await sink.write([result(total + n) for n in range(size)])
        total += size
    assert query(path, "SELECT count(*), count(DISTINCT job_id) FROM results") == [(total, total)]


async def test_an_earlier_run_is_deleted_and_nothing_of_others(begun, path):
    sink, mark = await begun()
    await sink.write([result(1), result(2)])
    sink, other = await begun()
    await sink.write([result(2, status=201), result(9)])
    assert other != mark
    await sink.close()
    again = SqliteSink(path)
    await again.check(mark, resume=False)
    await again.discard(mark)
    await again.close()
    assert query(path, "SELECT job_id FROM results ORDER BY job_id") == [("0:2",), ("0:9",)]


async def test_two_tables_in_one_file_are_apart(begun, path):
    first, mark = await begun(table="one")
    await first.write([result(1)])
    second, _ = await begun(table="two")
    await second.write([result(2)])
    assert query(path, "SELECT job_id FROM one") == [("0:1",)]
    assert query(path, "SELECT job_id FROM two") == [("0:2",)]
    assert "can not" not in await refused(SqliteSink(path, "two"), StateError, mark, resume=True)


async def test_tables_of_others_are_left_alone(begun, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine(x)")
        db.execute("CREATE TABLE results(x)")
    message = await refused(SqliteSink(path), ConfigError)
    assert message == f"{path}: has a table results that was not made by fetcher; name another with 'table:'"
    sink, _ = await begun(table="pages")
    await sink.write([result(1)])
    assert query(path, "SELECT count(*) FROM mine") == [(0,)]


async def test_a_check_creates_nothing(path):
    sink = SqliteSink(path)
    await sink.check(None, resume=False)
    await sink.close()
    assert not path.exists()


async def test_what_was_written_and_is_gone_is_missed(begun, path):
    sink, mark = await begun()
    await sink.write([result(1)])
    await sink.close()
    path.unlink()
    message = await refused(SqliteSink(path), StateError, mark, resume=True)
    assert "put it back, or start over with --fresh" in message
    assert not path.exists()
    again = SqliteSink(path)
    await again.check(mark, resume=False)
    await again.discard(mark)
    await again.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other(x)")
    await refused(SqliteSink(path), StateError, mark, resume=True)


async def test_a_mark_of_another_kind_is_refused(path):
    assert "start over with --fresh" in await refused(SqliteSink(path), StateError, '{"offset": 1}', resume=True)


async def test_a_folder_that_can_not_be_created_is_refused():
    assert "can not be created" in await refused(SqliteSinkConfig(path="/proc/no/x.db").build(), ConfigError)


def test_what_is_committed_survives_the_end_of_the_process(path):
    """The process ends in the midst of a run, with nothing closed."""
    script = """
import asyncio, os, sys
from pathlib import Path
from fetcher.model import Outcome, Result
from fetcher.sinks.sqlite import SqliteSink

async def main():
    sink = SqliteSink(Path(sys.argv[1]))
    await sink.check(None, resume=False)
    await sink.open(None)
    await sink.write([Result(batch="b", job_id=f"0:{n}", url="", outcome=Outcome.OK, attempts=1) for n in range(999)])
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", script, path], check=False, env=os.environ)
    assert ended.returncode == -9
    assert query(path, "SELECT count(*) FROM results") == [(999,)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=arbitrary.results())
async def test_any_record_is_stored_as_it_is(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("any") / "x.db"
    sink = SqliteSink(path)
    await sink.open(None)
    try:
        await sink.write(found)
    finally:
        await sink.close()
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        table = [rows.stored(dict(row)) for row in db.execute("SELECT * FROM results ORDER BY rowid")]
    assert len(table) == len(found)
    for result, row in zip(found, table, strict=True):
        wanted = rows.expected(result, lambda text: text)
        for name in ("started_at", "finished_at"):
            moment = wanted[name]
            wanted[name] = moment and moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        del row["run"]
        assert row == wanted


def earlier(path, *lacking):
    """Make a table as a version made it that had not all columns, with a record of a run; return its mark."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        for statement in _schema("results"):
            db.execute(statement)
        for name in lacking:
            db.execute(f'ALTER TABLE results DROP COLUMN "{name}"')
        db.execute("INSERT INTO fetcher_tables VALUES ('results', 1)")
        db.execute("INSERT INTO fetcher_runs VALUES ('r1', 'results', '2026-01-01T00:00:00.000000Z')")
        if "run" not in lacking:
            names = "schema_version, batch, job_id, url, outcome, attempts, run"
            db.execute(f"INSERT INTO results ({names}) VALUES (1, 'b', '0:1', 'http://a.test/1', 'ok', 1, 'r1')")
        db.commit()
    return '{"run": "r1", "table": "results"}'


@pytest.mark.parametrize("resume", [True, False])
async def test_a_table_of_an_earlier_version_gets_the_columns_that_it_lacks(begun, path, resume):
    mark = earlier(path, "parent_id", "page", "has_more")
    before = path.read_bytes()
    sink = SqliteSink(path)
    await sink.check(mark, resume=resume)
    await sink.close()
    assert path.read_bytes() == before
    if not resume:
        sink = SqliteSink(path)
        await sink.discard(mark)
        await sink.close()
    sink, _ = await begun(mark if resume else None, resume=resume)
    await sink.write([result(2, parent_id="0:1", page=2, has_more=False)])
    found = query(path, "SELECT job_id, parent_id, page, has_more FROM results ORDER BY job_id DESC")
    assert found == [("0:2", "0:1", 2, 0), ("0:1", None, None, None)][: 1 + resume]
    assert query(path, "SELECT count(*) FROM results_failures") == [(0,)]
    # And once more, where nothing is lacking.
    _, again = await begun()
    assert again != mark


async def test_a_column_that_somebody_has_added_in_other_letters_is_that_column(begun, path):
    earlier(path, "page")
    with closing(sqlite3.connect(path)) as db:
        db.execute('ALTER TABLE results ADD COLUMN "Page" INTEGER')
    sink, _ = await begun()
    await sink.write([result(2, page=7)])
    assert query(path, "SELECT page FROM results WHERE job_id = '0:2'") == [(7,)]


async def test_a_table_without_what_all_of_ours_have_is_refused(path):
    earlier(path, "run")
    sink = SqliteSink(path)
    assert "the table results has no column run any more" in await refused(sink, ConfigError)
