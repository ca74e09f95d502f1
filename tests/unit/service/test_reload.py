"""A changed config is taken over without a restart; a bad one changes nothing, and says so."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from fetcher.service import reload as module
from fetcher.service.reload import Reload


class Service:
    """What is told of configs."""

    def __init__(self):
        self.taken = []
        self.troubles = {}
        self.later = []
        self.told = asyncio.Event()

    def take(self, config):
        self.taken.append(config)
        self.told.set()
        return self.later

    def trouble(self, about, words):
        self.troubles[about] = words
        self.told.set()

    async def next(self):
        async with asyncio.timeout(10):
            await self.told.wait()
        await asyncio.sleep(0)
        self.told.clear()


@pytest.fixture
async def service(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PERIOD", 0.02)
    path = tmp_path / "service.yaml"
    path.write_text("limits: {concurrency: 5}\n")
    found = Service()
    running = asyncio.create_task(Reload(str(path), ["limits.adapt=false"], found.take, found.trouble).run())
    await asyncio.sleep(0)
    yield found
    running.cancel()
    await asyncio.wait([running])


async def test_a_change_of_the_file_is_taken_over(service, tmp_path):
    (tmp_path / "service.yaml").write_text("limits: {concurrency: 77}\n")
    await service.next()
    assert (service.taken[-1].limits.concurrency, service.taken[-1].limits.adapt) == (77, False)
    assert service.troubles == {"config": None}


async def test_a_file_that_is_replaced_is_taken_over_too(service, tmp_path):
    path = tmp_path / "service.yaml"
    path.unlink()
    await asyncio.sleep(0.1)  # it is looked at while there is none
    assert service.taken == []
    (tmp_path / "new").write_text("limits: {concurrency: 6}\n")
    (tmp_path / "new").rename(path)
    await service.next()
    assert service.taken[-1].limits.concurrency == 6


async def test_a_bad_one_changes_nothing_and_a_good_one_ends_the_trouble(service, tmp_path):
    path = tmp_path / "service.yaml"
    path.write_text("limits: {concurency: 5}\nservice: {port: x}\n")
    await service.next()
    assert service.taken == []
    assert service.troubles["config"].startswith(
        f"the changed config can not be used, so the one before holds on: {path}:1: limits.concurency: unknown key"
    )
    assert service.troubles["config"].endswith("(and 1 more)")
    path.write_text("limits: {concurrency: 9}\n")
    await service.next()
    assert service.taken[-1].limits.concurrency == 9
    assert service.troubles["config"] is None


async def test_what_takes_a_restart_is_said(service, tmp_path):
    service.later = ["service.port", "http"]
    (tmp_path / "service.yaml").write_text("service: {port: 5}\n")
    await service.next()
    assert service.troubles["config"] == "the config was changed in what takes a restart: service.port, http"


async def test_sighup_asks_for_it_whether_the_file_has_changed_or_not(service):
    os.kill(os.getpid(), signal.SIGHUP)
    await service.next()
    assert len(service.taken) == 1
