"""What takes a secret out of texts of a server, which may repeat it whole, in some encoding, or in pieces.

A text that is quoted in a message was cut somewhere, may be in lower case, and has what `repr` makes of it. So messages
lose whatever looks like a piece of the secret; what something is done with (a URL, a header) loses the whole one alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "***"
LEAST_ANYWHERE = 8
"""A shorter secret may be a part of any word, so it is masked only where it stands alone."""
LEAST_PIECE = 6
"""So many characters in a row are taken for a piece of a secret."""

_PERCENT = re.compile(r"%(?:25)*([0-9A-Fa-f]{2})|.", re.DOTALL)
_AS_IT_IS = re.compile(r"(?!)(.)|.", re.DOTALL)
_ESCAPE = re.compile(r"\\+(?:x([89a-fA-F][0-9a-fA-F])|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|.", re.DOTALL)
_NO_WORD = re.compile(r"[^a-z0-9]")
# Bytes that are not UTF-8, as they stand in text (PEP 383).
_ESCAPED_BYTES = range(0xDC80, 0xDD00)
# What messages lose on their way, or have more of: a driver's arrows, escapes, and blanks that are none of a URL.
_LOST = "^\\\t\r\n"
_LAST = 0x10FFFF


class Mask:
    """Finds one secret. A server may have percent-encoded it, however often, or have shown it byte by byte."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._exact = _pattern(secret)
        self._any_case = re.compile(self._exact.pattern, re.IGNORECASE if len(secret) >= LEAST_ANYWHERE else 0)
        self._alone = re.compile(_forms(secret))
        self._is_long = len(secret) >= LEAST_ANYWHERE
        # One that has a percent sign in it may look as if it was encoded already.
        self._readings = [_PERCENT, _AS_IT_IS] if "%" in secret else [_PERCENT]
        written = {secret, *map(_as_bytes, (secret, secret.lower(), secret.upper()))}
        forms = [_plain(form, reading) for form in written for reading in self._readings]
        self._pieces = frozenset(piece for form in forms for piece in _pieces(form))

    def is_in(self, text: str) -> bool:
        """Tell whether the secret is in a text that is to be shown."""
        return self._any_case.search(text) is not None

    def is_all_of(self, text: str) -> bool:
        """Tell whether a text is the secret and nothing else."""
        return self._alone.fullmatch(text) is not None

    def is_surely_in(self, text: str) -> bool:
        """Tell whether a text has the secret in it, which can not be by chance."""
        return self._is_long and self._exact.search(text) is not None

    def shown(self, text: str) -> str:
        """Return a text without the secret."""
        return self._any_case.sub(MASK, text)

    def message(self, text: str) -> str:
        """Return a message without the secret, and without the pieces of it that are left where it was cut."""
        text = self.shown(text)
        for reading in self._readings:
            parts, end = [], 0
            for start, stop in self._found(text, reading):
                parts += [text[end:start], MASK]
                end = stop
            text = "".join([*parts, text[end:]])
        return text

    def repeats(self, text: str) -> bool:
        """Tell whether the secret is in a text, a piece of it, or the text in it, whatever has become of some signs."""
        words, secret = _NO_WORD.sub("", text.lower()), _NO_WORD.sub("", self._secret.lower())
        shorter, longer = sorted((words, secret), key=len)
        return shorter in longer or self.message(text) != text

    def _found(self, text: str, reading: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        """Yield where pieces are, those that overlap or touch as one."""
        units = _plain(text, reading)
        start = stop = -1
        for at, piece in enumerate(_pieces(units)):
            if piece not in self._pieces:
                continue
            if at > stop:
                if start >= 0:
                    yield units[start].start, units[stop - 1].end
                start = at
            stop = at + LEAST_PIECE
        if start >= 0:
            yield units[start].start, units[stop - 1].end


class _Unit(NamedTuple):
    """A character that a text stands for, in lower case, and where in it that is written."""

    character: str
    start: int
    end: int


def _pieces(units: list[_Unit]) -> Iterator[str]:
    written = "".join(unit.character for unit in units)
    return (written[at : at + LEAST_PIECE] for at in range(len(written) - LEAST_PIECE + 1))


def _plain(text: str, reading: re.Pattern[str]) -> list[_Unit]:
    """Return what a text stands for, with all encodings undone, and without what may be lost."""
    decoded = [
        _Unit(chr(int(match[1], 16)) if match[1] else match[0], match.start(), match.end())
        for match in reading.finditer(text)
    ]
    units = []
    for match in _ESCAPE.finditer("".join(unit.character for unit in decoded)):
        character = _character(match).lower()
        if len(character) == 1 and character not in _LOST:
            start, end = decoded[match.start()].start, decoded[match.end() - 1].end
            # A plus in a query is a space.
            units.append(_Unit(" " if character == "+" else character, start, end))
    return units


def _character(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    code = ord(match[0]) if digits is None else min(int(digits, 16), _LAST)
    return chr(code - 0xDC00 if code in _ESCAPED_BYTES else code)


def _as_bytes(text: str) -> str:
    """Return a text as it is shown byte by byte."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _pattern(secret: str) -> re.Pattern[str]:
    """Return what finds a secret: each of its bytes as it is or percent-encoded, however often that was done."""
    literal = _forms(secret)
    if len(secret) < LEAST_ANYWHERE:
        literal = rf"(?:(?<![0-9A-Za-z])|(?<=%[0-9A-Fa-f][0-9A-Fa-f])){literal}(?![0-9A-Za-z])"
    return re.compile(literal)


def _forms(secret: str) -> str:
    return "".join(map(_any_form, secret))


def _any_form(character: str) -> str:
    # A space is a plus in a query, and a plus that was not encoded is read as a space.
    characters = " +" if character in {" ", "+"} else character
    forms: Iterable[str] = {form for one in characters for form in _forms_of(one)}
    return f"(?:{'|'.join(sorted(forms))})"


def _forms_of(character: str) -> set[str]:
    shown = _as_bytes(character)
    encoded = "".join(f"%(?:25)*(?i:{ord(byte):02x})" for byte in shown)
    return {re.escape(character), re.escape(shown), encoded}
