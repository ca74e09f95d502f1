"""Going on with a download where it stopped (RFC 3659, section 5): pure decisions.

FTP has no entity tags. What tells two versions of a file apart is its size and when it was changed (MDTM), which counts
to the second: one that was changed within the last minute may be changed again within the same second, unseen. So only
the beginning of a file that has been left alone for that long is kept to be gone on with.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fetcher.transports.bodies.ranges import Partial

if TYPE_CHECKING:
    from fetcher.transports.ftp.replies import Reply

_SETTLED = 60.0
_MODIFIED = re.compile(rb"\s*([0-9]{14})(?:\.[0-9]{1,9})?\s*")
_SIZE = re.compile(rb"\s*([0-9]{1,18})\s*")
_FILE_STATUS = 213


def size_of(reply: Reply | None) -> int | None:
    """Return how many bytes a file has by the reply to SIZE, None if that does not say."""
    found = _SIZE.fullmatch(reply.text) if reply is not None and reply.code == _FILE_STATUS else None
    return None if found is None else int(found[1])


def validator_of(size: int, reply: Reply | None, now: float) -> str | None:
    """Return what tells this version of a file from others, by the reply to MDTM; None if nothing does."""
    found = _MODIFIED.fullmatch(reply.text) if reply is not None and reply.code == _FILE_STATUS else None
    if found is None:
        return None
    try:
        changed_at = datetime.strptime(found[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return f"{found[0].strip().decode()} {size}" if now - changed_at >= _SETTLED else None


def to_go_on_with(known: Partial | None, beginning: Partial, most: int) -> Partial:
    """Return the beginning that is there if it is of the same version and as much to be believed, else an empty one.

    ``beginning`` is what would be kept of the file as it is now. Nothing behind ``most`` bytes is asked for.
    """
    if known is None or (known.validator, known.verified) != (beginning.validator, beginning.verified):
        return beginning
    start = known.resume_at()
    if not 0 < start < most:
        return beginning
    return Partial(beginning.url, beginning.validator, beginning.total, start, beginning.verified)
