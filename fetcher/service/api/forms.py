"""multipart/form-data (RFC 7578), read by aiohttp, without what nobody sends before its first part."""

from __future__ import annotations

from aiohttp import MultipartReader

_LINE_BREAK = b"\r\n"


class FormReader(MultipartReader):
    """Reads a form that begins with its first part, at most one line break before it.

    A body may have lines before that, a preamble (RFC 2046, section 5.1.1), but no client sends one with a form. It
    would be skipped line by line, however long it is, and where it comes fast nothing else would have its turn.
    """

    async def _read_until_first_boundary(self) -> None:
        line = await self._readline()
        if line == _LINE_BREAK:
            line = await self._readline()
        line = line.rstrip()
        if line == self._boundary + b"--":
            self._at_eof = True
        elif line != self._boundary:
            raise ValueError("the form does not begin with its boundary")
