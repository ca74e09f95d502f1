"""The sinks that are compared: how a config names each, and how its records are counted when it is done."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks.servers import KNOWN

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Output(msgspec.Struct, frozen=True):
    """A sink as a setting, and how to read job id and body size of each of its records.

    ``{folder}`` in the setting is the folder of the contender; a ``server`` of ``benchmarks/servers.py`` has its own
    names. ``where`` is the output, or the file that names the server.
    """

    setting: str
    read: Callable[[Path], Iterator[tuple[str, int]]]
    where: str
    server: str = ""


def _of_lines(data: bytes) -> Iterator[tuple[str, int]]:
    for line in data.splitlines():
        record = json.loads(line)
        yield record["job_id"], record["body_size"]


def _of_csv(path: Path) -> Iterator[tuple[str, int]]:
    csv.field_size_limit(2**30)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield row["job_id"], int(row["body_size"])


def _of_parts(path: Path) -> Iterator[tuple[str, int]]:
    import pyarrow.parquet as pq  # noqa: PLC0415  an extra

    for part in path.rglob("part-*.parquet"):
        table = pq.ParquetFile(part).read(["job_id", "body_size"])
        yield from zip(table["job_id"].to_pylist(), table["body_size"].to_pylist(), strict=True)


def _of_warc(path: Path) -> Iterator[tuple[str, int]]:
    import fastwarc  # noqa: PLC0415  an extra

    with path.open("rb") as file:
        for record in fastwarc.ArchiveIterator(file, record_types=fastwarc.WarcRecordType.metadata):
            about = json.load(io.BytesIO(record.reader.read()))
            yield about["job_id"], about["body_size"]


def _of_sqlite(path: Path) -> Iterator[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as database:
        yield from database.execute("SELECT job_id, body_size FROM results")


def _of_postgres(path: Path) -> Iterator[tuple[str, int]]:
    import asyncpg  # noqa: PLC0415  an extra

    dsn = json.loads(path.read_bytes())["dsn"]

    async def rows() -> list[tuple[str, int]]:
        connection = await asyncpg.connect(dsn)
        try:
            return [tuple(row) for row in await connection.fetch("SELECT job_id, body_size FROM results")]
        finally:
            await connection.close()

    yield from asyncio.run(rows())


def _of_objects(path: Path) -> Iterator[tuple[str, int]]:
    for part in path.iterdir():
        yield from _of_lines(part.read_bytes())


def _of_posted(path: Path) -> Iterator[tuple[str, int]]:
    for body in path.with_name("posted").read_bytes().splitlines():
        for record in json.loads(body):
            yield record["job_id"], record["body_size"]


def _of_redis(path: Path) -> Iterator[tuple[str, int]]:
    import redis  # noqa: PLC0415  an extra

    server = json.loads(path.read_bytes())
    with redis.Redis(port=int(server["port"]), password=server["password"]) as client:
        for _, entry in client.xrange("results"):
            yield from _of_lines(entry[b"record"])


def _of_nats(path: Path) -> Iterator[tuple[str, int]]:
    import nats  # noqa: PLC0415  an extra

    server = json.loads(path.read_bytes())

    async def messages() -> list[bytes]:
        client = await nats.connect(server["url"], user=server["username"], password=server["password"])
        try:
            stream = client.jetstream()
            count = (await stream.stream_info("RESULTS")).state.messages
            subscription = await stream.subscribe("results", ordered_consumer=True)
            return [(await subscription.next_msg(10)).data for _ in range(count)]
        finally:
            await client.close()

    for data in asyncio.run(messages()):
        yield from _of_lines(data)


JSONL = "jsonl"
OUTPUTS = {
    JSONL: Output("{folder}/x.jsonl", lambda path: _of_lines(path.read_bytes()), "x.jsonl"),
    "jsonl.gz": Output("{folder}/x.jsonl.gz", lambda path: _of_lines(gzip.decompress(path.read_bytes())), "x.jsonl.gz"),
    "jsonl.zst": Output(
        "{folder}/x.jsonl.zst", lambda path: _of_lines(zstd.decompress(path.read_bytes())), "x.jsonl.zst"
    ),
    "csv": Output("{folder}/x.csv", _of_csv, "x.csv"),
    "parquet": Output("{folder}/x.parquet", _of_parts, "x.parquet"),
    "parquet by host": Output(
        "{{type: file, path: {folder}/h.parquet, format: {{type: parquet, partition_by: host}}}}",
        _of_parts,
        "h.parquet",
    ),
    "sqlite": Output("{{type: sqlite, path: {folder}/x.db}}", _of_sqlite, "x.db"),
    "postgres": Output('{{type: postgres, dsn: "{dsn}"}}', _of_postgres, KNOWN, "postgres"),
    "objectstore (a folder)": Output('"file://{folder}/objects/x.jsonl"', _of_objects, "objects/x.jsonl"),
    "webhook": Output('{{type: webhook, url: "{url}"}}', _of_posted, KNOWN, "webhook"),
    "redis": Output(
        '{{type: redis, url: "redis://127.0.0.1:{port}/0", password: "{password}", stream: results}}',
        _of_redis,
        KNOWN,
        "redis",
    ),
    "nats": Output(
        '{{type: nats, servers: ["{url}"], username: "{username}", password: "{password}", '
        "stream: RESULTS, subject: results}}",
        _of_nats,
        KNOWN,
        "nats",
    ),
    "warc": Output("{folder}/x.warc", _of_warc, "x.warc"),
    "warc.gz": Output("{folder}/x.warc.gz", _of_warc, "x.warc.gz"),
    "warc.zst": Output("{folder}/x.warc.zst", _of_warc, "x.warc.zst"),
}
