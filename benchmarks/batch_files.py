"""The files around a batch of this project: the config that goes in, the records that come out."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contenders import Fetched, Task

_CONFIG = """\
name: bench
sources: [{{type: file, format: txt, path: "{urls}"}}]
limits: {{concurrency: {concurrency}, per_host: {{concurrency: {per_host}}}}}
request: {{timeout: {{connect: 60s}}}}
body: {{store: none, max_size: 1GiB}}
http: {{resolve: {{"*.test": 127.0.0.1}}, tls: {{ca_file: {ca}}}}}
queue: {{type: sqlite, path: "{folder}/queue.db"}}
sinks: [{{type: file, format: jsonl, path: "{folder}/records.jsonl"}}]
"""


class _Record(msgspec.Struct):
    job_id: str
    url: str
    outcome: str
    started_at: datetime
    total_s: float = 0.0
    body_size: int = 0


def write_config(task: Task) -> Path:
    """Write the config of a task: SQLite queue, JSONL file, no bodies; return where it is."""
    path = task.folder / "bench.yaml"
    text = _CONFIG.format(
        urls=task.urls,
        folder=task.folder,
        concurrency=task.concurrency,
        per_host=task.per_host,
        ca=json.dumps(str(task.ca)) if task.ca else "null",
    )
    path.write_text(text, encoding="utf-8")
    return path


def read_records(task: Task, fetched: Fetched) -> None:
    """Count the records that say ok, every job once, and what they say of bytes and times."""
    decode = msgspec.json.Decoder(_Record).decode
    seen: set[int] = set()
    service: dict[str, float] = {}
    first, last = float("inf"), 0.0
    with (task.folder / "records.jsonl").open("rb") as lines:
        for line in lines:
            record = decode(line)
            number = int(record.job_id.partition("-")[2])
            if record.outcome != "ok" or number in seen:
                continue
            seen.add(number)
            fetched.bytes += record.body_size
            host = urlsplit(record.url).netloc
            service[host] = service.get(host, 0.0) + record.total_s
            start = record.started_at.timestamp()
            first, last = min(first, start), max(last, start + record.total_s)
    fetched.count = len(seen)
    if seen:
        fetched.first_fetch_at, fetched.span_s = first, last - first
        fetched.service_s = sum(service.values()) / len(seen)
        fetched.busiest_host_s = max(service.values())
