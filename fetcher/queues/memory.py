"""A queue in memory: for `fetcher get`, for tests, and for batches that may be lost with the process."""

from __future__ import annotations

from typing import Literal

from fetcher.settings import Duration, Settings


class MemoryQueueConfig(Settings):
    """Lost with the process; a run can not be resumed."""

    type: Literal["memory"] = "memory"
    lease: Duration = 60.0
    """How long a job may be held before it is given to somebody else; held leases are renewed in time."""
