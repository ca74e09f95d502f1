from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from fetcher.errors import StateError
from fetcher.transports.http.caching.cache import Cache, Entry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "c.db"


@pytest.fixture
async def cache(path):
    opened = Cache(path)
    await opened.open()
    yield opened
    await opened.close()


def entry(url: str = "http://a.test/", body: bytes = b"abc", **fields) -> Entry:
    return Entry(url, hashlib.sha256(body).hexdigest(), len(body), etag='"v1"', **fields)


async def later(path: Path, url: str = "http://a.test/") -> tuple[Entry | None, bytes | None]:
    """What another run finds."""
    other = Cache(path)
    await other.open()
    try:
        found = await other.find(url)
        return found, None if found is None else await other.body(found)
    finally:
        await other.close()


async def test_what_is_added_is_known_at_once_and_after_closing(cache, path):
    await cache.add(entry(inline=True, vary=("accept",), variant="x"), b"abc")
    known = await cache.find("http://a.test/")
    assert (known.etag, await cache.body(known)) == ('"v1"', b"abc")
    assert await cache.find("http://b.test/") is None
    await cache.close()
    found, body = await later(path)
    assert found == known
    assert body == b"abc"
    assert known.stored_at > 1_700_000_000


async def test_what_is_new_takes_the_place_of_what_was_there_body_and_all(cache, path):
    await cache.add(entry(inline=True), b"abc")
    await cache.close()
    other = Cache(path)
    await other.open()
    await other.add(entry(), None)
    await other.close()
    assert await later(path) == (entry(stored_at=(await later(path))[0].stored_at), None)


async def test_what_is_added_is_written_before_long(cache, path, monkeypatch):
    monkeypatch.setattr("fetcher.transports.http.caching.cache._LINGER", 0.01)
    await cache.add(entry(), None)
    while (await later(path))[0] is None:  # noqa: ASYNC110  another connection's commit sets no event
        await asyncio.sleep(0.01)


async def test_many_are_written_together(cache, path):
    statements = []
    cache._db.set_trace_callback(statements.append)
    for number in range(1200):
        await cache.add(entry(f"http://a.test/{number}"), None)
    await cache.close()
    assert sum(statement == "COMMIT" for statement in statements) <= 3
    assert (await later(path, "http://a.test/1199"))[0] is not None


async def test_large_bodies_do_not_pile_up(cache):
    for number in range(40):
        body = bytes(1024 * 1024)
        await cache.add(entry(f"http://a.test/{number}", body, inline=True), body)
        assert cache._new_size <= 9 * 1024 * 1024
    assert await cache.body(await cache.find("http://a.test/0")) == bytes(1024 * 1024)


async def test_lookups_at_the_same_time_are_few_calls(cache, path):
    for number in range(100):
        await cache.add(entry(f"http://a.test/{number}"), None)
    await cache.close()
    other = Cache(path)
    await other.open()
    calls = []
    find = other._find
    other._find = lambda keys: calls.append(len(keys)) or find(keys)
    found = await asyncio.gather(*(other.find(f"http://a.test/{number}") for number in range(200)))
    assert [known is not None for known in found] == [True] * 100 + [False] * 100
    assert calls[0] == 1
    assert len(calls) <= 3
    await other.close()


async def test_a_lookup_that_is_cancelled_disturbs_no_other(cache):
    waiting = [asyncio.create_task(cache.find("http://a.test/")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert await waiting[1] is await waiting[2] is None
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]


async def test_a_body_whose_file_is_gone_or_has_another_size_is_not_known(cache, path, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"abc")
    await cache.add(entry(path=str(body)), None)
    await cache.close()
    assert (await later(path))[0] is not None
    body.write_bytes(b"abcd")
    assert (await later(path))[0] is None
    body.unlink()
    assert (await later(path))[0] is None


async def test_batches_may_share_it_at_the_same_time(cache, path):
    other = Cache(path)
    await other.open()
    await cache.add(entry("http://a.test/1"), None)
    await other.add(entry("http://a.test/2"), None)
    await asyncio.gather(cache.close(), other.close())
    assert (await later(path, "http://a.test/1"))[0] is not None
    assert (await later(path, "http://a.test/2"))[0] is not None


async def test_what_can_not_be_written_stops_the_run(cache, path):
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE bodies")
    db.close()

    async def add_until_it_is_said() -> None:
        for number in range(20_000):
            await cache.add(entry(f"http://a.test/{number}"), None)
            await asyncio.sleep(0)

    with pytest.raises(StateError, match=r"c\.db"):
        await add_until_it_is_said()
    with pytest.raises(StateError):
        await cache.close()


async def test_a_lookup_that_fails_stops_the_run(cache, path):
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE entries")
    db.close()
    with pytest.raises(StateError, match="can not be used"):
        await cache.find("http://a.test/")


async def test_closing_twice_is_closing_once(cache):
    await cache.close()
    await cache.close()


@pytest.mark.parametrize("written", [False, True])
async def test_a_body_of_another_version_is_not_given(cache, path, written):
    old = entry(inline=True)
    await cache.add(entry(body=b"newer", inline=True), b"newer")
    if written:
        await cache.close()
        cache = Cache(path)
        await cache.open()
    newer = await cache.find("http://a.test/")
    assert (await cache.body(old), await cache.body(newer)) == (None, b"newer")
    await cache.close()


async def test_a_body_that_was_damaged_is_not_given(cache, path):
    await cache.add(entry(inline=True), b"abc")
    await cache.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE bodies SET body = x'00'")
    db.close()
    assert (await later(path))[1] is None


@pytest.mark.parametrize("written", [False, True])
async def test_what_is_dropped_is_not_known_any_more(cache, path, written):
    await cache.add(entry(inline=True), b"abc")
    if written:
        await cache.close()
        cache = Cache(path)
        await cache.open()
    await cache.drop(entry(body=b"another"))
    assert await cache.find("http://a.test/") is not None
    await cache.drop(entry())
    assert await cache.find("http://a.test/") is None
    await cache.close()
    assert await later(path) == (None, None)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM bodies").fetchone() == (0,)
    db.close()


async def test_its_files_are_for_nobody_elses_eyes(cache, path):
    await cache.add(entry(), None)
    cache._flush()
    await cache._written()
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == dict.fromkeys(
        ("c.db", "c.db-shm", "c.db-wal"), 0o600
    )


async def test_a_file_that_is_there_keeps_its_mode(path):
    path.parent.mkdir()
    path.touch(0o640)
    path.chmod(0o640)
    cache = Cache(path)
    await cache.open()
    await cache.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
