"""httpx: an AsyncClient with as many workers as may be in flight, on uvloop.

It keeps 20 idle connections, its default: its pool looks at every idle one for every request, so that keeping
all of them is five times slower than opening new ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import uvloop

from benchmarks.contenders import Fetched, metered
from benchmarks.contenders.blocking_socket import context_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a fixed number of workers on one client."""
    return uvloop.run(_fetch(task))


async def _fetch(task: Task) -> Fetched:
    urls = iter(task.read())
    limits = httpx.Limits(max_connections=task.concurrency, max_keepalive_connections=20)
    verify = context_for(task) or True
    async with httpx.AsyncClient(limits=limits, timeout=None, verify=verify, trust_env=False) as client:
        with metered() as fetched:
            async with asyncio.TaskGroup() as group:
                for _ in range(task.concurrency):
                    group.create_task(_work(client, urls, fetched))
        return fetched


async def _work(client: httpx.AsyncClient, urls: Iterator[str], fetched: Fetched) -> None:
    for url in urls:
        response = await client.get(url)
        response.raise_for_status()
        fetched.add(response.content)
