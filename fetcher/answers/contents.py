"""The body of a record as bytes, wherever it is kept, and as text, in whatever charset it came.

Which charset it is: a byte order mark says so, or else the Content-Type, or else the page itself in its first
1,024 bytes, and failing all these it is UTF-8 if it can be read so, or else windows-1252, as browsers have it
(WHATWG Encoding and HTML, section 13.2.3). What can not be read is replaced by U+FFFD, and then ``lossy`` is set.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fetcher.model import Result

_MOST = 32 * 1024 * 1024
_PRESCAN = 1024
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_IN_TYPE = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9._:+-]{1,40})", re.IGNORECASE)
_IN_PAGE = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,400}?(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9._:+-]{1,40})", re.IGNORECASE
)
# What the web calls these is windows-1252, which has letters where they have control characters.
_WESTERN = frozenset({"ascii", "iso8859-1", "cp1252"})
# Codecs of Python that are no charsets of documents, or that would hide text from whoever looks for it.
_REFUSED = frozenset({"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})


class Text(NamedTuple):
    """A body as text, the charset it was read in, and whether something was lost or guessed on the way."""

    text: str
    charset: str
    lossy: bool


def body_of(result: Result) -> bytes | None:
    """Return the body of a record, None if it has none. Reads its file if it has one of its own: call it on a thread.

    Raises ValueError for a body that is still coded, or too large to be held, and OSError.
    """
    if result.content_encoding is not None and (result.body is not None or result.body_path is not None):
        raise ValueError(f"the body is still coded as {result.content_encoding[:60]}")
    if result.body is not None or result.body_path is None:
        return result.body
    path = Path(result.body_path)
    size = path.stat().st_size
    if size > _MOST:
        raise ValueError(f"the body has {size} bytes, and only up to {_MOST} are read")
    return path.read_bytes()


def text_of(body: bytes, content_type: str | None) -> Text:
    """Return a body as text."""
    for mark, charset in _MARKS:
        if body.startswith(mark):
            return _read(body[len(mark) :], charset)
    declared = _declared(body, content_type)
    if declared is not None:
        return _read(body, declared)
    try:
        return Text(body.decode("utf-8"), "utf-8", lossy=False)
    except UnicodeDecodeError:
        return Text(body.decode("cp1252", "replace"), "windows-1252", lossy=True)


def _declared(body: bytes, content_type: str | None) -> str | None:
    """Return the charset that the head or the page names, if there is such a one."""
    in_type = _IN_TYPE.search(content_type or "")
    in_page = _IN_PAGE.search(body[:_PRESCAN])
    named = [in_type[1]] if in_type else []
    if in_page:
        # A page that can be searched for ASCII letters is not in UTF-16, whatever it says.
        inside = in_page[1].decode("ascii")
        named.append("utf-8" if inside.lower().startswith("utf-16") else inside)
    return next((charset for name in named if (charset := _known(name)) is not None), None)


def _known(name: str) -> str | None:
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    canonical = found.name.replace("_", "-")
    if canonical in _REFUSED or not getattr(found, "_is_text_encoding", True):
        return None
    return "windows-1252" if canonical in _WESTERN else found.name


def _read(body: bytes, charset: str) -> Text:
    try:
        return Text(body.decode(charset), charset, lossy=False)
    except (UnicodeDecodeError, UnicodeError):
        return Text(body.decode(charset, "replace"), charset, lossy=True)
