"""kill -9 at random moments in the middle of listings: every page has exactly one record, and none is missing."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
from origin_process import origin_process

LISTINGS = 20
PAGES = 30
SIZE = 5
CRASHES = int(os.environ.get("CRASHES", "5"))


def write_batch(folder, port):
    """Write a config that takes several seconds to work through: a page can not be asked for before the one before."""
    urls = [
        f"http://h{n}.test:{port}/delay/0.05/items?total={PAGES * SIZE}&limit={SIZE}&n={n}" for n in range(LISTINGS)
    ]
    (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
    (folder / "batch.yaml").write_text(
        "sources: [urls.txt]\nsinks: [out.jsonl]\nhttp: {resolve: {'*.test': 127.0.0.1}}\n"
        f"pagination: {{offset: {{limit: {SIZE}, limit_param: limit, items: items, total: total}}}}\n"
    )


def start(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def wait_for_records(folder, run, count):
    """Wait until there are so many records, acknowledged or not, or the run has ended."""
    path = folder / "out.jsonl"
    for _ in range(4000):
        if run.poll() is not None or (path.exists() and path.read_bytes().count(b"\n") >= count):
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} has not got {count} records")


def reconcile(folder):
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    wanted = Counter(
        f"0-{row}" + (f"~{page}" if page > 1 else "") for row in range(1, LISTINGS + 1) for page in range(1, PAGES + 1)
    )
    assert Counter(record["job_id"] for record in records) == wanted
    items = {}
    for record in records:
        root = record.get("parent_id", record["job_id"])
        assert record["job_id"] == (root if record["page"] == 1 else f"{root}~{record['page']}")
        assert record["has_more"] is (record["page"] < PAGES)
        items.setdefault(root, []).extend(item["id"] for item in json.loads(record["body"])["items"])
    assert all(sorted(found) == list(range(PAGES * SIZE)) for found in items.values())
    with sqlite3.connect(folder / "state" / "batch.db") as queue:
        # No job was added twice, and none that was fetched again counts as one that was named twice.
        assert dict(queue.execute("SELECT name, n FROM counts")) == {"added": LISTINGS * PAGES, "ok": LISTINGS * PAGES}
        assert queue.execute("SELECT count(*) FROM delayed").fetchone()[0] == 0


@pytest.mark.timeout(60 + CRASHES * 10)
def test_killed_in_the_middle_of_listings_every_page_has_exactly_one_record(tmp_path):
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments = random.Random(seed)
    killed = 0
    with origin_process(access_log=tmp_path / "access.jsonl") as origin:
        write_batch(tmp_path, origin.port)
        for crash in range(CRASHES):
            run = start(tmp_path)
            wait_for_records(tmp_path, run, LISTINGS * PAGES * crash // (CRASHES + 2))
            time.sleep(moments.uniform(0, 0.2))  # what is random here: anything may be under way
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                killed += 1
            run.communicate()
        last = start(tmp_path)
        _, said = last.communicate(timeout=60)
        assert last.returncode == 0, said
    assert "all accounted for" in said
    assert "duplicates" not in said
    assert killed >= min(CRASHES, 3), "the batch was over before it could be killed"
    assert len(origin.log_lines()) > LISTINGS * PAGES, "no page was fetched again: nothing was in the middle"
    reconcile(tmp_path)
