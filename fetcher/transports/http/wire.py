"""HTTP/1.1 responses as bytes (RFC 9112). Pure: bytes are passed in, nothing is awaited.

What is not plainly right is refused, as a body that was cut at the wrong place can not be trusted. What is tolerated:

- A head whose lines end in LF alone (RFC 9112, section 2.2). In the framing of chunks only CRLF ends a line.
- obs-fold: a field that goes on in the next line, which becomes one line with a space (section 5.2).
- Several Content-Length with one value, which are one (section 6.3). Different ones are kind ``bad_http``.
- ``Transfer-Encoding: identity`` alone, which says nothing. Transfer-Encoding with a Content-Length is ``bad_http``.
- Bytes after a complete response, which stands. Its connection is not used again.
- A response without Content-Length and chunks, which ends with its connection. It is marked, for nothing proves that
  it is whole.

Values are read as ISO-8859-1, so that every byte of them is kept and ``.encode("latin-1")`` gives it back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Header

if TYPE_CHECKING:
    from collections.abc import Callable


_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n\0]*)?\r\n")
# Possessive where two parts could share blanks: a head full of them must not cost the square of its length.
_FIELD_LINE = re.compile(r"(?m)^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*+([^\r\n\0]*+)\r\n")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_OBS_FOLD = re.compile(r"(?<![ \t])[ \t]*+\r?\n[ \t]++")
_BARE_LF = re.compile(r"(?<!\r)\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")
_BEGINNING = b"HTTP/"
_MOST_INTERIM = 8
_SWITCHING = 101
_FIRST_FINAL = 200
_NO_CONTENT = 204
_BODYLESS = frozenset({_NO_CONTENT, 304})
_NONE = frozenset({None, "0"})
_LONGEST_CHUNK_LINE = 4096
# Lines of chunks may take so many bytes, and so many for each byte of the body, which chunks of one byte need.
_FREE_FRAMING = 1024 * 1024
_FRAMING = 16
_LONGEST_LENGTH = 18
_SHOWN = 60


class Bounds(msgspec.Struct, frozen=True):
    """How large a head may be: bytes, trailers and each interim response for themselves, and fields."""

    size: int = 256 * 1024
    fields: int = 256


class Fields(dict[str, str]):
    """Fields by their names, in whatever case; of several with one name, the first."""

    def __init__(self, headers: list[Header]) -> None:
        super().__init__([(name.lower(), value) for name, value in reversed(headers)])

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return the value of a field."""
        return super().get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


class Head(msgspec.Struct):
    """The head of a response. ``version`` is 1.0 or 1.1."""

    status: int
    version: str
    headers: list[Header]
    fields: Fields


class ResponseParser:
    """Reads one response, interim ones before it included.

    ``head`` is there once it has arrived; ``complete`` is True from the last byte on; ``excess`` is what came after.
    ``waiting`` counts the bytes that ``take`` would return, ``received`` all bytes of the body.
    """

    __slots__ = (
        "_beginning",
        "_bounds",
        "_buffer",
        "_feed_body",
        "_framing",
        "_interim",
        "_left",
        "_pieces",
        "_trailer",
        "_without_body",
        "complete",
        "excess",
        "head",
        "length",
        "length_unknown",
        "received",
        "reusable",
        "started",
        "waiting",
    )

    def __init__(self, method: str, bounds: Bounds) -> None:
        self._bounds = bounds
        self._without_body = method == "HEAD"
        self._beginning = bytearray()
        self._buffer = b""
        self._feed_body: Callable[[bytes], None] = self._feed_length
        self._framing = 0
        self._interim = 0
        self._left = 0
        self._trailer = 0
        self._pieces: list[bytes] = []
        self.head: Head | None = None
        self.length: int | None = None
        self.length_unknown = False
        self.complete = False
        self.reusable = False
        self.started = False
        self.excess = b""
        self.waiting = 0
        self.received = 0

    def feed(self, data: bytes) -> None:
        """Read on. Raises FetchError if this is no response, or one whose end can not be known."""
        self.started = True
        if self.head is None:
            data = self._feed_head(data)
        if not data:
            return
        if self.complete:
            self._overflow(data)
        else:
            self._feed_body(data)

    def take(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.waiting = 0
        return data

    def end(self, *, reset: bool) -> None:
        """Note the end of the connection. Raises FetchError if the body was not complete."""
        if self.complete:
            return
        if self.length_unknown and not reset:
            self.complete = True
            return
        how = "was reset" if reset else "ended"
        if self.length is not None:
            where = f"after {self.received} of {self.length} bytes"
        else:
            where = "in the middle of the body" if self.length_unknown else "before the last chunk"
        raise FetchError(ErrorKind.BODY_INCOMPLETE, f"the connection {how} {where}")

    # The head

    def _feed_head(self, data: bytes) -> bytes:
        """Read heads up to the final one; return what is behind it."""
        buffer: bytes | bytearray = data
        searched = 0
        if self._beginning:
            # An end may have begun with the last three bytes that were there before.
            searched = max(0, len(self._beginning) - 3)
            self._beginning += data
            buffer = self._beginning
        while True:
            end = buffer.find(b"\r\n\r\n", searched)
            head = None
            if 0 <= end < self._bounds.size:
                head, rest = _read_head(bytes(buffer[: end + 2])), buffer[end + 4 :]
            if head is None:
                end = self._end_of_unusual_head(buffer, searched)
                if not end:
                    if buffer is not self._beginning:
                        self._beginning = bytearray(buffer)
                    return b""
                head, rest = _read_unusual_head(bytes(buffer[:end])), buffer[end:]
            if len(head.headers) > self._bounds.fields:
                raise _too_large(f"more than {self._bounds.fields} header fields")
            if head.status >= _FIRST_FINAL or self._is_last(head):
                self._beginning = bytearray()
                self.head = head
                self._begin_body(head)
                return bytes(rest)
            self._pass_over(head)
            buffer, searched = rest, 0

    def _end_of_unusual_head(self, buffer: bytes | bytearray, searched: int) -> int:
        """Return where a head ends whose lines do not all end in CRLF, or 0 if more has to arrive."""
        start = bytes(buffer[: len(_BEGINNING)])
        if start != _BEGINNING[: len(start)]:
            shown = repr(bytes(buffer[:_SHOWN]).partition(b"\n")[0].rstrip(b"\r"))
            raise FetchError(ErrorKind.NOT_HTTP, f"the answer is not HTTP; it begins with {shown}")
        found = _END_OF_HEAD.search(buffer, searched)
        end = found.end() if found else 0
        if (end or len(buffer)) > self._bounds.size + 4:
            raise _too_large(f"a head of more than {self._bounds.size} bytes")
        return end

    def _is_last(self, head: Head) -> bool:  # noqa: ARG002  whoever asks for an upgrade has an answer
        """Tell whether nothing of http follows a head whose status is an interim one."""
        return False

    def _pass_over(self, head: Head) -> None:
        """Note an interim response (RFC 9110, section 15.2)."""
        if head.status == _SWITCHING:
            raise _bad("the server switched protocols without being asked")
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            raise _bad(f"more than {_MOST_INTERIM} interim responses")

    # The body

    def _begin_body(self, head: Head) -> None:
        """Find out how the body ends (RFC 9112, section 6.3)."""
        fields = head.fields
        connection = fields.get("connection")
        self.reusable = head.version == "1.1" if connection is None else _keeps(connection, head.version)
        coding = fields.get("transfer-encoding")
        length = fields.get("content-length")
        if self._without_body or head.status in _BODYLESS:
            self.complete = True
            if not self._without_body and (coding is not None or (head.status == _NO_CONTENT and length not in _NONE)):
                # It speaks of a body that there can not be; that may still come.
                self.reusable = False
            return
        if coding is not None:
            # Of HTTP/1.0, which did not know it (RFC 9112, section 6.1).
            self.reusable = self.reusable and head.version == "1.1"
            if self._is_chunked(head):
                return
        if length is None:
            self.length_unknown, self.reusable = True, False
            self._feed_body = self._feed_to_end
            return
        if len(fields) != len(head.headers) or not is_length(length):
            length = _one_length(head)
        self.length = self._left = int(length)
        self.complete = not self._left

    def _is_chunked(self, head: Head) -> bool:
        values = [value for name, value in head.headers if name.lower() == "transfer-encoding"]
        codings = [coding.strip(" \t").lower() for value in values for coding in value.split(",")]
        if codings == ["identity"]:
            return False
        if codings != ["chunked"]:
            shown = ", ".join(codings)[:_SHOWN]
            raise _bad(f"a transfer coding that was not asked for: {shown!r}")
        if "content-length" in head.fields:
            raise _bad("Transfer-Encoding together with Content-Length")
        self._feed_body = self._feed_chunk_size
        return True

    def _feed_length(self, data: bytes) -> None:
        left = self._left
        if len(data) > left:
            data, excess = data[:left], data[left:]
            self._keep(data)
            self.complete = True
            self._overflow(excess)
            return
        self._keep(data)
        self._left = left = left - len(data)
        self.complete = not left

    def _feed_to_end(self, data: bytes) -> None:
        self._keep(data)

    def _feed_chunk_size(self, data: bytes) -> None:
        """Read on at the beginning of a chunk, and all the chunks that are there."""
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        at = 0
        while not self.complete:
            end = data.find(b"\r\n", at, at + _LONGEST_CHUNK_LINE)
            if end < 0:
                self._buffer = _unfinished(data[at:], _LONGEST_CHUNK_LINE, "the size of a chunk")
                return
            size = _chunk_size(data[at:end])
            self._count_framing(end - at)
            at = end + 2
            if not size:
                self._feed_body = self._feed_trailer
                self._feed_trailer(data[at:])
                return
            if len(data) - at < size + 2:
                self._left = size
                self._feed_body = self._feed_chunk
                self._feed_chunk(data[at:])
                return
            self._keep(data[at : at + size])
            at += size
            if data[at : at + 2] != b"\r\n":
                raise _bad("a chunk is longer than it says")
            at += 2

    def _count_framing(self, line: int) -> None:
        self._framing += line
        if self._framing > _FREE_FRAMING + _FRAMING * self.received:
            raise _bad(f"the lines of chunks take {self._framing} bytes, for {self.received} bytes of a body")

    def _feed_chunk(self, data: bytes) -> None:
        """Read on within a chunk, or at the line break behind it."""
        left = self._left
        if left:
            piece = data if len(data) <= left else data[:left]
            self._keep(piece)
            self._left = left - len(piece)
            data = data[left:]
        if not data:
            return
        data = self._buffer + data
        if data[:2] != b"\r\n"[: len(data)]:
            raise _bad("a chunk is longer than it says")
        self._buffer = b""
        if len(data) == 1:
            self._buffer = data
            return
        self._feed_body = self._feed_chunk_size
        if len(data) > 2:  # noqa: PLR2004  the line break
            self._feed_chunk_size(data[2:])

    def _feed_trailer(self, data: bytes) -> None:
        """Pass over trailer fields, which nobody here trusts, to the empty line behind them."""
        data = self._buffer + data if self._buffer else data
        at = 0
        while True:
            end = data.find(b"\r\n", at)
            if self._trailer + (end if end >= 0 else len(data)) > self._bounds.size:
                raise _too_large(f"trailers of more than {self._bounds.size} bytes")
            if end < 0:
                self._buffer = data[at:]
                self._trailer += at
                return
            if end == at:
                self._buffer = b""
                self.complete = True
                if len(data) > end + 2:
                    self._overflow(data[end + 2 :])
                return
            at = end + 2

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self.waiting += len(data)
            self.received += len(data)

    def _overflow(self, data: bytes) -> None:
        """Note that something follows a complete response: its connection can not be trusted any more."""
        self.reusable = False
        self.excess = self.excess or data[:_SHOWN]


def _read_head(data: bytes) -> Head | None:
    """Read a head that is plainly right, in a few calls; None for any other."""
    text = data.decode("latin-1")
    line = _STATUS_LINE.match(text)
    if line is None:
        return None
    headers: list[Header] = _FIELD_LINE.findall(text, line.end())
    # Every line is a field if there are as many fields as lines.
    if text.count("\n", line.end()) != len(headers):
        return None
    if " \r" in text or "\t\r" in text:
        headers = [(name, value.rstrip(" \t")) for name, value in headers]
    return Head(int(line[2]), "1.1" if line[1] == "1" else "1.0", headers, Fields(headers))


def _read_unusual_head(data: bytes) -> Head:
    """Read a head with obs-fold or lines that end in LF alone. Raises FetchError for what is no head."""
    text = data.decode("latin-1").rstrip("\r\n") + "\r\n"
    first, separator, rest = text.partition("\n")
    # Only a field can be folded.
    text = first + separator + _OBS_FOLD.sub(" ", rest)
    text = _BARE_LF.sub("\r\n", text)
    head = _read_head(text.encode("latin-1"))
    if head is None:
        raise _bad(_what_is_wrong(text))
    return head


def _what_is_wrong(text: str) -> str:
    line = _STATUS_LINE.match(text)
    if line is None:
        return f"not a status line: {text.partition(chr(13))[0][:_SHOWN]!r}"
    lines = text[line.end() :].split("\r\n")[:-1]
    wrong = next((field for field in lines if not _FIELD_LINE.fullmatch(field + "\r\n")), "")
    return f"not a header field: {wrong[:_SHOWN]!r}"


def _keeps(connection: str, version: str) -> bool:
    """Return whether the connection goes on after this response (RFC 9112, section 9.3)."""
    options = {option.strip() for option in connection.lower().split(",")}
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def is_length(value: str) -> bool:
    """Return whether the value of a Content-Length is one that is to be believed."""
    return value.isascii() and value.isdigit() and len(value) <= _LONGEST_LENGTH


def _one_length(head: Head) -> str:
    """Return the one value of one or more Content-Length fields."""
    values = [value for name, value in head.headers if name.lower() == "content-length"]
    lengths = {length.strip(" \t") for value in values for length in value.split(",")}
    if len(lengths) > 1:
        raise _bad(f"different values of Content-Length: {', '.join(sorted(lengths))[:_SHOWN]!r}")
    length = lengths.pop()
    if not is_length(length):
        raise _bad(f"Content-Length is no length: {length[:_SHOWN]!r}")
    return length


def _chunk_size(line: bytes) -> int:
    found = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise _bad(f"not a chunk size: {line[:_SHOWN]!r}")
    return int(found[1], 16)


def _unfinished(line: bytes, most: int, what: str) -> bytes:
    """Return the beginning of a line, of which more has to arrive, if it can still become one."""
    if len(line) >= most:
        raise _bad(f"{what} takes a line of more than {most} bytes")
    if b"\n" in line or b"\r" in line[:-1]:
        raise _bad(f"{what} is in a line that does not end in CRLF")
    return line


def _bad(message: str) -> FetchError:
    return FetchError(ErrorKind.BAD_HTTP, message)


def _too_large(what: str) -> FetchError:
    return FetchError(ErrorKind.HEADERS_TOO_LARGE, what)
