"""Scrapy: a spider that asks for every URL, with what would only slow it down turned off, on uvloop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import scrapy
from scrapy.crawler import CrawlerProcess

from benchmarks.contenders import Fetched, metered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scrapy.http import Response

    from benchmarks.contenders import Task

_PLAIN: dict[str, Any] = {
    "ASYNCIO_EVENT_LOOP": "uvloop.Loop",
    "COOKIES_ENABLED": False,
    "DNSCACHE_ENABLED": True,
    "DOWNLOAD_MAXSIZE": 0,
    "DOWNLOAD_WARNSIZE": 0,
    "LOG_ENABLED": False,
    "LOG_INSTALL_ROOT_HANDLER": False,
    "RETRY_ENABLED": False,
    "ROBOTSTXT_OBEY": False,
    "TELNETCONSOLE_ENABLED": False,
}


class _Spider(scrapy.Spider):
    name = "bench"

    def __init__(self, task: Task, fetched: Fetched) -> None:
        super().__init__()
        self._task = task
        self._fetched = fetched

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Ask for every URL."""
        for url in self._task.read():
            yield scrapy.Request(url, dont_filter=True)

    def parse(self, response: Response, **_: Any) -> None:
        """Count a response; only good ones arrive here."""
        self._fetched.add(response.body)


def fetch(task: Task) -> Fetched:
    """Crawl every URL, measured from the start of the engine to its end."""
    if task.ca:
        os.environ["SSL_CERT_FILE"] = str(task.ca)  # OpenSSL's own way, and the only one that Scrapy leaves
    settings = _PLAIN | {
        "CONCURRENT_REQUESTS": task.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": task.concurrency,
        "DOWNLOAD_VERIFY_CERTIFICATES": task.ca is not None,
        "REACTOR_THREADPOOL_MAXSIZE": 2,
    }
    process = CrawlerProcess(settings)
    with metered() as fetched:
        process.crawl(_Spider, task=task, fetched=fetched)
        process.start()
    return fetched
