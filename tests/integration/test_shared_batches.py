"""Several batches in one process, over one pool of connections and within the same limits."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import ok, raw_server

from fetcher.assembly import Batch, Shared
from fetcher.config import Config
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from raw_server import Peer

    from fetcher.model import Result

JOBS = 40


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@asynccontextmanager
async def shared(observe: Any = None, **limits: Any) -> AsyncIterator[Shared]:
    made = Shared(LimitSettings.model_validate(limits), HttpConfig(resolve={"*.test": "127.0.0.1"}), observe)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def config(name: str, url: str, **sections: Any) -> Config:
    return Config.model_validate(
        {"name": name, "sources": [url], "sinks": [{"type": "file", "path": f"{name}.jsonl"}], "retry": {"attempts": 1}}
        | sections
    )


async def finished(batch: Batch) -> bool:
    await batch.open()
    try:
        return await batch.run()
    finally:
        await batch.close()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Desk:
    """Answers requests once it is told to, or at once; knows how many it has, and had at most, of which path."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.now = self.most = self.connections = 0
        self.paths: list[str] = []
        self.failing = False
        self._came = asyncio.Condition()
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    async def serve(self, peer: Peer) -> None:
        self.connections += 1
        while True:
            request = await peer.request()
            self.paths.append(request.split(b" ", 2)[1].decode())
            self.now += 1
            self.most = max(self.most, self.now)
            async with self._came:
                self._came.notify_all()
            await self._open.wait()
            await asyncio.sleep(0)
            self.now -= 1
            bad = self.failing and request.split(b" ", 2)[1].endswith(b"7")
            await peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" if bad else ok())

    def open(self) -> None:
        self._open.set()

    async def has(self, many: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: self.now >= many)


async def test_batches_share_connections_and_the_limit_on_all_of_them(folder):
    desk = Desk()
    async with raw_server(desk.serve) as server, shared(concurrency=3, per_host={"concurrency": 3}) as parts:
        urls = [server.url(f"/{name}/{{1..{JOBS}}}", host=f"{name}.test") for name in "abc"]
        batches = [Batch(config(name, url), shared=parts) for name, url in zip("abc", urls, strict=True)]
        assert all(await asyncio.gather(*map(finished, batches)))
        assert list(parts.slots.shares()) == []
        assert parts.slots.in_flight == 0
    assert desk.most <= 3
    for name in "abc":
        assert {record["url"] for record in records(folder / f"{name}.jsonl")} == {
            server.url(f"/{name}/{number}", host=f"{name}.test") for number in range(1, JOBS + 1)
        }


async def test_connections_are_used_by_one_batch_after_another():
    desk = Desk()
    async with raw_server(desk.serve) as server, shared(concurrency=1) as parts:
        for name in "ab":
            assert await finished(Batch(config(name, server.url(f"/{name}/{{1..3}}")), shared=parts))
        assert (desk.connections, len(desk.paths)) == (1, 6)


async def test_the_limits_of_a_host_hold_for_all_batches_together():
    desk = Desk(is_open=False)
    async with raw_server(desk.serve) as server, shared(per_host={"concurrency": 2}) as parts:
        batches = [Batch(config(name, server.url(f"/{name}/{{1..{JOBS}}}")), shared=parts) for name in "abc"]
        running = asyncio.gather(*map(finished, batches))
        await desk.has(2)
        desk.open()
        assert all(await running)
    assert desk.most == 2
    assert len(desk.paths) == 3 * JOBS


async def test_a_batch_has_as_much_at_once_as_the_process_unless_it_asks_for_less():
    desk = Desk(is_open=False)
    async with (
        raw_server(desk.serve) as server,
        shared(concurrency=40, per_host={"concurrency": 60}) as parts,
        asyncio.TaskGroup() as group,
    ):
        url = server.url("/{1..200}")
        group.create_task(finished(Batch(config("modest", url, limits={"concurrency": 10}), shared=parts)))
        await desk.has(10)
        group.create_task(finished(Batch(config("greedy", url), shared=parts)))
        await desk.has(40)
        assert desk.now == 40
        desk.open()


@pytest.mark.parametrize(
    ("own", "most"), [({}, 50), ({"concurrency": 7}, 7), ({"concurrency": 70}, 50), ({"per_host": {}}, 50)]
)
def test_a_batch_never_asks_for_more_than_there_is(own, most):
    parts = Shared(LimitSettings(concurrency=50), HttpConfig())
    limits = parts.within(LimitSettings.model_validate(own))
    assert (limits.concurrency, limits.most) == (most, most)


def test_a_batch_may_find_out_by_itself_how_much_is_worth_it():
    parts = Shared(LimitSettings(concurrency="auto"), HttpConfig())
    assert parts.within(LimitSettings()).concurrency == "auto"
    assert parts.within(LimitSettings(concurrency=7)).concurrency == 7
    assert Shared(LimitSettings(), HttpConfig()).within(LimitSettings(concurrency="auto")).concurrency == "auto"


async def test_weight_and_priority_are_those_of_the_config():
    async with shared() as parts:
        batch = Batch(config("a", "http://a.test/", weight=2.5, priority=-3), shared=parts)
        (share,) = parts.slots.shares()
        assert (share.weight, share.priority) == (2.5, -3)
        await batch.close()
        assert list(parts.slots.shares()) == []


async def test_other_limits_hold_at_once_and_drop_no_work(folder):
    desk = Desk(is_open=False)
    async with raw_server(desk.serve) as server, shared(concurrency=2, per_host={"concurrency": 20}) as parts:
        batch = Batch(config("a", server.url(f"/{{1..{JOBS}}}")), shared=parts)
        running = asyncio.create_task(finished(batch))
        await desk.has(2)
        parts.reconfigure(LimitSettings.model_validate({"concurrency": 12, "per_host": {"concurrency": 20}}))
        batch.reconfigure()
        await desk.has(12)
        assert desk.now == 12
        parts.reconfigure(LimitSettings.model_validate({"concurrency": 12, "per_host": {"concurrency": 1}}))
        batch.reconfigure()
        desk.open()
        assert await running
    assert desk.most == 12
    assert len(records(folder / "a.jsonl")) == len(desk.paths) == JOBS


async def test_one_batch_pauses_and_goes_on_while_another_runs(folder):
    desk = Desk(is_open=False)
    async with raw_server(desk.serve) as server, shared(per_host={"concurrency": 4}) as parts:
        other = asyncio.create_task(finished(Batch(config("other", server.url("/other/{1..9}")), shared=parts)))
        await desk.has(4)
        paused = config("paused", server.url(f"/paused/{{1..{JOBS}}}", host="a.test"), shutdown_timeout=30.0)
        batch = Batch(paused, shared=parts, state_dir=folder / "1")
        running = asyncio.create_task(finished(batch))
        await desk.has(8)
        batch.drain()
        desk.open()
        assert not await running
        assert 0 < len(records(folder / "paused.jsonl")) < JOBS
        again = Batch(paused, shared=parts, state_dir=folder / "1")
        assert await finished(again)
        assert again.resumed
        assert await other
    ids = [record["job_id"] for record in records(folder / "paused.jsonl")]
    assert len(ids) == len(set(ids)) == JOBS
    assert len(records(folder / "other.jsonl")) == 9


async def test_what_failed_can_be_taken_again_alone(folder):
    desk = Desk()
    desk.failing = True
    async with raw_server(desk.serve) as server, shared() as parts:
        sources = [server.url(f"/{{1..{JOBS}}}"), server.url(f"/{{1..{JOBS}}}")]
        first = config("first", "-", sources=sources)
        assert await finished(Batch(first, shared=parts))
        failed = {one["job_id"] for one in records(folder / "first.jsonl") if one["outcome"] == "failed"}
        assert len(failed) == 2 * 4  # of each source 7, 17, 27 and 37
        desk.failing = False
        desk.paths.clear()
        again = config("again", "-", sources=sources)
        assert await finished(Batch(again, shared=parts, only=failed))
    assert sorted(desk.paths) == sorted(["/7", "/17", "/27", "/37"] * 2)
    assert {one["job_id"] for one in records(folder / "again.jsonl")} == failed


async def test_results_of_all_batches_are_seen_once_they_are_acknowledged(folder):
    seen: list[tuple[str, str]] = []

    def observe(results: Any) -> None:
        found: list[Result] = list(results)
        seen.extend((result.batch, result.job_id) for result in found)

    async with raw_server(Desk().serve) as server, shared(observe) as parts:
        batches = [Batch(config(name, server.url(f"/{{1..{JOBS}}}")), shared=parts) for name in "ab"]
        assert all(await asyncio.gather(*map(finished, batches)))
    written = [(name, record["job_id"]) for name in "ab" for record in records(folder / f"{name}.jsonl")]
    assert sorted(seen) == sorted(written)
