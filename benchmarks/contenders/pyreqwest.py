"""pyreqwest: Rust's reqwest behind async functions; its own thread does the work, on the same core here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvloop
from pyreqwest.client import Client, ClientBuilder

from benchmarks.contenders import Fetched, metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a fixed number of workers on one client."""
    return uvloop.run(_fetch(task))


async def _fetch(task: Task) -> Fetched:
    urls = iter(task.read())
    builder = ClientBuilder().no_proxy().error_for_status().pool_max_idle_per_host(task.concurrency)
    if task.ca:
        builder = builder.add_root_certificate_pem(task.ca.read_bytes())
    async with builder.build() as client:
        with metered() as fetched:
            async with asyncio.TaskGroup() as group:
                for _ in range(task.concurrency):
                    group.create_task(_work(client, urls, fetched))
        return fetched


async def _work(client: Client, urls: Iterator[str], fetched: Fetched) -> None:
    for url in urls:
        response = await client.get(url).build().send()
        fetched.add(len(await response.bytes()))
