"""What several parts need of files: one owner at a time, and names that are there after a power cut."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# No pipe is waited for until somebody writes to it, and no terminal becomes that of this process.
_REGULAR = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


def open_regular(path: str | Path) -> int:
    """Open a file for reading. Raises OSError, also for what is none: a folder, a pipe, a device."""
    fd = os.open(path, _REGULAR)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file")
    return fd


def locked(fd: int) -> bool:
    """Lock a file or folder until it is closed, where the system can; tell whether nobody else has."""
    if sys.platform == "win32":
        return True
    import fcntl  # noqa: PLC0415  not on Windows

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable (fsync(2): the file's own fsync does not cover it)."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
