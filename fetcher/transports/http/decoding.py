"""Content codings (RFC 9110, section 8.4), decoded as the body arrives and checked to its end.

A body whose coding ends before its end-of-stream mark is incomplete, whatever the framing said.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from fetcher.errors import ErrorKind, FetchError

ACCEPT_ENCODING = "gzip, deflate"
_GZIP = 16 + zlib.MAX_WBITS
# A zlib stream (RFC 1950) begins with a byte whose low nibble is 8; servers that send raw deflate (RFC 1951) under
# the same name are too many to refuse.
_ZLIB_METHOD = 8


class Decoder(Protocol):
    """Decodes one body."""

    def feed(self, data: bytes, budget: int) -> bytes:
        """Return at most ``budget`` + 1 decoded bytes: one more tells that there is more. Raises FetchError."""
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
        decoded = b""
        while data and len(decoded) <= budget:
            if self._stream is None:
                window = zlib.MAX_WBITS if data[0] & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS
                self._stream = zlib.decompressobj(window)
            elif self._ended:
                # What follows the end is another member, or padding that some servers send.
                if not self._gzip or not data.strip(b"\0"):
                    return decoded
                self._stream = zlib.decompressobj(_GZIP)
            try:
                decoded += self._stream.decompress(data, budget - len(decoded) + 1)
            except zlib.error as error:
                raise FetchError(ErrorKind.BAD_ENCODING, f"the {self._coding} body is damaged: {error}") from error
            self._ended = self._stream.eof
            data = self._stream.unused_data if self._ended else self._stream.unconsumed_tail
        return decoded

    def finish(self) -> None:
        """Check that the last member was whole."""
        if not self._ended:
            raise FetchError(ErrorKind.BODY_INCOMPLETE, f"the {self._coding} body ends before its end-of-stream mark")


def decoder_for(content_encoding: str | None) -> Decoder | None:
    """Return a decoder, or None if the body is kept as it came: no coding, or one that was not asked for."""
    if content_encoding is None:
        return None
    coding = content_encoding.strip().lower()
    if coding in {"gzip", "x-gzip", "deflate"}:
        return ZlibDecoder(coding)
    return None
