"""Where an answer ends that arrives as a mere stream of bytes. Pure: bytes are passed in, nothing is awaited.

How a stream falls into reads says nothing: a delimiter may begin in one and end in another, and so may a character of
UTF-8, which is why bytes stay bytes here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fetcher.model import Receive

_SHOWN = 40


class Ending(Protocol):
    """How the end of one answer is known. Made anew for each.

    ``closes``: the answer may end with the connection, and then nothing proves that it is whole. ``quiet``: for how
    many seconds nothing more has to come for it to be over, None if silence says nothing.
    """

    closes: bool
    quiet: float | None

    def take(self, data: bytes) -> int | None:
        """Take the bytes that come next: return how many of them belong to the answer if it ends here, else None."""
        ...

    def missing(self) -> str:
        """Say, for a message, what has not arrived of an answer that broke off."""
        ...


class WithConnection:
    """The answer ends when the server closes the connection, or when nothing has come for ``quiet`` seconds."""

    closes = True

    def __init__(self, quiet: float | None = None) -> None:
        self.quiet = quiet

    def take(self, data: bytes) -> int | None:  # noqa: ARG002  whatever it is, it is no end
        """Return None: no byte is the last one."""
        return None

    def missing(self) -> str:
        """Say what its end would have been."""
        return "its end"


class AtLength:
    """The answer has so many bytes."""

    closes = False
    quiet: float | None = None

    def __init__(self, length: int) -> None:
        self._length = length
        self._left = length

    def take(self, data: bytes) -> int | None:
        """Return how many bytes were left, if there are as many."""
        if len(data) >= self._left:
            return self._left
        self._left -= len(data)
        return None

    def missing(self) -> str:
        """Say how many there have to be."""
        return f"all of its {self._length} bytes"


class AtDelimiter:
    """The answer ends with these bytes, where they first appear; they belong to it."""

    closes = False
    quiet: float | None = None

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._tail = b""  # what the delimiter may have begun with, always shorter than it

    def take(self, data: bytes) -> int | None:
        """Return how many bytes there are up to the end of the delimiter, once it is whole."""
        tail = self._tail
        joined = tail + data if tail else data
        at = joined.find(self._delimiter)
        if at >= 0:
            return at + len(self._delimiter) - len(tail)
        kept = len(self._delimiter) - 1
        self._tail = joined[-kept:] if kept else b""
        return None

    def missing(self) -> str:
        """Say what it is."""
        shown = ascii(self._delimiter[:_SHOWN])[1:]
        return f"its delimiter {shown}{'...' if len(self._delimiter) > _SHOWN else ''}"


def ending_of(receive: Receive | None) -> Ending:
    """Return what a job, or a section of a config, says of the end of an answer: by default that of the connection."""
    if receive is None:
        return WithConnection()
    if receive.delimiter is not None:
        return AtDelimiter(receive.delimiter)
    if receive.length is not None:
        return AtLength(receive.length)
    return WithConnection(receive.quiet)
