"""Batches whose target is away for part of the time, as processes: what they have in memory stays within a bound.

``SOAK=20000`` makes them that long, with bodies that would be several times the bound; by default they are short.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from origin_process import origin_process
from outage_targets import SERVERS, STORED, STREAMS

JOBS = int(os.environ.get("SOAK", "1500"))
SIZE = 24_576
# KiB: the process itself, and three times 32 MiB of bodies (written, ready, gathered) with what they are encoded to.
# 20,000 of these bodies and their records, held at once, would be more.
MOST = 512 * 1024
LOOK = 0.1
pytestmark = [
    pytest.mark.timeout(60 + JOBS // 25),
    pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc"),
]


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


@pytest.mark.parametrize("name", [*STORED, *STREAMS])
async def test_the_memory_of_a_batch_whose_target_is_away_is_bounded(name, request, origin, tmp_path):
    server = SERVERS.get(name)
    target = (STORED | STREAMS)[name](tmp_path, server and request.getfixturevalue(server), JOBS)
    config = {
        "sources": [f"{origin.url}/bytes/{SIZE}?{{1..{JOBS}}}"],
        "sinks": ["out.jsonl", target.sink],
        "limits": {"concurrency": 100, "per_host": {"concurrency": 100}},
    }
    (tmp_path / "batch.yaml").write_text(json.dumps(config))
    run = Run(tmp_path)
    try:
        await run.until(lambda: run.records() >= JOBS // 10)
        await asyncio.to_thread(target.stop)
        try:
            await run.until_it_stands_still()
            assert JOBS < 12_000 or run.records() < JOBS, "it was fetched on and on"
        finally:
            await asyncio.to_thread(target.start)
        assert await run.ended() == 0, run.said()
    finally:
        run.close()
    assert "all accounted for" in run.said()
    assert len(await target.ids()) == JOBS
    sys.stderr.write(f"{name}: {run.peak:,} KiB\n")
    assert run.peak <= MOST


class Run:
    """A process that is looked at; ``peak`` is the most memory that it was seen to have had, in KiB."""

    def __init__(self, folder: Path) -> None:
        self._out, self._log = folder / "out.jsonl", folder / "log"
        self.peak = 0
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fetcher", "run", "batch.yaml"], cwd=folder, stderr=log
            )

    def said(self):
        return self._log.read_text()

    def records(self):
        return self._out.read_bytes().count(b"\n") if self._out.exists() else 0

    async def until(self, condition):
        while not condition():
            assert self._look() is None, f"the batch has ended too early: {self.said()}"
            await asyncio.sleep(LOOK)

    async def until_it_stands_still(self):
        """Wait until nothing is written any more though there was time for it."""
        before, quiet = -1, 0
        while quiet < 1.5:
            now = self.records()
            before, quiet = now, (quiet + LOOK if now == before else 0)
            self._look()
            await asyncio.sleep(LOOK)

    async def ended(self):
        while self._look() is None:  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(LOOK)
        return self._process.returncode

    def close(self):
        self._process.kill()
        self._process.wait()

    def _look(self):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        if found is not None:  # there is none of a process that has just ended
            self.peak = max(self.peak, int(found[1]))
        return self._process.poll()
