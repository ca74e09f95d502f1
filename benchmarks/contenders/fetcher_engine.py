"""This project without durability: file source, engine and http transport, a queue and a count in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.batch_files import write_config
from benchmarks.contenders.fetcher_batch import measured
from fetcher.config import load
from fetcher.model import Outcome
from fetcher.queues.memory import MemoryQueueConfig
from fetcher.settings import Settings
from fetcher.testing import MemorySink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders import Fetched, Task
    from fetcher.model import Result


class _Count(Settings):
    """Stands where the config has a sink."""

    def build(self) -> _Counter:
        return _COUNTER


class _Counter(MemorySink):
    """Counts good responses and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def write(self, results: Sequence[Result]) -> str:
        self.sizes += [result.body_size or 0 for result in results if result.outcome is Outcome.OK]
        return str(len(self.sizes))


_COUNTER = _Counter()


def fetch(task: Task) -> Fetched:
    """Fetch every URL and keep nothing."""
    parts = {"queue": MemoryQueueConfig(), "sinks": [_Count()]}
    fetched = measured(load(write_config(task)).model_copy(update=parts))
    for size in _COUNTER.sizes:
        fetched.add(size)
    return fetched
