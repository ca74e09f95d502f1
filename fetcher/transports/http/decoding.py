"""Content codings (RFC 9110, section 8.4), decoded as the body arrives and checked to its end.

A body whose coding ends before its end-of-stream mark is incomplete, whatever the framing said. After that
mark, zero bytes are padding, which some servers send; anything else but another gzip member is damage.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from zlib import _Decompress

ACCEPT_ENCODING = "gzip, deflate"
_GZIP = 16 + zlib.MAX_WBITS
# A zlib stream (RFC 1950) begins with a byte whose low nibble is 8; servers that send raw deflate (RFC 1951)
# under the same name are too many to refuse.
_ZLIB_METHOD = 8
# zlib copies what is behind a member when it ends: many small members in one piece would cost its square.
_PIECE = 4096


class Decoder(Protocol):
    """Decodes one body."""

    def feed(self, data: bytes, budget: int) -> bytes:
        """Return at most ``budget`` + 1 decoded bytes; that one more tells that there is more.

        Raises FetchError.
        """
        ...

    def finish(self) -> None:
        """Raise FetchError if the stream did not reach its end."""
        ...


class ZlibDecoder:
    """gzip (RFC 1952), with several members one after another, and deflate."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._gzip = coding != "deflate"
        self._stream = zlib.decompressobj(_GZIP) if self._gzip else None
        self._ended = False

    def feed(self, data: bytes, budget: int) -> bytes:
        """Decode some bytes."""
        decoded, rest = self._decode(data, budget)
        if not rest:
            return decoded
        pieces = [decoded]
        budget -= len(decoded)
        for start in range(0, len(rest), _PIECE):
            piece = rest[start : start + _PIECE]
            while piece and budget >= 0:
                decoded, piece = self._decode(piece, budget)
                pieces.append(decoded)
                budget -= len(decoded)
        return b"".join(pieces)

    def finish(self) -> None:
        """Check that the last member was whole."""
        if not self._ended:
            message = f"the {self._coding} body ends before its end-of-stream mark"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)

    def _decode(self, data: bytes, budget: int) -> tuple[bytes, bytes]:
        """Decode to the end of the data, of the member, or of the budget; return what is left of the data."""
        if self._ended:
            data = data.lstrip(b"\0")
        if not data:
            return b"", b""
        stream = self._stream
        if stream is None or self._ended:
            stream = self._stream = self._begin(data[0])
        try:
            decoded = stream.decompress(data, budget + 1)
        except zlib.error as error:
            message = f"the {self._coding} body is damaged: {error}"
            raise FetchError(ErrorKind.BAD_ENCODING, message) from error
        self._ended = stream.eof
        return decoded, stream.unused_data if stream.eof else stream.unconsumed_tail

    def _begin(self, first: int) -> _Decompress:
        if self._gzip:
            return zlib.decompressobj(_GZIP)
        if self._ended:
            raise FetchError(ErrorKind.BAD_ENCODING, "the deflate body goes on after its end-of-stream mark")
        return zlib.decompressobj(zlib.MAX_WBITS if first & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS)


def decoder_for(content_encoding: str | None) -> Decoder | None:
    """Return a decoder, or None if the body is kept as it came: no coding, or one that was not asked for."""
    if content_encoding is None:
        return None
    coding = content_encoding.strip().lower()
    if coding in {"gzip", "x-gzip", "deflate"}:
        return ZlibDecoder(coding)
    return None
