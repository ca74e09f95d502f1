"""aiohttp the way most people write it: a task for every URL at once, a semaphore, ``gather``, plain asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.contenders import Fetched, metered
from benchmarks.contenders.blocking_socket import context_for

if TYPE_CHECKING:
    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Fetch every URL from one ``gather``."""
    return asyncio.run(_fetch(task))


async def _fetch(task: Task) -> Fetched:
    semaphore = asyncio.Semaphore(task.concurrency)
    # The limit of 100 connections that a session has by default would silently be that of the run.
    connector = aiohttp.TCPConnector(limit=0, ssl=context_for(task) or True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get(url: str) -> bytes:
            async with semaphore, session.get(url, raise_for_status=True) as response:
                return await response.read()

        with metered() as fetched:
            for body in await asyncio.gather(*(get(url) for url in task.read())):
                fetched.add(body)
    return fetched
