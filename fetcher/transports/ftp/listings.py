"""The body of a listing: one JSON array of entries, whatever the server calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.transports.ftp.entries import Entry, Lines, familiar_entry, machine_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fetcher.model import Header
    from fetcher.transports.ftp.data import Transfer
    from fetcher.transports.watchdog import Watch

_NOTHING: Mapping[str, str] = {}


class Listing:
    """The lines of a listing as a JSON array of entries (``bodies.reading.Arriving``), put together as they come.

    Lines of LIST whose beginning nobody can read are left as they are: see ``content_type`` after ``begin``.
    """

    status: int | None = None
    headers: Sequence[Header] = ()
    fields = _NOTHING
    length_unknown = False

    def __init__(self, transfer: Transfer, watch: Watch, *, standard: bool) -> None:
        self._transfer = transfer
        self._watch = watch
        self._lines = Lines()
        self._read_line: Callable[[bytes], Entry | None] = machine_entry if standard else familiar_entry
        self._is_text = self._over = False
        self._count = 0
        self._ready: list[bytes] = []

    @property
    def content_type(self) -> str:
        """Of what type the body is."""
        return "text/plain; charset=utf-8" if self._is_text else "application/json"

    async def begin(self) -> None:
        """Read until there is a line from which the form of all of them can be told. Raises FetchError."""
        while not self._transfer.ended:
            lines = await self._more()
            self._ready += lines
            if any(not self._says_nothing(line) for line in lines):
                return

    async def read(self) -> bytes:
        """Return what has arrived, nothing at the end."""
        while not self._over:
            lines, self._ready = self._ready, []
            if not lines and not self._transfer.ended:
                lines = await self._more()
            body = b"".join(self._written(lines))
            if self._transfer.ended:
                self._over = True
                body += b"" if self._is_text else b"\n]\n" if self._count else b"[]\n"
            if body:
                return body
        return b""

    async def _more(self) -> list[bytes]:
        piece = await self._transfer.read()
        # A line may take longer than its pieces.
        self._watch.progress()
        return self._lines.feed(piece) if piece else self._lines.end()

    def _says_nothing(self, line: bytes) -> bool:
        """Tell whether the form can not be told from a line; if it can, and is none that is known, note that."""
        try:
            return self._read_line(line) is None
        except ValueError:
            self._is_text = True
            return False

    def _written(self, lines: Iterable[bytes]) -> Iterable[bytes]:
        if self._is_text:
            yield from (line + b"\n" for line in lines)
            return
        for line in lines:
            entry = self._entry(line)
            if entry is not None:
                yield (b",\n" if self._count else b"[\n") + msgspec.json.encode(entry)
                self._count += 1

    def _entry(self, line: bytes) -> Entry | dict[str, str] | None:
        try:
            return self._read_line(line)
        except ValueError:
            return {"line": line.decode("utf-8", "backslashreplace")}
