"""Every sink there is, for the contract suite: a Target here, a line in TARGETS, and a new sink has its tests.

What a sink writes to outlives the sink: a Target is the file, the table, the bucket. It makes as many sinks for it as
wanted, each as another process would, and reads from outside what has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sqlite3
import sys
import uuid
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow.parquet as pq

from fetcher.formats.jsonl import JsonlConfig, JsonlFormat
from fetcher.formats.parquet import ParquetConfig
from fetcher.sinks.file import FileSink
from fetcher.sinks.nats import NatsConfig
from fetcher.sinks.objectstore import ObjectStoreConfig
from fetcher.sinks.parts import PartsSink
from fetcher.sinks.postgres import PostgresSinkConfig
from fetcher.sinks.redis import RedisConfig
from fetcher.sinks.sqlite import SqliteSink
from fetcher.sinks.stdout import StdoutSink
from fetcher.sinks.webhook import WebhookConfig
from fetcher.testing import MemorySink

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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


class CompressedTarget(FileTarget):
    def sink(self):
        return FileSink(self.folder / "out.jsonl.zst", JsonlConfig(compression="zstd").build())

    async def records(self):
        return [json.loads(line) for line in zstd.decompress((self.folder / "out.jsonl.zst").read_bytes()).splitlines()]


class PartsTarget(Target):
    """A folder of Parquet files, with as many parts as there are writes."""

    def __init__(self, folder, server=None):
        super().__init__(folder, server)
        self._format = ParquetConfig(part_size=1).build()

    def sink(self):
        return PartsSink(self.folder / "out.parquet", self._format)

    async def records(self):
        files = list((self.folder / "out.parquet").glob("part-*.parquet"))
        for drafts in (self.folder / "out.parquet").glob("_part-*.drafts"):
            files.append(self.folder / "drafts.parquet")
            self._format.write(drafts, lambda _: files[-1])
        return [record for file in files for record in pq.ParquetFile(file).read().to_pylist()]


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


class SqliteTarget(Target):
    """Somebody else who holds the lock is what makes a file unreachable."""

    can_stop = True

    def sink(self):
        return SqliteSink(self.folder / "out.db", busy=0.1)

    async def records(self):
        with contextlib.closing(sqlite3.connect(self.folder / "out.db")) as db:
            return [{"job_id": job, "url": url} for job, url in db.execute("SELECT job_id, url FROM results")]

    async def stop(self):
        self._other = sqlite3.connect(self.folder / "out.db", isolation_level=None)
        self._other.execute("BEGIN IMMEDIATE")

    async def start(self):
        self._other.execute("ROLLBACK")
        self._other.close()


class PostgresTarget(Target):
    can_stop = can_stall = True

    async def prepare(self):
        self._schema = f"t{uuid.uuid4().hex}"

    def sink(self):
        settings = {"dsn": self.server.dsn, "schema": self._schema, "statement_timeout": 30, "connect_timeout": 5}
        return PostgresSinkConfig.model_validate(settings).build()

    async def records(self):
        async with self.server.connect() as connection:
            return [dict(row) for row in await connection.fetch(f"SELECT job_id, url FROM {self._schema}.results")]

    async def stop(self):
        await asyncio.to_thread(self.server.stop)

    async def start(self):
        await asyncio.to_thread(self.server.start)

    @contextlib.asynccontextmanager
    async def stalled(self):
        async with self.server.connect() as connection, connection.transaction():
            await connection.execute(f"LOCK TABLE {self._schema}.results IN ACCESS EXCLUSIVE MODE")
            yield

    async def close(self):
        async with self.server.connect() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")


class ObjectStoreTarget(Target):
    can_stop = True

    async def prepare(self):
        self._bucket = f"b{uuid.uuid4().hex}"
        self._store = self.server.create(self._bucket)

    def sink(self):
        path = f"s3://{self._bucket}/crawl/pages.jsonl.gz"
        return ObjectStoreConfig.model_validate({"path": path, "options": self.server.options}).build()

    async def records(self):
        names = [meta["path"] for page in obstore.list(self._store) for meta in page]
        bodies = [bytes(obstore.get(self._store, name).bytes()) for name in names]
        return [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]

    async def stop(self):
        await asyncio.to_thread(self.server.stop)

    async def start(self):
        await asyncio.to_thread(self.server.start)


class FolderTarget(Target):
    """The same sink with a folder of this machine."""

    def sink(self):
        return ObjectStoreConfig.model_validate({"path": f"file://{self.folder}/pages.jsonl"}).build()

    async def records(self):
        files = (self.folder / "pages.jsonl").iterdir()
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


class RedisTarget(Target):
    """A stream. Others may have read it already, so nothing is taken back."""

    takes_back = discards = False
    can_stop = can_stall = True

    def __init__(self, folder, server=None):
        super().__init__(folder, server)
        self._key = f"results-{uuid.uuid4().hex}"

    def sink(self):
        return RedisConfig(url=self.server.url, stream=self._key, password=self.server.password, timeout=3.0).build()

    async def records(self):
        with self.server.client() as client:
            return [json.loads(fields[b"record"]) for _, fields in client.xrange(self._key)]

    async def stop(self):
        self.server.stop()

    async def start(self):
        self.server.start()

    @contextlib.asynccontextmanager
    async def stalled(self):
        self.server.freeze()
        yield
        self.server.resume()

    async def close(self):
        with self.server.client() as client:
            client.delete(self._key)


class NatsTarget(Target):
    """A stream that recognises what is published again."""

    discards = False
    can_stop = can_stall = True

    def __init__(self, folder, server=None):
        super().__init__(folder, server)
        self._stream = f"S{uuid.uuid4().hex}"

    def sink(self):
        settings = {"username": self.server.username, "password": self.server.password, "timeout": 3.0}
        place = {"servers": [self.server.url], "stream": self._stream, "subject": f"{self._stream}.results"}
        return NatsConfig.model_validate(place | settings).build()

    async def records(self):
        return [json.loads(message.data) async for message in self.server.messages(self._stream)]

    async def stop(self):
        self.server.stop()

    async def start(self):
        self.server.start()

    @contextlib.asynccontextmanager
    async def stalled(self):
        self.server.freeze()
        yield
        self.server.resume()

    async def close(self):
        async with self.server.connection() as (_, jetstream):
            with contextlib.suppress(Exception):
                await jetstream.delete_stream(self._stream)


class WebhookTarget(Target):
    """A receiver that minds idempotency keys; after a crash records come in other company, and so again."""

    takes_back = discards = False
    can_stop = can_stall = True

    def sink(self):
        rejected = str(self.folder / "rejected.jsonl")
        return WebhookConfig(url=self.server.url, secret="secret", rejected=rejected, timeout=10.0).build()

    async def prepare(self):
        self.server.reset()

    async def records(self):
        return self.server.records

    async def stop(self):
        self.server.stop()

    async def start(self):
        self.server.start()

    @contextlib.asynccontextmanager
    async def stalled(self):
        self.server.stall()
        yield
        self.server.flow()


TARGETS: dict[str, type[Target]] = {
    "file": FileTarget,
    "file.zst": CompressedTarget,
    "file.parquet": PartsTarget,
    "stdout": StdoutTarget,
    "memory": MemoryTarget,
    "redis": RedisTarget,
    "nats": NatsTarget,
    "webhook": WebhookTarget,
    "sqlite": SqliteTarget,
    "postgres": PostgresTarget,
    "objectstore": ObjectStoreTarget,
    "folder": FolderTarget,
}
SERVERS: dict[str, str] = {
    "postgres": "postgres",
    "objectstore": "s3",
    "redis": "redis",
    "nats": "nats",
    "webhook": "webhook",
}
"""Which fixture has the server of a target, for those that need one."""
