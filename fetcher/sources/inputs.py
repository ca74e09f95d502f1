"""The bytes of a file, a pipe or an object of a store, decompressed, block by block.

    LocalFile  objects.StoredObject     the bytes as they are kept
    Input                               those that ``Lines`` are made of

All of this blocks, and lives in one thread of its source; only the ``stopped`` event comes from outside.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zlib
from typing import TYPE_CHECKING, Any, Protocol

from fetcher.errors import SourceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if sys.platform != "win32":
    import select

if TYPE_CHECKING:
    import threading

BLOCK = 256 * 1024
"""Bytes that are read at once."""
PACKED = (".gz", ".zst")
"""The suffixes of what is decompressed."""

_POLL_MS = 100  # how late a reader of a silent pipe notices that it is to stop
_DAMAGED = (OSError, EOFError, zlib.error, zstd.ZstdError)


def path_advice() -> str:
    """Return what to tell whoever named a path that can not be opened."""
    # Not which folder that is: whoever reads this may be a client of a service, who is not to know.
    return "a path is relative to the working folder, in which fetcher was started"


def unpacked(path: str) -> str:
    """Return a path without the suffix that says how it is compressed."""
    return path.removesuffix(".gz").removesuffix(".zst")


class StoppedError(Exception):
    """The reading was given up from outside; nobody waits for its outcome."""


class Kept(Protocol):
    """Bytes as they are kept. ``live``: more of them may come at any time, and have to be waited for."""

    live: bool
    seekable: bool

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` of the next bytes, nothing at the end."""
        ...

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on at an offset; only if ``seekable``."""
        ...

    def tell(self) -> int:
        """Return the offset of the next byte; only if ``seekable``."""
        ...

    def wait(self, stopped: threading.Event) -> None:
        """Return once there is something to read, or ``stopped`` is set. Only asked if ``live``."""
        ...

    def shrank(self) -> bool:
        """Tell whether there is less of it than there was at first."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class LocalFile:
    """A file of this machine, or a pipe; the path ``-`` is stdin."""

    def __init__(self, path: str, name: str) -> None:
        # Not blocking, or the open would wait for a fifo's writer, and could not be stopped.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._fd = os.dup(0) if path == "-" else os.open(path, flags)
        except OSError as error:
            raise SourceError(f"{name}: can not be opened: {error.strerror}; {path_advice()}") from error
        status = os.fstat(self._fd)
        self._size = status.st_size
        regular = stat.S_ISREG(status.st_mode)
        packed = path.endswith(PACKED)
        if stat.S_ISDIR(status.st_mode) or (packed and not regular):
            os.close(self._fd)
            tool = "zstd -dc" if path.endswith(".zst") else "gunzip -c"
            advice = f"pass it through '{tool}' into stdin" if packed else "name a file in it"
            raise SourceError(f"{name}: is not a regular file; {advice}")
        self.live = not regular
        self.seekable = regular and path != "-"
        self._file = os.fdopen(self._fd, "rb", buffering=0)

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` of the next bytes. Raises BlockingIOError if a pipe has none."""
        return os.read(self._fd, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on at an offset."""
        return os.lseek(self._fd, offset, whence)

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def wait(self, stopped: threading.Event) -> None:
        """Return once a pipe has something."""
        # Windows can not poll a pipe: there, a silent stdin is given up at its next byte only.
        if sys.platform != "win32":
            poller = select.poll()
            poller.register(self._fd, select.POLLIN)
            while not stopped.is_set() and not poller.poll(_POLL_MS):
                pass

    def shrank(self) -> bool:
        """Tell whether the file was cut."""
        return not self.live and os.fstat(self._fd).st_size < self._size

    def close(self) -> None:
        """Close the file; stdin itself stays open."""
        self._file.close()


class Input:
    """The bytes that are to be read: decompressed if ``path`` ends so. Messages call them ``name``."""

    def __init__(self, kept: Kept, path: str, name: str, stopped: threading.Event) -> None:
        self.name = name
        self._kept = kept
        self._stopped = stopped
        self.live = kept.live
        self.seekable = kept.seekable and not path.endswith(PACKED)
        self._unpacked = _decompressor(kept, path)

    def read(self) -> bytes:
        """Return the next block, or nothing at the end. Waits only for a pipe, and not beyond ``stopped``."""
        while True:
            if self.live:
                self._kept.wait(self._stopped)
            if self._stopped.is_set():
                raise StoppedError
            try:
                data: bytes = self._unpacked.read(BLOCK)
            except BlockingIOError:
                continue  # somebody else reads the same terminal or pipe, and was faster
            except _DAMAGED as error:
                raise SourceError(f"{self.name}: can not be read on: {error}; repair it and resume") from error
            if not data and self._kept.shrank():
                raise SourceError(f"{self.name}: became shorter while it was read; put it back and resume")
            return data

    def seek(self, offset: int) -> None:
        """Go on at an offset; only if ``seekable``."""
        self._kept.seek(offset)

    def close(self) -> None:
        """Close what is read."""
        if self._unpacked is not self._kept:
            self._unpacked.close()
        self._kept.close()


def _decompressor(kept: Kept, path: str) -> Any:
    file: Any = kept  # it reads and seeks, which is all that they ask for
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    return zstd.ZstdFile(file) if path.endswith(".zst") else file
