"""The lines of an input: read in blocks, bounded, with positions to resume at. Their bytes come from ``inputs.Input``.

Lines       physical lines, and where the reading stands
Position    just after a line, as it is kept across runs
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import SourceError

if TYPE_CHECKING:
    from fetcher.sources.inputs import Input

_OVERLAP = 64  # bytes before a position that must be as they were
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Position(msgspec.Struct):
    """Just after a line: its number, the offset after it, and a checksum of the bytes before that."""

    offset: int
    line: int
    crc: int


class Lines:
    """The physical lines of an input, without line feeds; of one over ``limit`` only the start is held."""

    def __init__(self, source: Input, limit: int) -> None:
        self._input = source
        self._limit = limit
        self._block = b""
        self._start = 0  # in the block, of the next line
        self._base = 0  # of the block, in the input
        self.keep: int | None = None  # lines from this offset on can be gone back to
        self.line = 0  # number of the last line handed out
        self.ended = False

    @property
    def offset(self) -> int:
        """Where the next line starts."""
        return self._base + self._start

    @property
    def waits(self) -> bool:
        """Whether the next line would have to be waited for."""
        return self._input.live and not self.ended and self._block.find(b"\n", self._start) < 0

    def next(self) -> bytes | None:
        """Return the next line, or None at the end; one over the limit is cut to a byte more than that."""
        end = self._block.find(b"\n", self._start)
        while end < 0:
            searched = len(self._block) - self._start
            if searched > self._limit:
                return self._overlong()
            if not self._fill():
                if self._start == len(self._block):
                    self.ended = True
                    return None
                end = len(self._block)
                break
            end = self._block.find(b"\n", self._start + searched)
        line = self._block[self._start : min(end, self._start + self._limit + 1)]
        self._start = min(end + 1, len(self._block))
        self.line += 1
        return line if self.line > 1 else line.removeprefix(_BOM)

    def sniff(self) -> None:
        """Look at the first bytes. Raises SourceError if no line of this input could be read."""
        if self._fill() and self._block.startswith(_UTF16):
            advice = "convert it to UTF-8, as with 'iconv -f UTF-16 -t UTF-8'"
            raise SourceError(f"{self._input.name}: is UTF-16; {advice}")

    def rewind(self, offset: int, line: int) -> bool:
        """Go back to the start of a line at or after ``keep``; False if it is no longer held."""
        if offset < self._base:
            return False
        self._start, self.line, self.ended = offset - self._base, line, False
        return True

    def position(self) -> str:
        """Return where the next line starts, for ``skip_to``."""
        crc = zlib.crc32(self._block[max(0, self._start - _OVERLAP) : self._start])
        return msgspec.json.encode(Position(self.offset, self.line, crc)).decode()

    def skip_to(self, position: Position) -> None:
        """Go to a position of an earlier reading. Raises SourceError if this is not what was read then."""
        self.keep = None  # or a header that is long gone would hold on to everything after it
        if self._input.seekable:
            self._base, self._block = max(0, position.offset - _OVERLAP), b""
            self._input.seek(self._base)
        self._start = min(position.offset - self._base, len(self._block))
        while (self._base + len(self._block)) < position.offset:
            self._start = len(self._block)
            if not self._fill():
                raise self._changed("it ends before that", position)
        self._start, self.line = position.offset - self._base, position.line
        before = self._block[max(0, self._start - _OVERLAP) : self._start]
        if zlib.crc32(before) != position.crc:
            raise self._changed("it has other lines", position)
        # A last line without line end may have got one since, and lines after it; but not more text.
        if not before.endswith(b"\n") and (self.next() or b"").rstrip(b"\r"):
            raise self._changed("that line goes on", position)
        self.line = position.line

    def _fill(self) -> bool:
        """Put the next block behind what is still needed; False at the end."""
        data = self._input.read()
        kept = self._start if self.keep is None else min(self._start, self.keep - self._base)
        cut = max(0, kept - _OVERLAP)
        self._block = self._block[cut:] + data
        self._base += cut
        self._start -= cut
        return bool(data)

    def _overlong(self) -> bytes:
        """Return the start of a line and drop the rest of it, however long."""
        line = self._block[self._start : self._start + self._limit + 1]
        end = -1
        while end < 0:
            dropped = max(0, len(self._block) - _OVERLAP)
            self._base += dropped
            data = self._input.read()
            self._block = self._block[dropped:] + data
            end = self._block.find(b"\n") if data else len(self._block) - 1
        self._start = end + 1
        self.line += 1
        return line

    def _changed(self, what: str, position: Position) -> SourceError:
        return SourceError(
            f"{self._input.name}: changed since the batch was started: {what}; the batch stands after line "
            f"{position.line} at byte {position.offset}; put the file back, or start over with a new batch"
        )
