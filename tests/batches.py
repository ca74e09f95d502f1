"""Whole batches from a config, run in this process against servers of the test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fetcher.assembly import Batch
from fetcher.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEST_HOSTS = {"resolve": {"*.test": "127.0.0.1"}}


async def run_batch(folder: Path, jobs: Sequence[str | dict[str, Any]], **sections: Any) -> list[dict[str, Any]]:
    """Run jobs to their end and return the records, in the order in which they were written.

    ``*.test`` is the loopback; the keywords are the sections of a config.
    """
    out = folder / "out.jsonl"
    rows = [{"url": job} if isinstance(job, str) else job for job in jobs]
    config = {
        "sources": [{"type": "inline", "jobs": rows}],
        "queue": "memory",
        "http": TEST_HOSTS,
        "sinks": [{"type": "file", "path": str(out), "format": "jsonl"}],
    }
    batch = Batch(Config.model_validate(config | sections), fresh=True)
    await batch.open()
    try:
        assert await batch.run()
        assert batch.engine.accounted
    finally:
        await batch.close()
    return [json.loads(line) for line in out.read_bytes().splitlines()]
