"""The bare aiohttp loop: what one would write by hand if nothing could ever go wrong. Keeps nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import uvloop

from benchmarks.contenders import Fetched, Task, main, metered

if TYPE_CHECKING:
    from collections.abc import Iterator


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a fixed number of workers on one session."""
    return uvloop.run(_fetch(task.urls.read_text(encoding="utf-8").split(), task.concurrency))


async def _fetch(urls: list[str], concurrency: int) -> Fetched:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with metered() as fetched:
            left = iter(urls)
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(_work(session, left, fetched))
        return fetched


async def _work(session: aiohttp.ClientSession, urls: Iterator[str], fetched: Fetched) -> None:
    for url in urls:
        async with session.get(url) as response:
            body = await response.read()
        if response.ok:
            fetched.count += 1
            fetched.bytes += len(body)


if __name__ == "__main__":
    main(fetch)
