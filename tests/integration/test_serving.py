"""The service as a whole, in this process: what it says of itself, and that nothing dies unnoticed."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from origin_process import origin_process

from fetcher.errors import ConfigError, StateBusyError
from fetcher.service.models import State
from fetcher.service.observing.why import Reasons
from fetcher.service.serving import Service
from fetcher.service.settings import ServiceConfig

SOON = 20.0


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**sections):
    service = {"port": 0} | sections.pop("service", {})
    return ServiceConfig.model_validate({"service": service, "http": {"guard": False}} | sections)


async def until(what):
    """Wait until something is so that nobody tells of."""
    async with asyncio.timeout(SOON):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(**sections):
    service = Service(config(**sections))
    running = asyncio.create_task(service.run())
    try:
        await until(lambda: service.state == "ready" or running.done())
        yield service, running
    finally:
        service.drain()
        await asyncio.wait([running])


async def submit(service, *sources, **sections):
    text = json.dumps({"name": "b", "sources": list(sources)} | sections)
    return (await service.keeper.submit(text, "b.yaml", "api")).id


async def test_it_serves_until_it_is_told_to_end(origin):
    async with serving() as (service, running), aiohttp.ClientSession() as client:
        batch_id = await submit(service, f"{origin}/bytes/5?n={{1..20}}")
        assert (await service.keeper.wait(batch_id)).progress.outcomes == {"ok": 20}
        async with client.get(f"{service.url}/v1/batches/{batch_id}/results") as answer:
            assert len((await answer.text()).splitlines()) == 20
        async with client.get(f"{service.url}/metrics") as answer:
            assert 'fetcher_batches{state="done"} 1.0' in await answer.text()
        assert (service.concurrency, list(service.troubles), dict(service.running)) == (100, [], {})
        service.drain()
        assert await running
        assert service.state == "draining"
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"{service.url}/livez")


async def test_something_that_dies_in_the_background_ends_the_service_with_its_reason(origin):
    died = asyncio.Event()

    async def dies(self):
        await died.wait()
        raise ZeroDivisionError("it was not meant to")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reasons, "run", dies)
        batch_id = await _until_it_dies(origin, died)
    async with serving() as (service, _):
        # What it was at has not suffered.
        view = await service.keeper.cancel(batch_id)
        assert view.progress.outcomes["ok"] > 0


async def _until_it_dies(origin, died):
    async with serving() as (service, running):
        batch_id = await submit(service, f"{origin}/delay/0.1/bytes/5?n={{1..300}}", limits={"concurrency": 5})
        await until(lambda: service.keeper.get(batch_id).progress.outcomes)
        died.set()
        with pytest.raises(ZeroDivisionError, match="it was not meant to"):
            await running
    return batch_id


async def test_something_that_ends_by_itself_is_a_fault_too(monkeypatch):
    async def ends(self):
        await asyncio.sleep(0)

    monkeypatch.setattr(Reasons, "run", ends)
    with pytest.raises(RuntimeError, match="why has ended by itself"):
        await Service(config()).run()


async def test_what_can_not_be_opened_is_said_and_leaves_nothing_open():
    async with serving() as (service, _):
        with pytest.raises(StateBusyError):
            await Service(config()).run()
        port = int(service.url.rpartition(":")[2])
        other = Service(config(service={"port": port, "state_dir": "state/other"}))
        with pytest.raises(ConfigError, match="can not listen"):
            await other.run()
    async with serving(service={"state_dir": "state/other"}) as (again, _):
        assert again.keeper.list().batches == []


async def test_a_changed_config_is_kept_to_and_what_takes_a_restart_is_told(origin):
    async with serving(limits={"concurrency": 3}) as (service, _):
        batch_id = await submit(service, f"{origin}/delay/0.2/bytes/5?n={{1..400}}")
        await until(lambda: service.keeper.get(batch_id).progress.in_flight == 3)
        changed = {"port": 1, "running": 3, "state_dir": "elsewhere"}
        later = service.reconfigure(
            config(
                service=changed, limits={"concurrency": 40, "per_host": {"concurrency": 40}}, http={"robots": "obey"}
            )
        )
        assert {"service.port", "service.state_dir", "http"} <= set(later)
        assert (service.concurrency, service.config.service.running, service.config.service.port) == (40, 3, 0)
        await until(lambda: service.keeper.get(batch_id).progress.in_flight > 10)
        await service.keeper.cancel(batch_id)
        assert (await service.keeper.wait(batch_id)).state is State.CANCELLED


async def test_what_is_in_trouble_is_shown_until_it_is_over():
    async with serving() as (service, _), aiohttp.ClientSession() as client:
        service.trouble("folder", "the inbox is gone")
        await asyncio.sleep(1.1)  # a snapshot is kept for a second
        async with client.get(f"{service.url}/v1/snapshot") as answer:
            assert (await answer.json())["trouble"] == ["the inbox is gone"]
        service.trouble("folder", None)
        assert list(service.troubles) == []
