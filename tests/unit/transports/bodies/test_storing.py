from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job, Response
from fetcher.settings import BodySettings
from fetcher.transports.bodies import storing
from fetcher.transports.bodies.ranges import Partial
from fetcher.transports.bodies.storing import BATCH, BodyStore

if TYPE_CHECKING:
    from fetcher.transports.bodies.storing import Download

URL = "http://a.test/"
BODY = os.urandom(BATCH * 3 + 5)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def store():
    opened = opened_store()
    await opened.open()
    yield opened
    await opened.close()


def opened_store() -> BodyStore:
    return BodyStore(BodySettings(store="file", path="b/{sha256}", range="resume", work="work"))


def job(name: str = "1") -> Job:
    return Job(id=name, url=URL, host="a.test")


def begun(store: BodyStore, partial: Partial | None = None, name: str = "1") -> tuple[Download, Response]:
    response = Response(200, "GET", URL, [])
    return store.download(job(name), response, hashlib.sha256(), partial), response


def noted(size: int = 0, validator: str = '"v1"') -> Partial:
    return Partial(URL, validator, len(BODY), size)


def left() -> list[Path]:
    return list(Path("work").iterdir())


async def fill(download: Download, body: bytes) -> None:
    for start in range(0, len(body), 50_000):
        if download.add(body[start : start + 50_000]):
            await download.flush()


async def test_what_was_kept_is_found_by_its_job_and_url(store):
    download, _ = begun(store, noted())
    await fill(download, BODY[:1000])
    await download.abandon(keep=True)
    assert await store.find(job(), URL) == noted(1000)
    assert await store.find(job(), URL + "x") is None
    assert await store.find(job("2"), URL) is None


async def test_what_was_kept_is_gone_once_it_is_not_wanted(store):
    download, _ = begun(store, noted())
    await fill(download, BODY)
    await download.abandon(keep=False)
    assert await store.find(job(), URL) is None
    assert left() == []


async def test_while_it_is_being_written_nobody_else_goes_on_with_it(store):
    download, _ = begun(store, noted())
    await fill(download, BODY[:1000])
    await download.abandon(keep=True)
    known = await store.find(job(), URL)
    again, _ = begun(store)
    assert await store.find(job(), URL) is None
    with pytest.raises(FetchError) as caught:
        begun(store, known)
    assert caught.value.kind is ErrorKind.BODY_INCOMPLETE
    await again.abandon(keep=False)


@pytest.mark.parametrize("meanwhile", ["finished", "of another version", "shorter"])
async def test_what_is_not_there_as_it_was_is_not_gone_on_with(store, meanwhile):
    download, _ = begun(store, noted())
    await fill(download, BODY[:1000])
    await download.abandon(keep=True)
    known = await store.find(job(), URL)
    other, response = begun(store, noted(validator='"v2"' if meanwhile == "of another version" else '"v1"'))
    if meanwhile == "finished":
        await fill(other, BODY)
        response.body_size = len(BODY)
        await other.finish()
    else:
        await fill(other, BODY[: 2000 if meanwhile == "of another version" else 10])
        await other.abandon(keep=True)
    late, response = begun(store, known)
    late.add(BODY[1000:])
    response.body_size = len(BODY)
    with pytest.raises(FetchError, match="begun its body anew"):
        await late.finish()
    await late.abandon(keep=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda part, note: note.write_text("{"),
        lambda part, note: note.unlink(),
        lambda part, note: part.unlink(),
        lambda part, note: part.write_bytes(b""),
        lambda part, note: part.write_bytes(BODY + b"more"),
        lambda part, note: os.utime(note, (1, 1)) or os.utime(part, (1, 1)),
    ],
)
async def test_what_can_not_be_gone_on_with_is_cleared_out_at_the_start(tmp_path, damage):
    first = opened_store()
    await first.open()
    download, _ = begun(first, noted())
    await fill(download, BODY[:1000])
    await download.abandon(keep=True)
    await first.close()
    damage(next(tmp_path.glob("work/*.part")), next(tmp_path.glob("work/*.json")))
    second = opened_store()
    await second.open()
    assert left() == []
    await second.close()


async def test_a_note_is_there_before_its_first_byte_and_never_beside_bytes_of_another(store, tmp_path):
    """Whatever moment a process is killed at, what is on the disk is a true beginning of what is noted."""
    download, _ = begun(store, noted())
    await fill(download, BODY)
    await download.abandon(keep=True)
    [note] = tmp_path.glob("work/*.json")
    [part] = tmp_path.glob("work/*.part")
    seen = []
    opened = storing._opened

    def spy(path, *arguments, **options):
        if path == part.relative_to(tmp_path):
            seen.append((note.exists() and json.loads(note.read_text())["validator"], part.stat().st_size))
        return opened(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "_opened", spy)
        again, _ = begun(store, noted(validator='"v2"'))
        await fill(again, BODY[::-1])
        await again.abandon(keep=True)
    # Before the old bytes are gone there is no note, and before the first new byte there is the new one.
    assert seen[:2] == [(False, len(BODY)), ('"v2"', 0)]
    assert part.read_bytes() == BODY[::-1]


async def test_memory_holds_no_more_than_two_batches_of_a_body(store):
    download, response = begun(store)
    most = 0
    for start in range(0, len(BODY), 1000):
        if download.add(BODY[start : start + 1000]):
            await download.flush()
        most = max(most, sum(map(len, download._pieces)))
    assert most <= BATCH
    response.body_size = len(BODY)
    await download.finish()
    assert response.sha256 == hashlib.sha256(BODY).hexdigest()


async def test_a_part_that_ends_before_the_whole_does_is_kept_and_one_that_goes_on_is_not_used(store):
    download, _ = begun(store, noted())
    await fill(download, BODY[:1000])
    await download.abandon(keep=True)
    for end, kind in ((2000, ErrorKind.BODY_INCOMPLETE), (len(BODY) + 10, ErrorKind.BAD_HTTP)):
        known = await store.find(job(), URL)
        again, response = begun(store, known)
        again.add(bytes(end - known.size))
        response.body_size = end
        with pytest.raises(FetchError) as caught:
            await again.finish()
        assert caught.value.kind is kind
        await again.abandon(keep=kind is ErrorKind.BODY_INCOMPLETE)
    assert await store.find(job(), URL) is None


async def test_without_a_file_to_be_had_a_body_waits_for_one(store):
    """F88: sockets may have them all for a moment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    download, response = begun(store)
    download.add(b"abc")
    response.body_size = 3
    await store.run(int)  # a thread is there, and needs no more files
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        finishing = asyncio.create_task(download.finish())
        done, _ = await asyncio.wait([finishing], timeout=0.3)
        assert not done
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await finishing
    assert [path.read_bytes() for path in Path("b").iterdir()] == [b"abc"]  # noqa: ASYNC240  small and near
