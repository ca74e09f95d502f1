"""Budgets of keys and hosts, with real servers that count: configured ones, and those that servers tell of."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from batches import TEST_HOSTS, run_batch
from raw_server import ok, raw_server

from fetcher.assembly import Batch, Shared
from fetcher.config import Config
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.waiting import look
from fetcher.engine.why.sampling import sample
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from raw_server import Peer

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Counter:
    """Answers everything after ``pause`` seconds, and knows when it was asked."""

    def __init__(self, pause: float = 0.0) -> None:
        self.asked: list[float] = []
        self.keyed = 0
        self._pause = pause
        self._came = asyncio.Condition()

    async def serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.asked.append(time.monotonic())
            self.keyed += KEY.encode() in request
            async with self._came:
                self._came.notify_all()
            await asyncio.sleep(self._pause)
            await peer.send(self.answer())

    def answer(self) -> bytes:
        return ok()

    async def has(self, many: int) -> None:
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: len(self.asked) >= many)


def auth(*hosts: str, **entry: Any) -> dict[str, Any]:
    made = {"type": "api_key", "hosts": list(hosts), "name": "x-key", "key": KEY, "insecure": True} | entry
    return TEST_HOSTS | {"auth": [made]}


def config(name: str, url: str, http: dict[str, Any], **sections: Any) -> Config:
    sink = {"type": "file", "path": f"{name}.jsonl"}
    return Config.model_validate(
        {"name": name, "sources": [url], "sinks": [sink], "queue": "memory", "http": http, **sections}
    )


@asynccontextmanager
async def shared(**limits: Any) -> AsyncIterator[Shared]:
    made = Shared(LimitSettings.model_validate(limits), HttpConfig.model_validate(TEST_HOSTS))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def finished(batch: Batch) -> bool:
    await batch.open()
    try:
        return await batch.run()
    finally:
        await batch.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  what it looks at tells nobody
            await asyncio.sleep(0.01)


async def test_batches_that_use_one_key_share_its_budget_over_all_of_its_hosts():
    counter = Counter()
    async with raw_server(counter.serve) as server, shared() as parts:
        batches = [
            Batch(
                config(name, server.url("/{1..25}", host=f"{name}.test"), auth("*.test", budget=["50/s"])), shared=parts
            )
            for name in "ab"
        ]
        began = time.monotonic()
        assert all(await asyncio.gather(*map(finished, batches)))
        took = time.monotonic() - began
    assert len(counter.asked) == counter.keyed == 50
    # Evenly spaced, whoever asks: the fiftieth comes 49 steps after the first.
    assert took > 0.95
    assert all(later - earlier > 0.4 for earlier, later in zip(counter.asked, counter.asked[25:], strict=False))


async def test_a_budget_that_is_used_up_is_used_up_for_all_and_says_so():
    counter = Counter()
    http = auth("a.test", "b.test", budget=["30/m"])
    async with raw_server(counter.serve) as server, shared() as parts:
        batches = [
            Batch(config(name, server.url("/{1..25}", host=f"{name}.test"), http), shared=parts) for name in "ab"
        ]
        running = [asyncio.create_task(finished(batch)) for batch in batches]
        await counter.has(30)
        await until(lambda: all(batch.engine.done + batch.engine.queued == 25 for batch in batches))
        now = asyncio.get_running_loop().time()
        for batch in batches:
            waiting, seen = look(batch.engine, now), sample(batch.engine, now)
            assert not batch.engine.running
            assert waiting.resting
            assert all(50 < seconds <= 61 for _, seconds in waiting.resting)
            assert {held.why.value for held in seen.held_back} <= {"budget"}
        assert any(sample(batch.engine, now).held_back for batch in batches)
        for batch in batches:
            batch.drain()
        assert await asyncio.gather(*running) == [False, False]
    assert len(counter.asked) == 30


class Tokens(Counter):
    """A token endpoint, too, which takes its time; ``lasts``: for how many seconds a token is good."""

    def __init__(self, *, takes: float, lasts: float) -> None:
        super().__init__()
        self.tokens = 0
        self._takes, self._lasts = takes, lasts

    async def serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if not request.startswith(b"POST /token"):
                self.asked.append(time.monotonic())
                await peer.send(ok())
                continue
            self.tokens += 1
            await asyncio.sleep(self._takes)
            await peer.send(ok(json.dumps({"access_token": f"t{self.tokens}", "expires_in": self._lasts}).encode()))

    def most(self, seconds: float) -> int:
        """Return how many requests there were at most in any time of that length."""
        return max(sum(at <= other < at + seconds for other in self.asked) for at in self.asked)


@pytest.mark.parametrize("lasts", [3600.0, 2.0])
async def test_no_budget_is_exceeded_when_a_token_comes_for_which_jobs_have_waited(folder: Path, lasts: float):
    counter = Tokens(takes=0.6, lasts=lasts)
    async with raw_server(counter.serve) as server:
        oauth = {"type": "oauth2", "token_url": server.url("/token"), "client_id": "id", "client_secret": "s"}
        entry = oauth | {"hosts": ["a.test"], "insecure": True, "budget": ["20/s"]}
        records = await run_batch(
            folder,
            [server.url(f"/{number}", host="a.test") for number in range(60)],
            http=TEST_HOSTS | {"auth": [entry]},
            limits={"per_host": {"concurrency": 50}},
        )
    assert {(record["outcome"], record["attempts"]) for record in records} == {("ok", 1)}
    assert len(counter.asked) == 60
    # Two more, as what is sent evenly does not arrive so.
    assert counter.most(1.0) <= 22
    assert counter.tokens == 1 if lasts > 60 else counter.tokens > 1


class Challenging(Counter):
    """Takes each nonce of Digest once, so that every job takes two requests."""

    async def serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.asked.append(time.monotonic())
            nonces = re.findall(rb'nonce="(\w+)"', request)
            if nonces and nonces[0] in self.nonces:
                self.nonces.remove(nonces[0])
                await peer.send(ok())
                continue
            self.nonces.add(b"%d" % len(self.asked))
            challenge = b'WWW-Authenticate: Digest realm="r", qop="auth", nonce="%d"\r\n' % len(self.asked)
            await peer.send(b"HTTP/1.1 401 No\r\n%sContent-Length: 0\r\n\r\n" % challenge)

    def __init__(self) -> None:
        super().__init__()
        self.nonces: set[bytes] = set()


async def test_requests_that_answer_a_challenge_are_charged_as_well(folder: Path):
    counter = Challenging()
    async with raw_server(counter.serve) as server:
        digest = {"type": "digest", "username": "u", "password": "p"}
        entry = digest | {"hosts": ["a.test"], "insecure": True, "budget": ["40/s", "1000/h"]}
        records = await run_batch(
            folder,
            [server.url(f"/{number}", host="a.test") for number in range(30)],
            http=TEST_HOSTS | {"auth": [entry]},
        )
    assert {record["outcome"] for record in records} == {"ok"}
    assert len(counter.asked) >= 45
    assert counter.asked[-1] - counter.asked[0] > (len(counter.asked) - 1) / 40 - 0.15
    (used,) = json.loads((folder / "state" / "budgets.json").read_bytes())["used"].values()
    assert sum(starts for _, starts in used[0]["starts"]) == len(counter.asked)


async def test_redirects_within_a_host_are_charged_as_well(folder: Path):
    counter = Counter()

    async def serve(peer: Peer) -> None:
        while True:
            target = (await peer.request()).split(b" ")[1]
            counter.asked.append(time.monotonic())
            moved = b"HTTP/1.1 302 Found\r\nLocation: /x%s\r\nContent-Length: 0\r\n\r\n" % target
            await peer.send(ok() if target.startswith(b"/x") else moved)

    async with raw_server(serve) as server:
        urls = [server.url(f"/{number}", host="a.test") for number in range(20)]
        records = await run_batch(folder, urls, http=auth("a.test", budget=["40/s"]))
    assert {record["outcome"] for record in records} == {"ok"}
    assert len(counter.asked) == 40
    assert counter.asked[-1] - counter.asked[0] > 39 / 40 - 0.15


async def test_the_budget_of_a_host_is_its_own(folder: Path):
    counter = Counter()
    async with raw_server(counter.serve) as server:
        urls = [server.url(f"/{number}", host=f"{name}.test") for name in "ab" for number in range(15)]
        limits = {"per_host": {"budget": ["20/s", "1000/h"]}, "hosts": {"b.test": {"budget": "2000/s"}}}
        records = await run_batch(folder, urls, limits=limits)
    took = {name: [record["started_at"] for record in records if f"{name}.test" in record["url"]] for name in "ab"}
    assert {record["outcome"] for record in records} == {"ok"}
    assert max(took["b"]) < max(took["a"])
    assert counter.asked[-1] - counter.asked[0] > 0.6


async def test_retries_are_requests(folder: Path):
    class Busy(Counter):
        def answer(self) -> bytes:
            return b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" if len(self.asked) <= 10 else ok()

    counter = Busy()
    async with raw_server(counter.serve) as server:
        records = await run_batch(
            folder,
            [server.url(f"/{number}", host="a.test") for number in range(10)],
            http=auth("a.test", budget=["40/s"]),
            limits={"adapt": False, "per_host": {"concurrency": 1}},
            retry={"backoff": "1ms"},
        )
    assert {record["outcome"] for record in records} == {"ok"}
    assert counter.asked[-1] - counter.asked[0] > (len(counter.asked) - 1) / 40 - 0.05
    assert len(counter.asked) == 20


class Limited(Counter):
    """Enforces ``limit`` requests per second of the clock and says so; ``over``: how many were too many."""

    def __init__(self, limit: int, fields: str, *, pause: float = 0.02) -> None:
        super().__init__(pause)
        self.limit = limit
        self.over = 0
        self._fields = fields
        self._window, self._used = 0, 0

    def answer(self) -> bytes:
        now = time.time()
        if int(now) != self._window:
            self._window, self._used = int(now), 0
        self._used += 1
        left, reset = max(0, self.limit - self._used), math.ceil(int(now) + 1 - now)
        told = self._fields.format(left=left, reset=reset, at=int(now) + 1)
        self.over += self._used > self.limit
        status = "200 OK" if self._used <= self.limit else "429 Slow Down"
        return f"HTTP/1.1 {status}\r\n{told}Content-Length: 2\r\n\r\nok".encode()


FIELDS = {
    "draft": 'RateLimit-Policy: "second";q=9;w=1\r\nRateLimit: "second";r={left};t={reset}\r\n',
    "older": "RateLimit-Remaining: {left}\r\nRateLimit-Reset: {reset}\r\n",
    "epoch": "X-RateLimit-Remaining: {left}\r\nX-RateLimit-Reset: {at}\r\n",
}


@pytest.mark.parametrize("form", FIELDS)
async def test_what_a_server_says_is_left_is_never_exceeded(folder: Path, form: str):
    """Without any config: eight at a time, more jobs than two windows take."""
    server_side = Limited(12, FIELDS[form])
    async with raw_server(server_side.serve) as server:
        jobs = [server.url(f"/{number}") for number in range(30)]
        records = await run_batch(folder, jobs, limits={"per_host": {"concurrency": 8}})
    assert server_side.over == 0
    assert len(server_side.asked) == 30
    assert {record["outcome"] for record in records} == {"ok"}
    assert {record["attempts"] for record in records} == {1}


async def test_what_is_left_of_a_key_is_told_by_any_of_its_hosts_to_all_batches():
    class Once(Counter):
        def answer(self) -> bytes:
            return b"HTTP/1.1 200 OK\r\nRateLimit: x;r=0;t=60\r\nContent-Length: 2\r\n\r\nok"

    counter, loop = Once(), asyncio.get_running_loop()
    async with raw_server(counter.serve) as server, shared(per_host={"concurrency": 1}) as parts:
        http = auth("a.test", "b.test")
        first = Batch(config("a", server.url(host="a.test"), http), shared=parts)
        assert await finished(first)
        second = Batch(config("b", server.url("/{1..5}", host="b.test"), http), shared=parts)
        third = Batch(config("c", server.url("/{1..5}", host="b.test"), TEST_HOSTS), shared=parts)
        running = [asyncio.create_task(finished(batch)) for batch in (second, third)]
        # Who shows the host no key has a budget of his own there.
        await counter.has(2)
        await until(lambda: third.engine.done == 1 and bool(look(second.engine, loop.time()).resting))
        assert (second.engine.done, len(counter.asked)) == (0, 2)
        for batch in (second, third):
            batch.drain()
        await asyncio.gather(*running)
    assert counter.keyed == 1


async def test_a_run_that_goes_on_later_has_what_is_left_of_the_day(folder: Path):
    counter = Counter()
    http = auth("a.test", budget=["20/h"])
    async with raw_server(counter.serve) as server:
        made = config("a", server.url("/{1..30}", host="a.test"), http, queue={"type": "sqlite", "path": "a.db"})
        for _ in range(2):
            batch = Batch(made)
            running = asyncio.create_task(finished(batch))
            await counter.has(20)
            await until(lambda batch=batch: batch.engine.done == 20 and bool(look(batch.engine, now()).resting))
            batch.drain()
            assert await running is False
    assert len(counter.asked) == 20
    kept = (folder / "state" / "budgets.json").read_bytes()
    assert KEY.encode() not in kept


async def test_what_batches_of_a_service_used_is_used_after_its_restart(folder: Path):
    counter = Counter()
    http = auth("a.test", budget=["20/h"])
    async with raw_server(counter.serve) as server:
        for name in "ab":
            parts = Shared(LimitSettings(), HttpConfig.model_validate(TEST_HOSTS), state_dir=folder / "service")
            await parts.open()
            batch = Batch(config(name, server.url("/{1..15}", host="a.test"), http), shared=parts)
            running = asyncio.create_task(finished(batch))
            await counter.has(15 if name == "a" else 20)
            if name == "b":
                await until(lambda batch=batch: bool(look(batch.engine, now()).resting))
                batch.drain()
            assert await running is (name == "a")
            await parts.close()
    assert len(counter.asked) == 20


def now() -> float:
    return asyncio.get_running_loop().time()
