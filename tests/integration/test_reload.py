"""A service takes over another config while it runs, and drops nothing that it is at."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager

import aiohttp
import pytest
from raw_server import ok, raw_server
from serve_process import serve_process

from fetcher.config.loading import load_root
from fetcher.service import reload as module
from fetcher.service.serving import Service
from fetcher.service.settings import ServiceConfig, hash_token

SOON = 30.0
JOBS = 40
TOKENS = {name: name * 43 for name in "ab"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "PERIOD", 0.02)
    return tmp_path


class Origin:
    """Answers requests once it is told to; knows how many it has."""

    def __init__(self):
        self.now = self.most = self.answered = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()

    async def serve(self, peer):
        while True:
            await peer.request()
            await self._count(1)
            await self._open.wait()
            await self._count(-1)
            self.answered += 1
            await peer.send(ok(b"x"))

    async def _count(self, change):
        async with self._changed:
            self.now += change
            self.most = max(self.most, self.now)
            self._changed.notify_all()

    async def has(self, count):
        async with asyncio.timeout(SOON), self._changed:
            await self._changed.wait_for(lambda: self.now == count)

    def open(self):
        self.most = self.now
        self._open.set()


class Served:
    """A service that runs, its config file, and a client."""

    def __init__(self, service, path, client):
        self.service = service
        self.path = path
        self.client = client
        self.token = None

    async def ask(self, method, path, **more):
        headers = {} if self.token is None else {"Authorization": f"Bearer {TOKENS[self.token]}"}
        headers |= more.pop("headers", {})
        async with self.client.request(method, self.service.url + path, headers=headers, **more) as answer:
            body = await answer.text()
            return answer.status, json.loads(body) if answer.content_type in {
                "application/json",
                "application/problem+json",
            } else body

    async def get(self, path):
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return body

    async def submit(self, **config):
        status, body = await self.ask("POST", "/v1/batches", json=config)
        assert status == 201, body
        return body["id"]

    def write(self, config):
        """Change the file as an editor does."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(config if isinstance(config, str) else json.dumps(config))
        fresh.rename(self.path)

    async def until(self, what):
        async with asyncio.timeout(SOON):
            while not what():  # noqa: ASYNC110  who takes a config tells nobody
                await asyncio.sleep(0.01)

    async def ended(self, batch_id):
        async with asyncio.timeout(SOON):
            return await self.service.keeper.wait(batch_id)

    async def success(self):
        (line,) = [line for line in (await self.get("/metrics")).splitlines() if line.startswith("fetcher_config_r")]
        return line


@asynccontextmanager
async def served(here, config, *overrides):
    path = here / "service.yaml"
    path.write_text(json.dumps(config))
    overrides = ["service.port=0", "http.guard=false", *overrides]
    service = Service(load_root(ServiceConfig, str(path), overrides), str(path), overrides)
    running = asyncio.create_task(service.run())
    async with aiohttp.ClientSession() as client:
        found = Served(service, path, client)
        await found.until(lambda: service.state == "ready" or running.done())
        try:
            yield found
        finally:
            service.drain()
            await running


def limits(concurrency, per_host=100):
    return {"limits": {"concurrency": concurrency, "per_host": {"concurrency": per_host}}}


def tokens(*names):
    return [{"name": name, "hash": hash_token(TOKENS[name]), "scopes": ["read", "write"]} for name in names]


async def test_other_limits_hold_for_a_batch_that_runs_and_no_job_is_lost_or_fetched_twice(here):
    origin = Origin()
    async with raw_server(origin.serve) as server, served(here, limits(2)) as at:
        batch = await at.submit(sources=[server.url(f"/{{1..{JOBS}}}")], retry={"attempts": 1})
        await origin.has(2)
        at.write(limits(12))
        await origin.has(12)
        # A bad one in the middle of it changes nothing.
        at.write("limits: {concurency: 30}\n")
        await at.until(lambda: at.service.troubles)
        assert origin.now == 12
        at.write(limits(12, per_host=5))
        await at.until(lambda: not at.service.troubles)
        origin.open()
        view = await at.ended(batch)
        assert (view.state, view.progress.outcomes) == ("done", {"ok": JOBS})
        assert (origin.most, origin.answered) == (12, JOBS)
        records = [json.loads(line) for line in (await at.get(f"/v1/batches/{batch}/results")).splitlines()]
        assert len({record["job_id"] for record in records}) == len(records) == JOBS


async def test_a_lower_limit_is_kept_to_as_soon_as_requests_end(here):
    origin = Origin()
    async with raw_server(origin.serve) as server, served(here, limits(10)) as at:
        batch = await at.submit(sources=[server.url(f"/{{1..{JOBS}}}")], retry={"attempts": 1})
        await origin.has(10)
        at.write(limits(3))
        await at.until(lambda: at.service.concurrency == 3)
        assert origin.now == 10
        origin.open()
        await at.ended(batch)
        assert (origin.most, origin.answered) == (10, JOBS)


async def test_a_bad_config_is_told_everywhere_and_keeps_the_old_one(here):
    async with served(here, limits(7)) as at:
        assert await at.success() == "fetcher_config_reload_success 1.0"
        at.write("limits: {concurrency: many}\nschedules: [{name: s, cron: '* *', batch: x}]\n")
        await at.until(lambda: at.service.troubles)
        assert at.service.troubles[0].startswith("the changed config can not be used, so the one before holds on: ")
        assert "service.yaml:1: limits.concurrency: should be a whole number or auto" in at.service.troubles[0]
        assert await at.success() == "fetcher_config_reload_success 0.0"
        assert (await at.ask("GET", "/readyz"))[0] == 200
        await asyncio.sleep(1.1)  # the snapshot of a second ago is out of date
        snapshot = await at.get("/v1/snapshot")
        assert (snapshot["trouble"], snapshot["concurrency"]) == (at.service.troubles, 7)
        at.path.unlink()
        await asyncio.sleep(0.1)
        assert at.service.troubles
        at.write(limits(8))
        await at.until(lambda: at.service.concurrency == 8)
        assert (at.service.troubles, await at.success()) == ([], "fetcher_config_reload_success 1.0")


async def test_what_takes_a_restart_is_told_and_the_rest_is_taken(here):
    async with served(here, {}) as at:
        at.write({"service": {"state_dir": "elsewhere", "watch": "drop"}, "http": {"guard": False}} | limits(9))
        await at.until(lambda: at.service.troubles)
        assert at.service.troubles == [
            "the config was changed in what takes a restart: service.state_dir, service.watch"
        ]
        assert at.service.concurrency == 9
        assert not (here / "elsewhere").exists()
        at.write(limits(9))
        await at.until(lambda: not at.service.troubles)


async def test_tokens_come_and_go(here):
    async with served(here, {"service": {"tokens": tokens("a")}}) as at:
        assert (await at.ask("GET", "/v1/batches"))[0] == 401
        at.token = "a"
        assert (await at.ask("GET", "/v1/batches"))[0] == 200
        listening = await at.client.get(
            f"{at.service.url}/v1/events", headers={"Authorization": f"Bearer {TOKENS['a']}"}
        )
        at.write({"service": {"tokens": tokens("b")}})
        await at.until(lambda: at.service.config.service.tokens[0].name == "b")
        assert (await at.ask("GET", "/v1/batches"))[0] == 401
        async with asyncio.timeout(SOON):
            await listening.read()  # whose token was taken away hears no more
        at.token = "b"
        assert (await at.ask("GET", "/v1/batches"))[0] == 200


async def test_a_service_that_others_can_reach_never_goes_without_tokens(here):
    async with served(here, {"service": {"host": "0.0.0.0", "tokens": tokens("a")}}) as at:
        at.token = "a"
        at.write({"service": {"host": "127.0.0.1"}})
        await at.until(lambda: at.service.troubles)
        assert "everybody could use the service, which listens on 0.0.0.0" in at.service.troubles[0]
        assert at.service.config.service.tokens[0].name == "a"
        at.service.url = at.service.url.replace("0.0.0.0", "127.0.0.1")
        assert (await at.ask("GET", "/v1/batches"))[0] == 200
        at.token = None
        assert (await at.ask("GET", "/v1/batches"))[0] == 401


async def test_names_limits_of_the_api_and_what_batches_may_change(here, monkeypatch):
    monkeypatch.setenv("MINE", "http://127.0.0.1:9/")
    config = {"sources": ["${MINE}"], "retry": {"attempts": 1}}
    by_name = {"headers": {"Host": "fetcher.example.org"}}
    async with served(here, {}) as at:
        assert (await at.ask("GET", "/v1/batches", **by_name))[0] == 421
        status, body = await at.ask("POST", "/v1/batches", json=config)
        assert (status, "service.env can let them have it" in body["problems"][0]) == (422, True)
        at.write({"service": {"hosts": ["fetcher.example.org"], "env": ["MINE"], "max_upload": "10B", "running": 3}})
        await at.until(lambda: at.service.config.service.running == 3)
        assert at.service.troubles == []
        assert (await at.ask("GET", "/v1/batches", **by_name))[0] == 200
        assert (await at.ended(await at.submit(**config))).progress.outcomes == {"failed": 1}
        urls = {"data": "http://127.0.0.1:9/" * 2, "headers": {"Content-Type": "text/plain"}}
        assert (await at.ask("POST", "/v1/batches", **urls))[0] == 413


async def test_schedules_and_the_room_for_connections_change(here):
    async with served(here, {}) as at:
        batch = {"sources": ["http://127.0.0.1:9/"], "retry": {"attempts": 1}}
        at.write({"schedules": [{"name": "s", "every": "1h", "batch": batch}], "service": {"max_connections": 55}})
        await at.until(lambda: [True for view in at.service._schedules.views().schedules if view.last_batch])
        (view,) = at.service.keeper.list().batches
        assert (view.origin, (await at.get("/v1/schedules"))["schedules"][0]["last_batch"]) == ("schedule", view.id)
        assert at.service._listening.runner.server._most == 55


def test_sighup_reloads_and_ends_nothing_at_any_time(here):
    path = here / "service.yaml"
    path.write_text("limits: {concurrency: 5, breaker: off}\n")
    with serve_process(here, config=str(path)) as service:
        os.utime(path)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_event("config_loaded")
        batch = service.submit(sources=["http://127.0.0.1:9/{1..300}"], retry={"attempts": 1})
        for _ in range(20):
            service.process.send_signal(signal.SIGHUP)
        assert service.wait_for_end(batch)["progress"]["outcomes"] == {"failed": 300}
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_event("service_draining")
        for _ in range(20):
            service.process.send_signal(signal.SIGHUP)
        assert service.wait() == 0
