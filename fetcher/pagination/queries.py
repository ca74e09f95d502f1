"""Parameters in the query of a URL. All else in it stays as it is, byte for byte: it may be signed, or unusual."""

from __future__ import annotations

from urllib.parse import quote, unquote_plus


def parameter(url: str, name: str) -> str | None:
    """Return the value of a parameter, the first if there are several; None if there is none."""
    for piece in url.partition("?")[2].split("&"):
        key, _, value = piece.partition("=")
        if piece and unquote_plus(key) == name:
            return unquote_plus(value)
    return None


def with_parameter(url: str, name: str, value: str) -> str:
    """Return a URL, which has no fragment, with a parameter in the place of all that it has of that name.

    Raises ValueError for a value that can not be written as UTF-8.
    """
    base, _, query = url.partition("?")
    written = f"{quote(name, safe='')}={quote(value, safe='')}"
    pieces: list[str] = []
    for piece in query.split("&") if query else []:
        if not piece or unquote_plus(piece.partition("=")[0]) != name:
            pieces.append(piece)
        elif written:
            pieces.append(written)
            written = ""
    return f"{base}?{'&'.join([*pieces, written] if written else pieces)}"
