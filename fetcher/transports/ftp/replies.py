"""What an FTP server answers (RFC 959, section 4.2), and which failure a refusal is. Bounded in every direction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

CLOSING = 421
NOT_LOGGED_IN = 530
_UNKNOWN = frozenset({500, 502, 504})
_LONGEST_REPLY = 64 * 1024
_LONGEST_SHOWN = 200
_LONGEST_QUOTED = 100
# A code alone is against the rules, and does no harm.
_LINE = re.compile(rb"([1-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_TRANSIENT = 400
_PERMANENT = 500
# Servers that are full say so by the code of a wrong password; those that lock accounts count attempts, too.
_FULL = re.compile(rb"too many|maximum|\bmax\b|\blimit|try again|try later|\bbusy\b", re.IGNORECASE)
_WRONG = re.compile(rb"password|incorrect|invalid|fail|attempt|denied|wrong|unknown", re.IGNORECASE)


class Reply(msgspec.Struct, frozen=True):
    """A reply: its code, and its text, the lines of it joined by spaces."""

    code: int
    text: bytes

    @property
    def preliminary(self) -> bool:
        """Whether another reply to the same command follows."""
        return self.code < 200  # noqa: PLR2004

    @property
    def positive(self) -> bool:
        """Whether the command has been done."""
        return 200 <= self.code < 300  # noqa: PLR2004

    @property
    def unknown(self) -> bool:
        """Whether the server does not know the command, or not with such a parameter."""
        return self.code in _UNKNOWN

    @property
    def full(self) -> bool:
        """Whether the server has too much to do to let somebody in, whoever that is."""
        return self.code == NOT_LOGGED_IN and bool(_FULL.search(self.text)) and not _WRONG.search(self.text)

    def shown(self, secrets: Sequence[bytes] = ()) -> str:
        """Return it as a message can have it: in printable characters, not too long, and without secrets."""
        text = _without(secrets, self.text)
        words = " ".join(text.decode("utf-8", "backslashreplace").split())
        shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in words)
        return f"{self.code} {shown}"[:_LONGEST_SHOWN]


async def read_reply(reader: asyncio.StreamReader, secrets: Sequence[bytes] = ()) -> Reply:
    """Return the next reply. Raises FetchError for what is none, and for the end of the connection; OSError.

    A message that quotes what is no reply has none of ``secrets``: some servers repeat what they were told.
    """
    line = await _line(reader)
    found = _LINE.fullmatch(line)
    if found is None:
        begins = _without(secrets, line)[:_LONGEST_QUOTED]
        raise FetchError(ErrorKind.BAD_ANSWER, f"the answer is not FTP; it begins with {begins!r}")
    code, text = found[1], found[3] or b""
    if found[2] != b"-":
        return Reply(int(code), text)
    lines, size = [text], len(text)
    while True:
        line = await _line(reader)
        ended = line == code or line.startswith(code + b" ")
        lines.append(line[len(code) + 1 :] if ended else line)
        size += len(line)
        if ended:
            return Reply(int(code), b" ".join(lines))
        if size > _LONGEST_REPLY or len(lines) > _LONGEST_REPLY // 16:
            raise FetchError(ErrorKind.BAD_ANSWER, f"a reply of more than {_LONGEST_REPLY} bytes")


def refusal(reply: Reply, what: str, secrets: Sequence[bytes] = ()) -> FetchError:
    """Return the failure that a reply to ``what`` is, which is not as it should be."""
    message = f"{what}: {reply.shown(secrets)}"
    if reply.code == NOT_LOGGED_IN and not reply.full:
        return FetchError(ErrorKind.AUTH_FAILED, message)
    if reply.code >= _PERMANENT and not reply.full:
        return FetchError(ErrorKind.FTP_5XX, message)
    if reply.code >= _TRANSIENT:
        return FetchError(ErrorKind.FTP_4XX, message)
    return FetchError(ErrorKind.BAD_ANSWER, f"{message}, which is no answer to that")


def _without(secrets: Sequence[bytes], text: bytes) -> bytes:
    """Return a text with stars for secrets, the longest first: one may be within another."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, b"***")
    return text


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return a line without its end, which a server may write as LF alone."""
    try:
        line = await reader.readline()
    except ValueError as error:  # longer than the buffer
        raise FetchError(ErrorKind.BAD_ANSWER, "a reply with a line that does not end") from error
    if not line.endswith(b"\n"):
        where = "in the middle of a reply" if line else "without a reply"
        raise FetchError(ErrorKind.SERVER_DISCONNECTED, f"the server closed the connection {where}")
    return line.rstrip(b"\r\n")
