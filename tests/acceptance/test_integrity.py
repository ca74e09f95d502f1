"""Twenty thousand answers, one in twenty of them hostile: every body is the right one, or there is none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import hostile_origin
from hostile_origin import body_of, hostility

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = int(os.environ.get("ANSWERS", "20000"))
PEERS = [f"127.0.1.{number}" for number in range(1, 21)]
KINDS = {
    "truncated": {"body_incomplete"},
    "half gzip": {"body_incomplete"},
    "reset": {"body_incomplete", "connection_reset"},
    "bad chunk": {"bad_http"},
    "bomb": {"body_too_large"},
    "drip": {"too_slow"},
}
MOST_MEMORY = 250 * 1024  # KiB; 200 bombs at a time would be 12 GiB
CONFIG = """\
sources: [urls.txt]
sinks: [out.jsonl]
http: {resolve: {%s}}
request: {min_rate: 100B, min_rate_span: 1s, timeout: {total: 20s}}
body: {store: inline, max_size: 1MiB}
retry: {attempts: 2, backoff: 10ms}
limits: {concurrency: 200, per_host: {concurrency: 20}}
max_failures: 100%%
"""


@contextmanager
def origin() -> Iterator[int]:
    script = Path(hostile_origin.__file__)
    process = subprocess.Popen([sys.executable, script, *PEERS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=10)


def run(folder: Path) -> tuple[int, str, int]:
    """Run the batch; return its exit code, its messages, and its peak of resident memory in KiB."""
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    memory = 0
    with (
        (folder / "messages.txt").open("wb") as messages,
        subprocess.Popen(command, cwd=folder, stderr=messages) as process,
    ):
        # Not the usage that the system tells at the end: in it is what this process had when it made that one.
        while process.poll() is None:
            memory = max(memory, peak(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    return process.returncode, (folder / "messages.txt").read_text(), memory


def peak(pid: int) -> int:
    """Return the most resident memory that a process has had, in KiB; 0 before and after its life."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) if found and b"batch.yaml" in command else 0


def test_every_body_belongs_to_its_url(tmp_path):
    with origin() as port:
        urls = [f"http://h{n % len(PEERS)}.test:{port}/{n % 7}/{n}" for n in range(ANSWERS)]
        (tmp_path / "urls.txt").write_text("\n".join(urls))
        resolve = ", ".join(f"h{index}.test: {peer}" for index, peer in enumerate(PEERS))
        (tmp_path / "batch.yaml").write_text(CONFIG % resolve)
        code, messages, memory = run(tmp_path)
        with urlopen(f"http://{PEERS[0]}:{port}{hostile_origin.PUSHES}") as answer:
            pushes = int(answer.read())
    assert code == 0, messages
    assert "all accounted for" in messages
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(record["url"] for record in records) == sorted(urls)
    ended = Counter()
    for record in records:
        path = re.sub(r"^http://[^/]+", "", record["url"])
        way = hostility(int(path.rpartition("/")[2]))
        ended[way, record["outcome"], record.get("error_kind")] += 1
        if record["outcome"] == "ok":
            assert record["body"] == body_of(path).decode()
            assert way in {None, "push"}
        else:
            assert record["error_kind"] in KINDS[way or "healthy"], record
            assert "body" not in record
    hostile = sum(count for (way, _, _), count in ended.items() if way)
    assert hostile == ANSWERS // hostile_origin.ONE_IN
    assert {way for way, _, _ in ended if way} == set(hostile_origin.HOSTILE)
    assert 0 < memory < MOST_MEMORY
    assert pushes > 0
