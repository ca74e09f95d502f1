"""What an FTP URL asks for (RFC 1738, section 3.2; RFC 3986). Pure.

``ftp://host/dir/file;type=i``: the path is relative to where a login begins; one that begins with ``%2F`` is absolute.
What it decodes to goes into a command line, so what would end that line is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec
from yarl import URL

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from fetcher.model import Job

RETRIEVE, LISTING = "RETR", "LIST"
_PORT = 21
_IMPLICIT_PORT = 990
_TYPE = re.compile(r";type=([A-Za-z])$")
_TYPES = {"i": "I", "a": "A", "d": "A"}
_ENDS_A_LINE = re.compile(rb"[\r\n\x00]")
_BAD_IN_LOGIN = re.compile(rb"[\x00-\x1f\x7f\xff]")


class Target(msgspec.Struct, frozen=True):
    """A file or folder of a server. ``type`` is ``I`` for bytes as they are, ``A`` for lines of text.

    ``tls``: ``explicit`` asks for it on a connection that begins without, ``implicit`` begins with it.
    """

    host: str
    port: int
    path: bytes
    type: str
    listing: bool
    tls: str | None

    @property
    def argument(self) -> bytes:
        """The path behind the command for a listing: nothing, or what no server takes for an option of ``ls``."""
        path = self.path.rstrip(b"/") or self.path[:1]
        return b"./" + path if path.lstrip().startswith(b"-") else path


def target_of(job: Job) -> Target:
    """Return what a job asks for. Raises FetchError for what no command can ask for."""
    url = URL(job.url, encoded=True)
    path = url.raw_path + (f"?{url.raw_query_string}" if url.raw_query_string else "")
    found = _TYPE.search(path)
    letter = found[1].lower() if found is not None else "i"
    if letter not in _TYPES:
        raise _invalid(f";type={letter} is none of i, a and d (RFC 1738, section 3.2.2)")
    decoded = unquote_to_bytes(path[: found.start()] if found is not None else path)[1:]
    if _ENDS_A_LINE.search(decoded):
        raise _invalid("its path contains CR, LF or NUL, which no FTP command can have")
    if b"\xff" in decoded:
        raise _invalid("its path contains a byte that ends FTP commands (0xFF) and is in no text of UTF-8")
    listing = _is_listing(job, letter, decoded)
    port = url.explicit_port or _PORT
    tls = None if url.scheme == "ftp" else "implicit" if port == _IMPLICIT_PORT else "explicit"
    return Target(url.raw_host or "", port, decoded, "A" if listing else _TYPES[letter], listing, tls)


def check_login(value: bytes) -> None:
    """Raise FetchError for a user or password that would not stay in its command."""
    if _BAD_IN_LOGIN.search(value):
        message = "a user or password contains a control character, or a byte that no FTP command can have"
        raise FetchError(ErrorKind.INVALID_ROW, message, sent=False)


def _is_listing(job: Job, letter: str, path: bytes) -> bool:
    if job.method not in {None, RETRIEVE, LISTING}:
        message = f"method {job.method[:40]} is nothing that FTP knows; it is {RETRIEVE} or {LISTING}"
        raise FetchError(ErrorKind.INVALID_ROW, message, sent=False)
    return job.method == LISTING or letter == "d" or not path or path.endswith(b"/")


def _invalid(message: str) -> FetchError:
    return FetchError(ErrorKind.INVALID_URL, message, sent=False)
