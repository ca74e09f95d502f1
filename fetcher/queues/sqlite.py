"""A queue in one SQLite file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fetcher.settings import Duration, Settings


class SqliteQueueConfig(Settings):
    """Kept in one file, so that a run can be resumed after any kind of end."""

    type: Literal["sqlite"] = "sqlite"
    path: str = Field(default="", min_length=0)
    """The file; ``state/<name of the batch>.db`` if it is not given."""
    lease: Duration = 60.0
    """How long a job may be held before it is given to somebody else; held leases are renewed in time."""
    durability: Literal["flush", "fsync"] = "flush"
    """``flush`` survives the end of the process; ``fsync`` the end of the machine, at the cost of speed."""
