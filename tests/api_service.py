"""The API on a real socket with a real keeper behind it, in the process of the test."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from fetcher.service.api.app import create_app, listen
from fetcher.service.api.desk import Desk
from fetcher.service.api.events import Events
from fetcher.service.keeper import Keeper
from fetcher.service.observing.snapshots import Snapshots
from fetcher.service.settings import ServiceConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fetcher.service.api.app import Listening

READY = "ready"
NDJSON = "application/x-ndjson"


def inline(*urls: str, **more: Any) -> dict[str, Any]:
    """Return a config that fetches these."""
    return {"sources": [{"type": "inline", "jobs": [{"url": url} for url in urls]}]} | more


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Facts:
    """What a service says of itself that is well."""

    state = READY
    concurrency = 100
    troubles = ()
    hosts = ()
    why = None


@dataclass
class Api:
    """A service that answers, and a client of it."""

    url: str
    config: ServiceConfig
    keeper: Keeper
    facts: Facts
    client: aiohttp.ClientSession
    listening: Listening

    @property
    def connections(self) -> int:
        """How many there are, as the service sees it."""
        return len(self.listening.runner.server.connections)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
        """Return status, headers, and the body: JSON as data, else as text."""
        async with self.client.request(method, self.url + path, **more) as answer:
            is_json = answer.content_type.endswith("json") and answer.content_type != NDJSON
            return answer.status, answer.headers, await (answer.json(content_type=None) if is_json else answer.text())

    async def submit(self, config: dict[str, Any], **headers: str) -> str:
        """Submit a batch and return its id."""
        status, _, body = await self.ask("POST", "/v1/batches", json=config, headers=headers)
        assert status in {200, 201}, body
        return str(body["id"])

    async def finished(self, config: dict[str, Any]) -> str:
        """Submit a batch and wait for its end; return its id."""
        batch = await self.submit(config)
        await self.keeper.wait(batch)
        return batch

    async def results(self, batch: str, **query: Any) -> tuple[list[dict[str, Any]], int, bool]:
        """Return records of a batch, the next cursor, and whether there is a link to more."""
        status, headers, text = await self.ask("GET", f"/v1/batches/{batch}/results", params=query)
        assert (status, headers["Content-Type"]) == (200, NDJSON), text
        return records(text), int(headers["Fetcher-Next-Cursor"]), "Link" in headers


@asynccontextmanager
async def api_service(folder: Path, **settings: Any) -> AsyncIterator[Api]:
    """Serve on a free port; batches may fetch from loopback, and read and write within the folder."""
    given = {"port": 0, "state_dir": str(folder / "state"), "files": str(folder)} | settings
    config = ServiceConfig.model_validate({"service": given, "http": {"guard": False}})
    keeper, facts, events = Keeper(config), Facts(), Events()
    await keeper.open()
    snapshots = Snapshots(keeper, facts)
    app = create_app(Desk(config, keeper, snapshots.get, snapshots.history, events))
    listening = await listen(app, config.service, shutdown_timeout=1.0)
    # A pool that is bounded would have tests of many clients wait in the client.
    client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    try:
        yield Api(listening.url, config, keeper, facts, client, listening)
    finally:
        await client.close()
        events.end()
        await listening.stop()
        await keeper.drain(5.0)
        await keeper.close()
