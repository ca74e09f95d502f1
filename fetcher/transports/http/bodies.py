"""The body of a response: read, counted, decoded, capped and hashed as it arrives."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.decoding import decoder_for

if TYPE_CHECKING:
    from fetcher.settings import BodySettings
    from fetcher.transports.http.exchange import Answer
    from fetcher.transports.watchdog import Watch


class Body(NamedTuple):
    """A body after decoding. ``content`` is None unless it is kept; ``wire_size`` counts what travelled."""

    content: bytes | None
    size: int
    wire_size: int
    sha256: str
    truncated: bool


class BodyReader:
    """Reads bodies as the section ``body`` of a config says."""

    def __init__(self, settings: BodySettings) -> None:
        self._settings = settings

    async def read(self, answer: Answer, watch: Watch) -> Body:
        """Read and decode the body up to the cap. Pieces that nobody wants are hashed and let go."""
        cap, keep = self._settings.max_size, self._settings.store == "inline"
        decoder = decoder_for(answer.fields.get("Content-Encoding"))
        digest = hashlib.sha256()
        pieces: list[bytes] = []
        size = wire_size = 0
        truncated = False
        while not truncated and (chunk := await answer.read()):
            watch.progress()
            wire_size += len(chunk)
            piece = chunk if decoder is None else decoder.feed(chunk, cap - size)
            if len(piece) > cap - size:
                if self._settings.overflow == "fail":
                    message = f"longer than body.max_size ({cap} bytes)"
                    raise FetchError(ErrorKind.BODY_TOO_LARGE, message, status=answer.status)
                piece, truncated = piece[: cap - size], True
            size += len(piece)
            digest.update(piece)
            if keep:
                pieces.append(piece)
        if decoder is not None and wire_size and not truncated:
            decoder.finish()
        content = (pieces[0] if len(pieces) == 1 else b"".join(pieces)) if keep else None
        return Body(content, size, wire_size, digest.hexdigest(), truncated)
