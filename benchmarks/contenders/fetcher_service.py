"""A batch through ``fetcher serve``: a process of its own, which is submitted to, and asked, as its clients do.

``seconds`` is the batch's own elapsed time, as that of ``fetcher_run`` is. ``cpu_s`` is that of the service from
before the submission to after the end. Variants: ``watched`` has somebody look at the page all the while, ``two``
submits the URLs as two batches side by side, whose time goes from the first start to the last end.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.batch_files import read_records
from benchmarks.contenders import Fetched, Task, peak_rss
from fetcher.service.client import Client, Upload
from fetcher.service.models import ENDED, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetcher.service.models import BatchView

_SERVICE = """\
service: {{port: 0, state_dir: "{folder}/state", files: "{files}"}}
limits: {{concurrency: {concurrency}, per_host: {{concurrency: {per_host}}}}}
http: {{guard: false, resolve: {{"*.test": 127.0.0.1}}}}
"""
_BATCH = """\
name: bench
sources: [{{type: file, format: txt, path: "{urls}"}}]
request: {{timeout: {{connect: 60s}}}}
body: {{store: none, max_size: 1GiB}}
"""
_START = 60.0
_LOOK_EVERY = 0.25


def fetch(task: Task) -> Fetched:
    """Start a service, have it fetch, and read what it has kept."""
    with _service(task) as (process, url):
        return asyncio.run(_fetch(task, process, url))


@contextmanager
def _service(task: Task) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    config = task.folder / "service.yaml"
    text = _SERVICE.format(
        folder=task.folder, files=task.folder.anchor, concurrency=task.concurrency, per_host=task.per_host
    )
    config.write_text(text, encoding="utf-8")
    log = task.folder / "service.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-m", "fetcher", "serve", str(config)], stderr=errors)
    try:
        yield process, _url(process, log)
        process.terminate()
        process.wait(_START)
    except BaseException:
        sys.stderr.write(log.read_text("utf-8"))
        raise
    finally:
        process.kill()
        process.wait()


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the service listens, once its log says so."""
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            with suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == "service_started":
                    return str(said["url"])
        time.sleep(0.02)
    raise RuntimeError("the service did not start")


async def _fetch(task: Task, process: subprocess.Popen[bytes], url: str) -> Fetched:
    fetched = Fetched()
    files = _halves(task) if task.variant == "two" else [task.urls]
    watching = asyncio.create_task(_watch(url)) if task.variant == "watched" else None
    before = _cpu_seconds(process.pid)
    async with Client(url) as client:
        made = [await client.submit(_upload(file)) for file in files]
        batches = [await _ended(client, batch.id) for batch in made]
    fetched.cpu_s = _cpu_seconds(process.pid) - before
    fetched.max_rss = peak_rss(process.pid)
    if watching is not None:
        watching.cancel()
    fetched.seconds = _span(batches)
    for batch in batches:
        records = task.folder / "records.jsonl"
        records.unlink(missing_ok=True)
        records.hardlink_to(task.folder / "state" / "batches" / batch.id / "results.jsonl")
        part = Fetched()
        read_records(task, part)
        fetched.count += part.count
        fetched.bytes += part.bytes
    return fetched


def _upload(urls: Path) -> Upload:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False, dir=urls.parent, encoding="utf-8") as config:
        config.write(_BATCH.format(urls=urls))
    return Upload(Path(config.name), "application/yaml")


def _halves(task: Task) -> list[Path]:
    urls = task.read()
    files = []
    for number in range(2):
        file = task.folder / f"half-{number}.txt"
        file.write_text("\n".join(urls[number::2]), encoding="utf-8")
        files.append(file)
    return files


async def _ended(client: Client, batch_id: str) -> BatchView:
    while (batch := await client.batch(batch_id)).state not in ENDED:  # noqa: ASYNC110  it is another process
        await asyncio.sleep(_LOOK_EVERY)
    if batch.state is not State.DONE:
        raise RuntimeError(f"the batch is {batch.state}: {batch.reason}")
    return batch


def _span(batches: Sequence[BatchView]) -> float:
    if len(batches) == 1:
        return batches[0].progress.elapsed
    starts = [batch.started_at for batch in batches if batch.started_at]
    ends = [batch.finished_at for batch in batches if batch.finished_at]
    return (max(ends) - min(starts)).total_seconds()


async def _watch(url: str) -> None:
    """Listen as the page does."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events") as events:
        async for _ in events.content.iter_any():
            pass


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
