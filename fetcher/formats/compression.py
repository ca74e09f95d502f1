"""Compression of what a format writes, so that what was written can be cut off again at any batch.

Each call of ``encode`` ends a gzip member (RFC 1952, section 2.2) or a zstd frame (RFC 8878, section 3.1). Members and
frames may follow one another in a file, so that a file is valid after each batch, and valid again when it was cut
back to one. What it costs are the few per cent that a longer stream would have saved.
"""

from __future__ import annotations

import sys
import zlib
from functools import partial
from typing import TYPE_CHECKING, Literal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.interfaces import Format
    from fetcher.model import Result

Compression = Literal["none", "gzip", "zstd"]
_GZIP = 16
_LEVEL = 6
_LEAST_WINDOW = 9
_HEAD = 256 * 1024  # bytes of an output that are looked at to see how it begins
# The checksum of a frame is off by default; a gzip member always has one.
_ZSTD_OPTIONS: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


def _gzip(data: bytes) -> bytes:
    # Without a time, so that the same records give the same bytes. A window that is larger than the data is of no use,
    # and for a small record takes longer to get than to fill.
    window = min(max(len(data).bit_length(), _LEAST_WINDOW), zlib.MAX_WBITS)
    return zlib.compress(data, _LEVEL, _GZIP + window)


def _zstd() -> Callable[[bytes], bytes]:
    # One compressor for all frames: a new one for each costs several times as much as a small record does.
    compressor = zstd.ZstdCompressor(options=_ZSTD_OPTIONS)

    def compress(data: bytes) -> bytes:
        compressor.set_pledged_input_size(len(data))
        return compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)

    return compress


def compressor(compression: Compression) -> Callable[[bytes], bytes] | None:
    """Return what makes one member or frame of bytes; None for no compression."""
    if compression == "none":
        return None
    return _gzip if compression == "gzip" else _zstd()


def _beginning(compression: Compression, data: bytes) -> bytes:
    """Return what the first member or frame begins with. Raises ValueError if it is none."""
    try:
        if compression == "gzip":
            return zlib.decompressobj(_GZIP + zlib.MAX_WBITS).decompress(data, _HEAD)
        return zstd.ZstdDecompressor().decompress(data, _HEAD)
    except (zlib.error, zstd.ZstdError):
        raise ValueError(f"is not compressed with {compression}") from None


def compressed(form: Format, compression: Compression) -> Format:
    """Return a format that writes what another writes, compressed."""
    compress = compressor(compression)
    return form if compress is None else CompressedFormat(form, compress, partial(_beginning, compression))


class CompressedFormat:
    """Makes a member or frame of what another format returns, and nothing of nothing."""

    def __init__(self, form: Format, compress: Callable[[bytes], bytes], beginning: Callable[[bytes], bytes]) -> None:
        self._format = form
        self._compress = compress
        self._beginning = beginning

    def begin(self) -> bytes:
        """Return the head, compressed."""
        return self._whole(self._format.begin())

    def follow(self, head: bytes) -> None:
        """Go on as an output that begins so, if there is anything to it. Raises ValueError if that can not be."""
        if (follow := getattr(self._format, "follow", None)) is not None:
            follow(self._beginning(head))

    def encode(self, results: Sequence[Result]) -> bytes:
        """Return results, compressed."""
        return self._whole(self._format.encode(results))

    def empty(self) -> bytes:
        """Return an output without records: a head, or nothing, as a member or frame."""
        return self._compress(self._format.begin())

    def _whole(self, data: bytes) -> bytes:
        return self._compress(data) if data else b""
