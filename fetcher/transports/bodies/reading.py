"""The body of a response: read, counted, decoded, capped and hashed as it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.checksums import Digest, digest_for, verify
from fetcher.transports.bodies.decoding import Decoding, decoding_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fetcher.model import Header, Job, Response
    from fetcher.settings import BodySettings
    from fetcher.transports.bodies.ranges import Partial
    from fetcher.transports.bodies.storing import BodyStore
    from fetcher.transports.watchdog import Watch

_AS_IT_COMES = Decoding(None, None)
# What arrived before one of these is as good as the beginning of any other body.
_BROKEN_OFF = frozenset(
    {
        ErrorKind.BODY_INCOMPLETE,
        ErrorKind.CONNECTION_RESET,
        ErrorKind.SERVER_DISCONNECTED,
        ErrorKind.READ_TIMEOUT,
        ErrorKind.TOO_SLOW,
    }
)
# Answers whose bodies are what was asked for; of what is not http, all are, and of 101 the messages that follow.
_FILED = frozenset({None, 101, 200, 201, 202, 203, 206, 207, 208, 226})


class Arriving(Protocol):
    """A body while it arrives. ``fields`` and ``headers`` are empty, and ``status`` None, where there are no such."""

    @property
    def status(self) -> int | None:
        """The status of the answer that it belongs to."""
        ...

    @property
    def headers(self) -> Sequence[Header]:
        """The fields of that answer, in their order."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """The same by their names."""
        ...

    @property
    def length_unknown(self) -> bool:
        """Whether nothing proves that the body is whole when it ends."""
        ...

    async def read(self) -> bytes:
        """Return what has arrived of it, nothing at its end. Raises FetchError if it does not arrive whole."""
        ...


class Holder(Protocol):
    """Takes the pieces of one body, the first ``start`` bytes of which it has already."""

    start: int

    def add(self, piece: bytes) -> bool:
        """Take a piece; tell whether ``flush`` has to be awaited before the next."""
        ...

    async def flush(self) -> None:
        """Wait until there is room again."""
        ...

    async def finish(self) -> None:
        """Put the body where it belongs, and its hash into the response. Raises FetchError or SinkError."""
        ...

    async def abandon(self, *, keep: bool) -> None:
        """End without a body; ``keep`` what can be gone on with. Does nothing more than ``finish`` has done."""
        ...


class Kept:
    """A body that goes into the record, or nowhere: then its pieces are hashed and let go."""

    __slots__ = ("_digest", "_pieces", "_response", "start")

    def __init__(self, response: Response, digest: Digest, *, inline: bool) -> None:
        self.start = 0
        self._response = response
        self._digest = digest
        self._pieces: list[bytes] | None = [] if inline else None

    def add(self, piece: bytes) -> bool:
        """Take a piece."""
        self._digest.update(piece)
        if self._pieces is not None:
            self._pieces.append(piece)
        return False

    async def flush(self) -> None:
        """Return: there is always room."""

    async def finish(self) -> None:
        """Put hash and body into the response."""
        verify(self._digest)
        pieces = self._pieces
        if pieces is not None:
            self._response.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._response.sha256 = self._digest.hexdigest()

    async def abandon(self, *, keep: bool) -> None:
        """Return: there is nothing to clean up."""


class BodyReader:
    """Reads bodies as the section ``body`` of a config says. Those that become files are taken by ``store``."""

    def __init__(self, settings: BodySettings, store: BodyStore | None = None) -> None:
        self._cap = settings.max_size
        self._fails = settings.overflow == "fail"
        self._inline = settings.store == "inline"
        self._store = store

    async def read(
        self, answer: Arriving, response: Response, watch: Watch, job: Job, partial: Partial | None = None
    ) -> None:
        """Read the body into what is known of it in ``response``. Raises FetchError, or SinkError for our own disk.

        ``partial``: see ``BodyStore.download``.
        """
        digest = digest_for(job.checksum, response)
        holder: Holder
        if self._store is not None and response.status in _FILED and response.method != "HEAD":
            holder = self._store.download(job, response, digest, partial)
        else:
            holder = Kept(response, digest, inline=self._inline)
        try:
            await self._pour(answer, response, watch, holder)
            if self._store is not None:
                watch.pause()
            await holder.finish()
        except BaseException as error:
            await holder.abandon(keep=_broken_off(error))
            raise

    async def _pour(self, answer: Arriving, response: Response, watch: Watch, holder: Holder) -> None:
        """Read, decode and hand on up to the cap; the sizes are true however it ends."""
        coded = answer.fields.get("Content-Encoding") is not None
        decoder, response.content_encoding = decoding_of(answer.status or 0, answer.headers) if coded else _AS_IT_COMES
        room = self._cap - holder.start
        wire_size = 0
        try:
            while not response.truncated and (chunk := await answer.read()):
                watch.progress(len(chunk))
                wire_size += len(chunk)
                for piece in (chunk,) if decoder is None else decoder.pieces(chunk):
                    over = len(piece) > room
                    taken = self._cut(piece, room, response) if over else piece
                    room -= len(taken)
                    if holder.add(taken):
                        # How long our own disk takes is no silence of the server's.
                        watch.pause()
                        await holder.flush()
                        watch.progress()
                    if over:
                        break
            # Of a body that ends with its connection nothing says that it was empty.
            if decoder is not None and (wire_size or answer.length_unknown) and not response.truncated:
                decoder.finish()
        finally:
            response.body_size = self._cap - room
            response.wire_size = wire_size
            if not wire_size:
                response.content_encoding = None

    def _cut(self, piece: bytes, room: int, response: Response) -> bytes:
        if self._fails:
            message = f"longer than body.max_size ({self._cap} bytes)"
            raise FetchError(ErrorKind.BODY_TOO_LARGE, message, status=response.status)
        response.truncated = True
        return piece[:room]


def _broken_off(error: BaseException) -> bool:
    """Tell whether it was cut off, by the server or by a timeout of ours, and what has arrived is sound."""
    if isinstance(error, FetchError):
        return error.sound and error.kind in _BROKEN_OFF
    return isinstance(error, asyncio.CancelledError)
