"""What a batch writes to that can be away for a while: for tests of whole batches.

A target has the setting of its ``sink``; ``stop`` makes it unreachable and ``start`` reachable again, with what it had.
``ids`` returns the jobs that have arrived, and how often.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import uuid
from collections import Counter
from contextlib import closing
from typing import Any

import obstore


class Sqlite:
    """Away is a file that somebody else has locked."""

    def __init__(self, folder, server, jobs):
        self.path = folder / "out.db"
        self.sink = {"type": "sqlite", "path": str(self.path)}

    async def ids(self):
        with closing(sqlite3.connect(self.path)) as db:
            return Counter(job for (job,) in db.execute("SELECT job_id FROM results"))

    def stop(self):
        self._other = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self._other.execute("BEGIN IMMEDIATE")

    def start(self):
        self._other.close()


class Postgres:
    def __init__(self, folder, server, jobs):
        self.server, self.schema = server, f"t{uuid.uuid4().hex}"
        self.sink = {"type": "postgres", "dsn": server.dsn, "schema": self.schema}
        self.stop, self.start = server.stop, server.start

    async def ids(self):
        async with self.server.connect() as connection:
            return Counter(row[0] for row in await connection.fetch(f"SELECT job_id FROM {self.schema}.results"))


class ObjectStore:
    def __init__(self, folder, server, jobs):
        bucket = f"b{uuid.uuid4().hex}"
        self.store = server.create(bucket)
        # As small as the rest of the test: some objects before, during and after.
        self.sink = {
            "type": "objectstore",
            "path": f"s3://{bucket}/pages.jsonl.gz",
            "options": server.options,
            "batch": {"size": jobs // 8, "bytes": "16MiB", "linger": "500ms"},
        }
        self.stop, self.start = server.stop, server.start

    async def ids(self):
        names = [meta["path"] for page in obstore.list(self.store) for meta in page]
        bodies = [gzip.decompress(bytes(obstore.get(self.store, name).bytes())) for name in names]
        assert len(bodies) > 1
        return Counter(json.loads(line)["job_id"] for body in bodies for line in body.splitlines())


class Redis:
    def __init__(self, folder, server, jobs):
        self.server, self.key = server, f"results-{uuid.uuid4().hex}"
        self.stop, self.start = server.stop, server.start
        self.sink = {"type": "redis", "url": server.url, "stream": self.key, "password": server.password}

    async def ids(self):
        with self.server.client() as client:
            return Counter(entry[b"job_id"].decode() for _, entry in client.xrange(self.key))


class Nats:
    def __init__(self, folder, server, jobs):
        self.server, self.stream = server, f"S{uuid.uuid4().hex}"
        self.stop, self.start = server.stop, server.start
        login = {"username": server.username, "password": server.password}
        place = {"servers": [server.url], "stream": self.stream, "subject": self.stream}
        self.sink = {"type": "nats"} | place | login

    async def ids(self):
        async with self.server.connection() as (_, jetstream):
            subscription = await jetstream.subscribe(self.stream, ordered_consumer=True)
            count = (await jetstream.stream_info(self.stream)).state.messages
            return Counter([(await subscription.next_msg(10)).headers["Fetcher-Job"] for _ in range(count)])


class Webhook:
    def __init__(self, folder, server, jobs):
        server.reset()
        self.server = server
        self.stop, self.start = server.stop, server.start
        self.sink = {"type": "webhook", "url": server.url}

    async def ids(self):
        return Counter(record["job_id"] for record in self.server.records)


STORED: dict[str, Any] = {"sqlite": Sqlite, "postgres": Postgres, "objectstore": ObjectStore}
STREAMS: dict[str, Any] = {"redis": Redis, "nats": Nats, "webhook": Webhook}
SERVERS = {"postgres": "postgres", "objectstore": "s3", "redis": "redis", "nats": "nats", "webhook": "webhook"}
"""The fixtures of the servers that targets need."""
