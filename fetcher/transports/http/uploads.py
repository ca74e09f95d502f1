"""Bodies of the type ``multipart/form-data`` (RFC 7578), put together while they are sent.

Files are read from disk in blocks, on a thread, and are never in memory as a whole. How long they are is found out
before the request begins, so that it has a Content-Length. Each request reads them anew: a retry, and a redirect that
keeps its method. No file is kept open from one block to the next, so that nothing has to be closed whatever happens; by
its identity, size and time of change it is told whether it is still the one that was measured.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientError

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from fetcher.model import FormPart
    from fetcher.transports.http.connection import PooledConnection
    from fetcher.transports.http.wire import Head

_BLOCK = 64 * 1024
_BINARY = "application/octet-stream"
# What would end a quoted name or its line (WHATWG HTML, "multipart/form-data encoding algorithm").
_ESCAPED = re.compile(r"[\x00-\x1f\"\x7f]")
# Neither a link that came to be after the path was resolved, nor a pipe that nobody writes to, where a system can tell.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT")
)
# A folder on the way need not be one that can be listed (O_PATH, on Linux).
_FOLDER = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_PATH"))
_Identity = tuple[int, int, int, int]


class _File(msgspec.Struct, frozen=True):
    """A file as it was when it was measured: ``inside``, without links, a ``root``. ``shown`` is for messages."""

    root: str
    inside: str
    size: int
    identity: _Identity
    shown: str


class Upload:
    """The body of one fetch. ``size``: its bytes, once it was measured; ``failure``: why it could not be sent on."""

    def __init__(self, parts: Sequence[FormPart], folder: str) -> None:
        """Take parts, whose files are within a folder."""
        self._parts = parts
        self._folder = folder
        self._boundary = secrets.token_hex(16)
        self._pieces: list[bytes | _File] = []
        self.size = 0
        self.failure: FetchError | None = None

    @property
    def content_type(self) -> str:
        """The value of the Content-Type that says where its parts end."""
        return f"multipart/form-data; boundary={self._boundary}"

    async def measure(self) -> None:
        """Look at its files. Raises FetchError if there is one that can not be sent."""
        await asyncio.to_thread(self._measure)

    async def blocks(self, taken: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """Yield the body as it was measured; ``taken`` is called whenever more of it is wanted.

        Raises FetchError if a file has changed since then.
        """
        try:
            for piece in self._pieces:
                if isinstance(piece, bytes):
                    yield piece
                    taken()
                    continue
                for offset in range(0, piece.size, _BLOCK):
                    yield await asyncio.to_thread(_read, piece, offset, min(_BLOCK, piece.size - offset))
                    taken()
        except FetchError as error:
            self.failure = error
            raise

    def _measure(self) -> None:
        pieces: list[bytes | _File] = []
        for part in self._parts:
            pieces.append(f"--{self._boundary}\r\n{_head(part)}\r\n\r\n".encode())
            if part.path is None:
                pieces.append((part.value or "").encode())
            else:
                pieces.append(_measured(self._folder, part.path))
            pieces.append(b"\r\n")
        pieces.append(f"--{self._boundary}--\r\n".encode())
        self._pieces = _joined(pieces)
        self.size = sum(len(piece) if isinstance(piece, bytes) else piece.size for piece in pieces)


async def sent_with(upload: Upload, connection: PooledConnection, taken: Callable[[], None]) -> Head:
    """Send a body after the head of its request; return the head of the answer.

    It may come before the end of the body, such as 413 (RFC 9110, section 15.5.14): then no more of that is sent, and
    the connection is not used again. Raises what ``PooledConnection.head`` raises, and FetchError for files.
    """
    heading = asyncio.create_task(connection.head())
    sending = asyncio.create_task(_send(upload, connection, taken))
    try:
        await asyncio.wait((heading, sending), return_when=asyncio.FIRST_COMPLETED)
        if not heading.done():
            # A connection that is lost is told of by who waits for the answer.
            with suppress(OSError, ClientError):
                await sending
        elif not sending.done():
            connection.force_close()
        return await heading
    finally:
        heading.cancel()
        sending.cancel()
        await asyncio.gather(heading, sending, return_exceptions=True)


async def _send(upload: Upload, connection: PooledConnection, taken: Callable[[], None]) -> None:
    async for block in upload.blocks(taken):
        transport = connection.transport
        if transport is None:
            return
        transport.write(block)
        await connection._drain_helper()  # noqa: SLF001  how aiohttp's own writer waits


def _head(part: FormPart) -> str:
    """Return the header fields of a part."""
    filename = part.filename
    if filename is None and part.path is not None:
        filename = os.path.basename(part.path)  # noqa: PTH119  of what was written, not of what it leads to
    content_type = part.content_type
    if content_type is None and filename is not None:
        content_type = mimetypes.guess_type(filename)[0] or _BINARY
    lines = f'Content-Disposition: form-data; name="{_quotable(part.name)}"'
    if filename is not None:
        lines += f'; filename="{_quotable(filename)}"'
    return lines if content_type is None else f"{lines}\r\nContent-Type: {content_type}"


def _quotable(text: str) -> str:
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", text)


def _joined(pieces: Sequence[bytes | _File]) -> list[bytes | _File]:
    """Put bytes together that follow one another, so that small parts go in one block."""
    joined: list[bytes | _File] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            joined[-1] = last + piece
        else:
            joined.append(piece)
    return joined


def _measured(folder: str, path: str) -> _File:
    """Return a file within a folder, whatever links lead to it. Raises FetchError if it is not there or elsewhere."""
    shown = f"the file {path[:200]!r}"
    try:
        root = os.path.realpath(folder)
        real = os.path.realpath(os.path.join(root, path))  # noqa: PTH118  as realpath takes it
        within = root.rstrip(os.sep) + os.sep
        if not real.startswith(within):
            raise _unusable(f"{shown} lies outside of request.upload_dir ({folder})", sent=False)
        inside = real[len(within) :]
        fd = _opened(root, inside)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        message = f"{shown} can not be read: {error.strerror}; it is looked for in request.upload_dir ({folder})"
        raise _unusable(message, sent=False) from error
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(f"{shown} in request.upload_dir ({folder}) is no regular file", sent=False)
    return _File(root, inside, found.st_size, _identity(found), shown)


def _opened(root: str, inside: str) -> int:
    """Open a file by the folders that lead to it, where the system can: none is a link by now. Raises OSError."""
    if os.open not in os.supports_dir_fd:
        return os.open(os.path.join(root, inside), _FLAGS)  # noqa: PTH118
    *folders, name = inside.split(os.sep)  # noqa: PTH206  of an empty path, Path has no parts at all
    folder = os.open(root, _FOLDER)
    try:
        for step in folders:
            inner = os.open(step, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _read(file: _File, offset: int, count: int) -> bytes:
    """Return so many bytes of a file. Raises FetchError if it is not as it was measured."""
    data = b""
    try:
        fd = _opened(file.root, file.inside)
        try:
            if _identity(os.fstat(fd)) == file.identity:
                os.lseek(fd, offset, os.SEEK_SET)
                data = os.read(fd, count)
        finally:
            os.close(fd)
    except OSError as error:
        raise _unusable(f"{file.shown} can not be read any more: {error.strerror}", sent=True) from error
    if len(data) < count:
        raise _unusable(f"{file.shown} was changed while it was sent", sent=True)
    return data


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unusable(message: str, *, sent: bool) -> FetchError:
    return FetchError(ErrorKind.INVALID_ROW, message, sent=sent)
