"""What batches are called: ids that are unique, sort by time within a name, and are safe as names of files."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from fetcher.config import ConfigProblems

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def batch_id_for(name: str, now: float) -> str:
    """Return a new id for a batch of that name; ``now`` in epoch seconds."""
    return f"{name}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def check_id(batch_id: str) -> None:
    """Raise ConfigProblems for an id that could not be the name of a file."""
    if not _ID.fullmatch(batch_id):
        raise ConfigProblems(["the id of a batch should be at most 200 letters, digits, '.', '-' and '_'"])
