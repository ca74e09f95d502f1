"""``http.client`` of the standard library: threads, each with one connection that is kept alive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection, HTTPSConnection
from threading import local
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.contenders import Fetched, metered
from benchmarks.contenders.blocking_socket import context_for

if TYPE_CHECKING:
    from benchmarks.contenders import Task


class _Client:
    """A connection for each thread that asks."""

    def __init__(self, task: Task) -> None:
        self._context = context_for(task)
        self._mine = local()

    def get(self, url: str) -> int:
        """Fetch one URL and return how long its body is."""
        parts = urlsplit(url)
        connection = getattr(self._mine, "connection", None) or self._connect(parts.netloc)
        connection.request("GET", f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        body = response.read()
        if response.status != HTTPStatus.OK:
            raise OSError(f"{url}: {response.status}")
        return len(body)

    def _connect(self, netloc: str) -> HTTPConnection:
        if self._context is None:
            self._mine.connection = HTTPConnection(netloc)
        else:
            self._mine.connection = HTTPSConnection(netloc, context=self._context)
        connection: HTTPConnection = self._mine.connection
        return connection


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a pool of threads."""
    client = _Client(task)
    with metered() as fetched, ThreadPoolExecutor(task.workers) as pool:
        for size in pool.map(client.get, task.read()):
            fetched.add(size)
    return fetched
