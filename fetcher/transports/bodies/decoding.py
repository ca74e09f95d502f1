"""Content codings (RFC 9110, section 8.4), taken off a body as it arrives and checked to their ends.

What holds for every coding, and for each of several that lie one over another:

- A body that ends before its coding's end-of-stream mark is kind ``body_incomplete``, whatever the framing said.
- Damage is kind ``bad_encoding``: a wrong checksum, where the coding has one, and a body that is not in its coding at
  all. Nothing is guessed from the bytes, except that ``deflate`` may come without its zlib wrapper. Neither that nor
  br has a checksum, and zstd only if the sender likes.
- After the end, another gzip member or zstd frame goes on, and zero bytes are padding, which some servers send.
  Anything else is ``bad_encoding``. A br body ends at its end, without padding: its library does not tell what it
  found there.
- Decoded bytes come in pieces of bounded size, so that what a body grows to is up to who takes the pieces.
- A body that costs much and gives nothing is ``bad_encoding``: it may be no longer than twice what it decodes to and a
  megabyte, and its members or frames may be small on average only if they are few.
- A zstd window is at most 8 MiB (RFC 9659, section 3), one of br 16 MiB (RFC 7932, section 9.1).

A coding that is not known stays on the body, and so do those under it.
"""

from __future__ import annotations

import sys
import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Protocol

import brotli

from fetcher.errors import ErrorKind, FetchError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from zlib import _Decompress

    from fetcher.model import Header

ACCEPT_ENCODING = "gzip, deflate, br, zstd"
PIECE = 64 * 1024
"""About how many decoded bytes come at once. br, which grows its buffer in steps, may give half as many more."""

DAMAGED = (zlib.error, brotli.error, zstd.ZstdError)
"""What the libraries raise for a body that is damaged."""

_GZIP = 16 + zlib.MAX_WBITS
# A zlib stream (RFC 1950) begins with a byte whose low nibble is 8; servers that send raw deflate (RFC 1951)
# under the same name are too many to refuse.
_ZLIB_METHOD = 8
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
# All three libraries copy what they did not consume each time they are called: many small members, or a bomb, in one
# long piece would cost its square.
_SLICE = 16 * 1024
_MOST_CODINGS = 4
_FREE_INPUT = 1024 * 1024
_FREE_MEMBERS = 1024
_PARTIAL_CONTENT = 206


class Decoder(Protocol):
    """Decodes one body. Both ways to be fed raise FetchError; after that, or if pieces were left, it is of no use."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode lazily; yield pieces that are not empty."""
        ...

    def feed(self, data: bytes, budget: int) -> bytes:
        """Return at most ``budget`` + 1 decoded bytes; that one more tells that there is more."""
        ...

    def finish(self) -> None:
        """Raise FetchError if a stream did not reach its end."""
        ...


class Decoding(NamedTuple):
    """How a body is decoded, and the codings that stay on it, as they would be in a Content-Encoding field."""

    decoder: Decoder | None
    left: str | None


class _Fed(ABC):
    """Decoders that are fed by the piece."""

    @abstractmethod
    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode lazily."""

    def feed(self, data: bytes, budget: int) -> bytes:
        """Decode up to a budget."""
        decoded: list[bytes] = []
        for piece in self.pieces(data):
            decoded.append(piece[: budget + 1])
            budget -= len(piece)
            if budget < 0:
                break
        return decoded[0] if len(decoded) == 1 else b"".join(decoded)


class _Coding(_Fed):
    """One coding: the members that it consists of, and what they may cost."""

    errors: type[Exception]
    """What the library raises."""
    complaint = "is damaged"
    may_go_on = True
    """Whether another member may follow the first one."""
    may_be_padded = True
    worth_a_member = 64
    """How many bytes the members have to hold on average where there are many of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open = False
        self._members = self._received = self._decoded = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode a slice at a time."""
        for start in range(0, len(data), _SLICE):
            rest: bytes | None = data[start : start + _SLICE]
            self._received += min(_SLICE, len(data) - start)
            while rest is not None:
                piece, rest = self._step(rest)
                if piece:
                    yield piece
            if self._received > 2 * self._decoded + _FREE_INPUT:
                raise self._useless(f"decodes to {self._decoded} bytes after {self._received} that were received")

    def finish(self) -> None:
        """Check that the last member was whole."""
        if self._open or not self._members:
            message = f"the {self._name} body ends before its end-of-stream mark"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)

    def _step(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return a piece, and what to go on with; None if there is no more to be had from these data."""
        if not self._open:
            if self._members and self.may_be_padded:
                data = data.lstrip(b"\0")
            if not data:
                return b"", None
            self._next(data[0])
        try:
            piece, rest = self._decompress(data)
        except self.errors as error:
            raise FetchError(ErrorKind.BAD_ENCODING, self._damage(error)) from error
        self._decoded += len(piece)
        if rest is not None:
            self._open = False
            return piece, rest or None
        # A piece that is not full means that there is no more, neither here nor in the library's own buffers.
        return piece, b"" if len(piece) >= PIECE else None

    def _next(self, first: int) -> None:
        if self._members and not self.may_go_on:
            message = f"the {self._name} body goes on after its end-of-stream mark"
            raise FetchError(ErrorKind.BAD_ENCODING, message)
        self._members += 1
        if self._members > _FREE_MEMBERS + self._decoded // self.worth_a_member:
            raise self._useless(f"decodes to {self._decoded} bytes in {self._members - 1} parts")
        self._begin(first)
        self._open = True

    def _damage(self, error: Exception) -> str:
        where = f", behind {self._members - 1} that were whole" if self._members > 1 else ""
        return f"the {self._name} body {self.complaint}{where}: {error}"

    def _useless(self, what: str) -> FetchError:
        message = f"the {self._name} body {what}, which is too little for what it costs"
        return FetchError(ErrorKind.BAD_ENCODING, message)

    @abstractmethod
    def _begin(self, first: int) -> None:
        """Get ready for a member whose first byte is this."""

    @abstractmethod
    def _decompress(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return a piece, and what is behind the end of the member if it was reached.

        No data means to go on with those that did not fit into the piece before.
        """


class _Zlib(_Coding):
    """What zlib decodes: all but the beginning of a stream."""

    errors = zlib.error
    _stream: _Decompress

    def _decompress(self, data: bytes) -> tuple[bytes, bytes | None]:
        stream = self._stream
        piece = stream.decompress(data or stream.unconsumed_tail, PIECE)
        return piece, stream.unused_data if stream.eof else None


class _Gzip(_Zlib):
    """gzip (RFC 1952), with several members one after another."""

    def _begin(self, first: int) -> None:  # noqa: ARG002  zlib looks at it by itself
        self._stream = zlib.decompressobj(_GZIP)


class _Deflate(_Zlib):
    """deflate: a zlib stream (RFC 1950), or what should be in one (RFC 1951)."""

    may_go_on = False

    def _begin(self, first: int) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS if first & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS)


class _Brotli(_Coding):
    """br (RFC 7932)."""

    errors = brotli.error
    complaint = "is damaged, or goes on after its end"
    may_go_on = may_be_padded = False

    def _begin(self, first: int) -> None:  # noqa: ARG002  brotli looks at it by itself
        self._stream = brotli.Decompressor()

    def _decompress(self, data: bytes) -> tuple[bytes, bytes | None]:
        piece = self._stream.process(data, output_buffer_limit=PIECE)
        return piece, b"" if self._stream.is_finished() else None


class _Zstd(_Coding):
    """zstd (RFC 8878), with several frames one after another, of which some may be there to be skipped."""

    errors = zstd.ZstdError
    complaint = "can not be decoded"
    # To begin a frame costs more than ten times what a gzip member does: about 16 us.
    worth_a_member = 256

    def _begin(self, first: int) -> None:  # noqa: ARG002  zstd looks at it by itself
        self._stream = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)

    def _decompress(self, data: bytes) -> tuple[bytes, bytes | None]:
        stream = self._stream
        piece = stream.decompress(data, PIECE)
        return piece, stream.unused_data if stream.eof else None


class _Chain(_Fed):
    """Codings that lie one over another; the first one is the outermost."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decode so that no more than a piece is ever held between two codings."""
        if len(self._decoders) > _MOST_CODINGS:
            message = f"more than {_MOST_CODINGS} content codings one over another"
            raise FetchError(ErrorKind.BAD_ENCODING, message)
        return self._through(0, data)

    def finish(self) -> None:
        """Check every coding, the outermost first."""
        for decoder in self._decoders:
            decoder.finish()

    def _through(self, depth: int, data: bytes) -> Iterator[bytes]:
        if depth == len(self._decoders):
            yield data
            return
        for piece in self._decoders[depth].pieces(data):
            yield from self._through(depth + 1, piece)


_KNOWN: dict[str, Callable[[str], Decoder]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}


def decoding_of(status: int, headers: Sequence[Header]) -> Decoding:
    """Return how the body of a response is decoded. All its Content-Encoding fields are one list.

    A part of an encoded representation (RFC 9110, section 15.3.7) can not be decoded, so it stays as it is.
    """
    codings: list[str] = []
    for name, value in headers:
        if name.lower() == "content-encoding":
            codings += _codings(value)
    if status == _PARTIAL_CONTENT and codings:
        return Decoding(None, ", ".join(codings))
    return _decoding(codings)


def decoder_for(content_encoding: str | None) -> Decoder | None:
    """Return a decoder for the value of a Content-Encoding field; None if the body is kept as it came."""
    return None if content_encoding is None else _decoding(_codings(content_encoding)).decoder


def _codings(value: str) -> list[str]:
    """Return the codings of a list in the order in which they were put on."""
    if value in _KNOWN:
        return [value]
    names = [name.strip().lower() for name in value.split(",")]
    return [name for name in names if name not in {"", "identity"}]


def _decoding(codings: list[str]) -> Decoding:
    decoders: list[Decoder] = []
    # One more than are taken off says that there are too many.
    while codings and codings[-1] in _KNOWN and len(decoders) <= _MOST_CODINGS:
        name = codings.pop()
        decoders.append(_KNOWN[name](name))
    left = ", ".join(codings) if codings else None
    if len(decoders) > 1:
        return Decoding(_Chain(decoders), left)
    return Decoding(decoders[0] if decoders else None, left)
