"""The bare aiohttp loop: what one would write by hand if nothing could ever go wrong. Keeps nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import uvloop

from benchmarks.contenders import Fetched, metered
from benchmarks.contenders.blocking_socket import context_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a fixed number of workers on one session."""
    return uvloop.run(_fetch(task))


async def _fetch(task: Task) -> Fetched:
    urls = iter(task.read())
    connector = aiohttp.TCPConnector(limit=0, ssl=context_for(task) or True)
    async with aiohttp.ClientSession(connector=connector) as session:
        with metered() as fetched:
            async with asyncio.TaskGroup() as group:
                for _ in range(task.concurrency):
                    group.create_task(_work(session, urls, fetched))
        return fetched


async def _work(session: aiohttp.ClientSession, urls: Iterator[str], fetched: Fetched) -> None:
    for url in urls:
        async with session.get(url) as response:
            body = await response.read()
        if response.ok:
            fetched.add(body)
