"""Crawlee: an HttpCrawler with its own client, storage in memory, and concurrency held where it is asked for."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from crawlee import ConcurrencySettings
from crawlee.crawlers import HttpCrawler, HttpCrawlingContext
from crawlee.http_clients import ImpitHttpClient
from crawlee.storage_clients import MemoryStorageClient

from benchmarks.contenders import Fetched, UnableError, metered

if TYPE_CHECKING:
    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Crawl every URL, measured from the first that is put into its queue."""
    if task.ca:
        raise UnableError("has no way to trust an authority of one's own (impit)")
    logging.disable()
    return asyncio.run(_fetch(task))


async def _fetch(task: Task) -> Fetched:
    n = task.concurrency
    crawler = HttpCrawler(
        concurrency_settings=ConcurrencySettings(min_concurrency=n, desired_concurrency=n, max_concurrency=n),
        configure_logging=False,
        http_client=ImpitHttpClient(browser=None),
        max_request_retries=0,
        request_handler_timeout=timedelta(minutes=10),
        storage_client=MemoryStorageClient(),
        use_session_pool=False,
    )
    with metered() as fetched:

        @crawler.router.default_handler
        async def count(context: HttpCrawlingContext) -> None:
            fetched.add(await context.http_response.read())

        await crawler.run(task.read())
    return fetched
