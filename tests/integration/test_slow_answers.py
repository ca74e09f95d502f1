"""The pace of a host is kept up while its answers do not come: requests are started by time, and not by answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from batches import TEST_HOSTS, run_batch
from raw_server import ok, raw_server

from fetcher.assembly import Batch, Shared
from fetcher.config import Config
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from pathlib import Path

    from raw_server import Peer

JOBS = 30
# More than are held of a host with such a pace.
SLOW = 16
RATE, BUDGET, DELAY = {"rate": "50/s"}, {"budget": ["50/s"]}, {"delay": "20ms"}


class Patient:
    """Answers nothing below ``/slow`` before it was asked for ``JOBS`` different paths; ``took``: how long that took,
    0.0 if it waited for that in vain.

    ``/failing`` has only the second request for a path answered well, ``/page/3`` says that there is a ``/page/4``.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.took = 0.0
        self._began = 0.0
        self._all = asyncio.Event()

    async def serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).split(b" ", 2)[1].decode()
            answer = self.answer(path)
            self.note(path)
            if path.startswith("/slow"):
                await self.all_asked()
            await peer.send(answer)

    async def all_asked(self) -> None:
        try:
            async with asyncio.timeout_at(self._began + 10):
                await self._all.wait()
        except TimeoutError:
            self._all.set()

    def note(self, path: str) -> None:
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        self.asked.append(path)
        if len(set(self.asked)) == JOBS and not self._all.is_set():
            self.took = now - self._began
            self._all.set()

    def answer(self, path: str) -> bytes:
        if path.startswith("/failing") and path not in self.asked:
            return b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
        if path.startswith("/page") and (number := int(path.rpartition("/")[2])) < JOBS - SLOW:
            link = f'</page/{number + 1}>; rel="next"'
            return f"HTTP/1.1 200 OK\r\nLink: {link}\r\nContent-Length: 2\r\n\r\nok".encode()
        return ok()


def limits(pace: dict[str, Any]) -> dict[str, Any]:
    return {"adapt": False, "per_host": {"concurrency": 100} | pace}


async def run(folder: Path, paths: list[str], pace: dict[str, Any], **sections: Any) -> Patient:
    """Ask one host for paths, and return it. Every one of them has to be answered well."""
    origin = Patient()
    async with raw_server(origin.serve) as server:
        jobs = [server.url(path, host="a.test") for path in paths]
        records = await run_batch(folder, jobs, limits=limits(pace), **sections)
    assert [record["outcome"] for record in records] == ["ok"] * JOBS
    assert origin.took > 0.0
    return origin


def slow(count: int) -> list[str]:
    return [f"/slow/{number}" for number in range(count)]


@pytest.mark.parametrize("pace", [RATE, BUDGET, DELAY])
async def test_all_jobs_are_started_before_the_first_is_answered(tmp_path: Path, pace: dict[str, Any]):
    origin = await run(tmp_path, slow(JOBS), pace)
    assert origin.took > (JOBS - 1) / 100
    assert len(origin.asked) == JOBS


async def test_all_jobs_of_a_queue_on_disk_are_started_before_the_first_is_answered(tmp_path: Path):
    origin = await run(tmp_path, slow(JOBS), BUDGET, queue={"type": "sqlite", "path": str(tmp_path / "queue.db")})
    assert len(origin.asked) == JOBS


@pytest.mark.parametrize("pace", [RATE, BUDGET])
async def test_what_is_not_answered_does_not_hold_up_others_and_their_retries(tmp_path: Path, pace: dict[str, Any]):
    failing = [f"/failing/{number}" for number in range(JOBS - SLOW)]
    origin = await run(tmp_path, slow(SLOW) + failing, pace, retry={"backoff": "10ms"})
    assert len(origin.asked) == JOBS + len(failing)


@pytest.mark.parametrize("pace", [RATE, BUDGET])
async def test_what_is_not_answered_does_not_hold_up_the_pages_of_others(tmp_path: Path, pace: dict[str, Any]):
    origin = await run(tmp_path, [*slow(SLOW), "/page/1"], pace, pagination={"next": "link"})
    assert len(origin.asked) == JOBS


@pytest.mark.parametrize("pace", [RATE, BUDGET])
async def test_batches_that_share_a_host_start_all_of_their_jobs(tmp_path: Path, pace: dict[str, Any]):
    origin = Patient()
    parts = Shared(LimitSettings.model_validate(limits(pace)), HttpConfig.model_validate(TEST_HOSTS))
    await parts.open()
    async with raw_server(origin.serve) as server:
        batches = [
            Batch(config(tmp_path, name, server.url(f"/slow/{name}/{{1..15}}", host="a.test")), shared=parts)
            for name in ("one", "two")
        ]
        assert await asyncio.gather(*map(finished, batches)) == [True, True]
    await parts.close()
    assert len(origin.asked) == JOBS
    assert origin.took > (JOBS - 1) / 100


def config(folder: Path, name: str, url: str) -> Config:
    sinks = [{"type": "file", "path": str(folder / f"{name}.jsonl")}]
    return Config.model_validate({"name": name, "sources": [url], "sinks": sinks, "queue": "memory"})


async def finished(batch: Batch) -> bool:
    await batch.open()
    try:
        return await batch.run()
    finally:
        await batch.close()
