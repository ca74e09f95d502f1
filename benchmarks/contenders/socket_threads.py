"""The blocking socket of the tutorials in a thread pool: the usual next step. A connection per request.

32 threads are the most that a ThreadPoolExecutor takes if it is not told otherwise.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.contenders import Fetched, metered
from benchmarks.contenders.blocking_socket import context_for, get

if TYPE_CHECKING:
    from benchmarks.contenders import Task


def fetch(task: Task) -> Fetched:
    """Fetch every URL with a pool of threads."""
    one = partial(get, context=context_for(task))
    with metered() as fetched, ThreadPoolExecutor(task.workers) as pool:
        for size in pool.map(one, task.read()):
            fetched.add(size)
    return fetched
