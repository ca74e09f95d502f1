"""A file that grows batch by batch and can be cut back to where the queue says that it was."""

from __future__ import annotations

from typing import Literal

from fetcher.settings import Settings
from fetcher import registry


class FileSinkConfig(Settings):
    """Records appended to one file."""

    type: Literal["file"] = "file"
    path: str
    format: registry.union("formats")
