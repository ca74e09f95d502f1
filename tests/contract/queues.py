"""Every queue there is, for the contract suite: a line here and a new queue has its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.queues.memory import MemoryQueue
from fetcher.queues.sqlite import SqliteQueue

if TYPE_CHECKING:
    from pathlib import Path

TERM = 60.0


def memory(folder: Path, clock):
    return MemoryQueue(lease=TERM, clock=clock)


def sqlite(folder: Path, clock):
    queue = SqliteQueue(folder / "queue.db", lease=TERM, clock=clock)
    queue._epoch = 0.0  # the wall clock, too, moves only when it is told to
    return queue


QUEUES = {"memory": memory, "sqlite": sqlite}
