"""Every sink there is, for the contract suite: a Target here, a line in TARGETS, and a new sink has its tests.

What a sink writes to outlives the sink: a Target is the file, the table, the bucket. It makes as many sinks for it as
wanted, each as another process would, and reads from outside what has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from fetcher.formats.jsonl import JsonlFormat
from fetcher.sinks.file import FileSink
from fetcher.sinks.stdout import StdoutSink
from fetcher.testing import MemorySink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Target:
    """Where a sink writes to. Subclass it with ``sink`` and ``records``, and with what else the target can do.

    ``takes_back``: what was written after the mark, or written twice, is there once. ``discards``: what an earlier
    run wrote can be deleted. ``can_stop``: there are ``stop`` and ``start``, and ``stop`` makes the target
    unreachable. ``can_stall``: within ``stalled()`` nothing is accepted, but nothing fails.
    """

    takes_back = True
    discards = True
    can_stop = False
    can_stall = False

    def __init__(self, folder: Path, server: Any = None) -> None:
        """Keep what there is in ``folder``, unless ``server`` (of a fixture named in SERVERS) has it."""
        self.folder = folder
        self.server = server

    async def prepare(self) -> None:
        """Create what has to be there before a sink is checked: a bucket, a topic."""

    def sink(self) -> Any:
        """Return a new sink, not yet checked, with settings that give up soon rather than late."""
        raise NotImplementedError

    async def records(self) -> list[dict[str, Any]]:
        """Return what has arrived, in any order, each with its ``job_id`` and ``url`` at least."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Make the target unreachable."""
        raise NotImplementedError

    async def start(self) -> None:
        """Make it reachable again, with what it had."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        """Accept nothing, and fail nothing, within."""
        raise NotImplementedError
        yield

    async def close(self) -> None:
        """Clean up."""


class FileTarget(Target):
    def sink(self):
        # A plain file takes no part in the run of others, so a leftover of an earlier process may be gone on with.
        return FileSink(self.folder / "out.jsonl", JsonlFormat())

    async def records(self):
        return [json.loads(line) for line in (self.folder / "out.jsonl").read_bytes().splitlines()]


class StdoutTarget(Target):
    """A pipe, whose reader can stop reading. What it has taken can not be taken back."""

    takes_back = discards = False
    can_stall = True

    def __init__(self, folder, server=None):
        super().__init__(folder, server)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._read = b""
        self._stalled = False

    def sink(self):
        return StdoutSink(JsonlFormat(), self._writer)

    async def prepare(self):
        asyncio.get_running_loop().add_reader(self._reader, self._drain)

    def _drain(self):
        with contextlib.suppress(BlockingIOError):
            self._read += os.read(self._reader, 2**20)

    async def records(self):
        self._drain()
        return [json.loads(line) for line in self._read.splitlines()]

    @contextlib.asynccontextmanager
    async def stalled(self):
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._reader)
        filler = _fill(self._writer)
        yield
        self._read += b"".join(_taken(self._reader, filler))
        self._read = self._read.replace(b"\0", b"")
        loop.add_reader(self._reader, self._drain)

    async def close(self):
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)


def _fill(fd):
    """Fill a pipe with NULs, which no record has, and return how many fit."""
    os.set_blocking(fd, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(fd, bytes(4096))
    os.set_blocking(fd, True)
    return filled


def _taken(fd, count):
    while count > 0:
        data = os.read(fd, count)
        count -= len(data)
        yield data


class MemoryTarget(Target):
    can_stop = can_stall = True

    def __init__(self, folder, server=None):
        super().__init__(folder, server)
        self._sink = MemorySink()

    def sink(self):
        return self._sink

    async def records(self):
        return json.loads(b"[" + b",".join(JsonlFormat().encode(self._sink.results).splitlines()) + b"]")

    async def stop(self):
        self._sink.down = True

    async def start(self):
        self._sink.down = False

    @contextlib.asynccontextmanager
    async def stalled(self):
        self._sink.gate = asyncio.Event()
        yield
        self._sink.gate.set()
        self._sink.gate = None


TARGETS: dict[str, type[Target]] = {"file": FileTarget, "stdout": StdoutTarget, "memory": MemoryTarget}
SERVERS: dict[str, str] = {}
"""Which fixture has the server of a target, for those that need one."""
