"""Reads what clients send: configs into memory, files of URLs onto the disk. Bounded in size and in time.

A body has ``GRACE_SECONDS``, and a second more for every ``SLOWEST`` bytes that have come, so that nobody holds a
connection for longer than their bytes are worth; and no pause in it is longer than ``GRACE_SECONDS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11

from fetcher.service.api.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from aiohttp import web

GRACE_SECONDS = 30.0
SLOWEST = 1_000
MOST_AT_ONCE = 32
"""Bodies that are being read; more are refused."""
_BLOCK = 256 * 1024

Read = Callable[[], Awaitable[bytes]]
"""Returns what has come, nothing at the end."""


async def ready_for_body(request: web.Request, most: int) -> Read:
    """Return what reads the body of a request. Raises ProblemError if it is packed, or says that it is too large."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "a body can not have a Content-Encoding here; send it as it is",
            headers={"Accept-Encoding": "identity"},
        )
    if request.content_length is not None and request.content_length > most:
        raise _too_large(most)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # It is no part of the answer, whose head is still to come.
        request.writer.output_size = 0
    return request.content.readany


async def _paced(read: Read, most: int) -> AsyncGenerator[bytes]:
    now = asyncio.get_running_loop().time
    started, size = now(), 0
    while True:
        async with in_time(min(0.0, started + size / SLOWEST - now())):
            chunk = await read()
        if not chunk:
            return
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        yield chunk


@contextlib.asynccontextmanager
async def in_time(more: float = 0.0) -> AsyncIterator[None]:
    """Give a part of a body ``GRACE_SECONDS`` to come, or some more. Raises ProblemError if it does not."""
    try:
        async with asyncio.timeout(GRACE_SECONDS + more):
            yield
    except TimeoutError:
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "the body comes too slowly", close=True) from None


def _too_large(most: int) -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"this is larger than {most:,} bytes", close=True)


async def read_text(read: Read, most: int) -> str:
    """Return a body as text. Raises ProblemError if it is larger than ``most``, or not UTF-8."""
    body = bytearray()
    async for chunk in _paced(read, most):
        body += chunk
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"line {line} of the body is not UTF-8") from None


class Reception:
    """A folder for what is being received. What is left in it when the service starts is of no use to anybody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._receiving = 0

    def open(self) -> None:
        """Make the folder, and empty it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.iterdir():
            left.unlink()

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Count a body that is being read; 503 if there are too many."""
        if self._receiving >= MOST_AT_ONCE:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_AT_ONCE} batches are being submitted already",
                headers={"Retry-After": "5"},
            )
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    @contextlib.asynccontextmanager
    async def file(self, read: Read, suffix: str, most: int) -> AsyncIterator[Path]:
        """Write a body to a file, which is deleted in the end unless it was moved away."""
        path = self._folder / f"{secrets.token_hex(8)}{suffix}"
        try:
            with await asyncio.to_thread(_create, path) as file:
                await _write(file, read, most)
            yield path
        finally:
            path.unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


async def _write(file: BinaryIO, read: Read, most: int) -> None:
    block = bytearray()
    async for chunk in _paced(read, most):
        block += chunk
        if len(block) >= _BLOCK:
            await asyncio.to_thread(_append, file, bytes(block))
            block.clear()
    await asyncio.to_thread(_append, file, bytes(block))


def _append(file: BinaryIO, block: bytes) -> None:
    file.write(block)
    # Nothing is left to be written when it is closed, which happens on the loop.
    file.flush()
