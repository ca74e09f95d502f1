"""Lines of a listing, one entry each: MLSD, which is a standard (RFC 3659), and what LIST most often looks like. Pure.

An entry becomes ``{"name": ..., "type": ..., "size": ..., "modify": ...}``. ``type`` is file, dir, link or other;
``size`` in bytes and ``modify`` in UTC are null where they are not known. LIST says neither in which time zone nor, for
most, in which year its times are, so of those none is taken.
"""

from __future__ import annotations

import re

import msgspec

from fetcher.errors import ErrorKind, FetchError

_LONGEST_LINE = 64 * 1024
_MODIFIED = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d{1,6})?", re.ASCII)
_MONTHS = frozenset(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
_MODE = re.compile(r"[-a-zA-Z][-rwxsStTlL]{9}[.+@]?")
_KINDS = {"-": "file", "d": "dir", "l": "link"}
_TOTAL = re.compile(r"total \d+", re.ASCII | re.IGNORECASE)
_DOS_DATE = re.compile(r"\d\d-\d\d-\d\d(?:\d\d)?", re.ASCII)
_PARTS_OF_A_DOS_LINE = 4
_HERE = frozenset({".", ".."})


class Entry(msgspec.Struct):
    """A file or folder within the folder that was asked for."""

    name: str
    type: str
    size: int | None = None
    modify: str | None = None


class Lines:
    """Puts lines together of the pieces that a listing arrives in."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that are complete now, without their ends. Raises FetchError for one that does not end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise FetchError(ErrorKind.BAD_ANSWER, f"the listing has a line of more than {_LONGEST_LINE} bytes")
        return [line.rstrip(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """Return the last line, if that has no end."""
        rest, self._rest = self._rest, b""
        return [rest.rstrip(b"\r")] if rest else []


def machine_entry(line: bytes) -> Entry | None:
    """Read a line of MLSD; None for the folder itself and the one above. Raises FetchError if it is none."""
    facts_text, space, name = _text(line).partition(" ")
    if not space or not name or (facts_text and not facts_text.endswith(";")):
        raise FetchError(ErrorKind.BAD_ANSWER, f"a line of the listing is no MLSD (RFC 3659): {line[:100]!r}")
    facts = {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts_text.split(";"))}
    kind = facts.get("type", "").lower()
    if kind in {"cdir", "pdir"}:
        return None
    size = facts.get("size", "")
    return Entry(name, _kind(kind), _number(size) if kind != "dir" else None, _when(facts.get("modify", "")))


def familiar_entry(line: bytes) -> Entry | None:
    """Read a line of LIST as Unix or DOS write it; None for what is no entry. Raises ValueError if it is neither."""
    text = _text(line)
    if not text.strip() or _TOTAL.fullmatch(text.strip()):
        return None
    entry = _unix_entry(text) or _dos_entry(text)
    if entry is None:
        raise ValueError(text[:100])
    return None if entry.name in _HERE else entry


def _unix_entry(text: str) -> Entry | None:
    """Read ``-rw-r--r-- 1 owner group 1024 Jan  2 12:00 name``, in which the group may be missing."""
    if not _MODE.match(text[:11]):
        return None
    for before in (5, 4):
        parts = text.split(None, before + 3)
        if len(parts) == before + 4 and parts[before].lower() in _MONTHS and parts[before - 1].isdecimal():
            kind, name = _KINDS.get(text[0], "other"), parts[-1]
            name = name.partition(" -> ")[0] if kind == "link" else name
            return Entry(name, kind, _number(parts[before - 1]) if kind == "file" else None)
    return None


def _dos_entry(text: str) -> Entry | None:
    """Read ``01-02-26  03:04PM  <DIR>  name``, or a size in place of ``<DIR>``."""
    parts = text.split(None, 3)
    if len(parts) != _PARTS_OF_A_DOS_LINE or not _DOS_DATE.fullmatch(parts[0]):
        return None
    if parts[2].upper() == "<DIR>":
        return Entry(parts[3], "dir")
    size = _number(parts[2].replace(",", ""))
    return None if size is None else Entry(parts[3], "file", size)


def _kind(fact: str) -> str:
    if fact in {"file", "dir"}:
        return fact
    return "link" if "link" in fact else "other"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None  # noqa: PLR2004


def _when(fact: str) -> str | None:
    found = _MODIFIED.fullmatch(fact)
    return None if found is None else "{}-{}-{}T{}:{}:{}Z".format(*found.groups())


def _text(line: bytes) -> str:
    """Return a line as text. Names are UTF-8 (RFC 2640); the bytes of those that are not are written as escapes."""
    return line.decode("utf-8", "backslashreplace")
