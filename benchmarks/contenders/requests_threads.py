"""``requests`` in a thread pool, a Session for each thread: what most blocking programs are made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TYPE_CHECKING

import requests

from benchmarks.contenders import Fetched, metered

if TYPE_CHECKING:
    from benchmarks.contenders import Task


class _Client:
    """A session for each thread that asks."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mine = local()

    def get(self, url: str) -> int:
        """Fetch one URL and return how long its body is."""
        session: requests.Session = getattr(self._mine, "session", None) or self._open()
        response = session.get(url)
        response.raise_for_status()
        return len(response.content)

    def _open(self) -> requests.Session:
        self._mine.session = session = requests.Session()
        session.trust_env = False  # else each request looks for a proxy and a .netrc
        if self._task.ca:
            session.verify = str(self._task.ca)
        return session


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a pool of threads."""
    client = _Client(task)
    with metered() as fetched, ThreadPoolExecutor(task.workers) as pool:
        for size in pool.map(client.get, task.read()):
            fetched.add(size)
    return fetched
