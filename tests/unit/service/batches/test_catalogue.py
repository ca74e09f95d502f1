"""Which batches there are: found again whatever happens, one service at a time, quick however many they are (F85)."""

from __future__ import annotations

import sqlite3
import time

import pytest

from fetcher.errors import StateBusyError, StateError, UnknownBatchError
from fetcher.service.batches.catalogue import _WAITING, Catalogue, Row


def row(name, **values):
    return Row(id=name, name=name, label=f"{name}.yaml", created_at=1.0, **values)


@pytest.fixture
async def catalogue(tmp_path):
    opened = Catalogue(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def ids(found):
    return [one.id for one in found]


async def test_a_batch_is_found_as_it_was_put_in_by_a_later_service_too(tmp_path):
    first = Catalogue(tmp_path)
    await first.open()
    await first.insert(row("a", upload="urls.csv", priority=-3, weight=0.5, retry_of="b", origin="retry"))
    await first.update("a", state="done", finished_at=7.5, exceeded=True, results=12, progress="{}")
    await first.close()
    await first.close()
    second = Catalogue(tmp_path)
    await second.open()
    found = second.get("a")
    await second.close()
    assert found == row(
        "a",
        upload="urls.csv",
        priority=-3,
        weight=0.5,
        retry_of="b",
        origin="retry",
        state="done",
        finished_at=7.5,
        exceeded=True,
        results=12,
        progress="{}",
        seq=1,
    )
    assert oct((tmp_path / "service.db").stat().st_mode)[-3:] == "600"


async def test_one_that_is_not_there_is_said_so(catalogue):
    assert catalogue.find("x") is None
    with pytest.raises(UnknownBatchError, match="there is no batch 'x'"):
        catalogue.get("x")


async def test_what_waits_goes_on_first_where_it_had_begun_then_by_priority_then_by_age(catalogue):
    for name, priority in [("old", 0), ("urgent", 5), ("begun", -1), ("new", 0), ("paused", 9)]:
        await catalogue.insert(row(name, priority=priority))
    await catalogue.update("begun", state="running")
    await catalogue.update("paused", state="paused")
    await catalogue.take_up()
    assert [one.id for one in catalogue.waiting(10)] == ["begun", "urgent", "old", "new"]
    assert [one.id for one in catalogue.waiting(2)] == ["begun", "urgent"]
    assert catalogue.counts() == {"queued": 4, "running": 0, "paused": 1, "done": 0, "failed": 0, "cancelled": 0}


async def test_pages_have_the_latest_first_and_none_twice(catalogue):
    for number in range(7):
        await catalogue.insert(row(f"b{number}", state="done" if number % 2 else "queued"))
    first = catalogue.page(None, 3, None)
    assert [one.id for one in first] == ["b6", "b5", "b4"]
    await catalogue.insert(row("newer"))
    assert [one.id for one in catalogue.page(None, 9, first[-1].seq)] == ["b3", "b2", "b1", "b0"]
    assert [one.id for one in catalogue.page("done", 2, None)] == ["b5", "b3"]
    assert [one.id for one in catalogue.open_ones(3)] == ["b0", "b2", "b4"]


async def test_only_what_ended_before_is_expired(catalogue):
    for name, state, finished in [("a", "done", 5.0), ("b", "failed", 9.0), ("c", "queued", None)]:
        await catalogue.insert(row(name, state=state, finished_at=finished))
    assert [one.id for one in catalogue.expired(9.0, 10)] == ["a"]
    assert [one.id for one in catalogue.expired(9.5, 10)] == ["a", "b"]
    await catalogue.remove("a")
    assert await catalogue.ids() == {"b", "c"}


async def test_a_second_service_is_refused_and_the_first_goes_on(catalogue, tmp_path):
    with pytest.raises(StateBusyError, match=r"another service is using it; end that one"):
        await Catalogue(tmp_path).open()
    await catalogue.insert(row("a"))
    assert catalogue.get("a").id == "a"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"no database" * 100), "can not be read"),
        (lambda path: execute(path, "CREATE TABLE mine(x)"), "not that of a service of fetcher"),
        (
            lambda path: execute(
                path, "CREATE TABLE batches(x)", "PRAGMA application_id = 0x66747376", "PRAGMA user_version = 99"
            ),
            "written by a newer version",
        ),
    ],
)
async def test_a_file_that_is_not_its_own_is_refused_and_stays_as_it_is(tmp_path, make, words):
    path = tmp_path / "service.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StateError, match=words):
        await Catalogue(tmp_path).open()
    assert path.read_bytes() == before
    # It has let go of the folder.
    path.unlink()
    again = Catalogue(tmp_path)
    await again.open()
    await again.close()


def execute(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


async def test_a_folder_that_can_not_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"can not be used for the state of the service"):
        await Catalogue(tmp_path / "file" / "state").open()


async def test_a_hundred_thousand_batches_that_have_ended_slow_nothing_down(catalogue, tmp_path):
    db = sqlite3.connect(tmp_path / "service.db")
    db.execute(
        "INSERT INTO batches(id, name, label, state, origin, priority, weight, created_at, finished_at) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
        "SELECT 'b' || i, 'b', 'b', 'done', 'api', 0, 1, i, i FROM n"
    )
    db.commit()
    db.close()
    await catalogue.insert(row("waiting"))
    for query in (
        f"{_WAITING} LIMIT 5",
        "WHERE state = 'done' AND seq < 9 ORDER BY seq DESC LIMIT 5",
        "WHERE finished_at < 5 ORDER BY finished_at LIMIT 5",
    ):
        steps = [step[-1] for step in catalogue._read(f"EXPLAIN QUERY PLAN SELECT * FROM batches {query}", ())]
        assert len(steps) == 1, steps
        assert "USING INDEX" in steps[0]
    started = time.perf_counter()
    assert [one.id for one in catalogue.waiting(5)] == ["waiting"]
    assert [one.id for one in catalogue.page(None, 3, 50_000)] == ["b49999", "b49998", "b49997"]
    assert len(catalogue.open_ones(60)) == 1
    assert time.perf_counter() - started < 0.5  # a look at all of them takes longer by far
