"""Several sinks through kill -9: each has its records exactly once, whatever the sizes of their batches (F80, F96)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

from origin_process import origin_process

JOBS = 3000
KILLS = 4
CONFIG = """
sources: ["{url}/delay/0.01/bytes/100?n={{1..{jobs}}}", "{url}/status/404?n={{1..{bad}}}"]
limits: {{concurrency: 40, per_host: {{concurrency: 40}}}}
stages:
  - {{type: python, function: "marks:mark"}}
  - status != 404 or meta.kept
sinks:
  - all.jsonl
  - {{type: file, path: large.jsonl, batch: {{size: 700, linger: 1s}}, drop: [body]}}
  - {{type: file, path: odd.jsonl, where: meta.odd, batch: {{size: 100, linger: 300ms}}}}
max_failures: 100%
"""
FUNCTIONS = """
def mark(result):
    number = int(result.url.rpartition("=")[2])
    result.meta = {"odd": number % 2 == 1, "kept": number % 3 == 0}
    return result
"""


def start(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def urls(path):
    return Counter(json.loads(line)["url"] for line in path.read_bytes().splitlines())


def test_killed_at_random_moments_each_sink_has_its_records_once(tmp_path):
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments, killed = random.Random(seed), 0
    (tmp_path / "marks.py").write_text(FUNCTIONS)
    with origin_process() as origin:
        (tmp_path / "batch.yaml").write_text(CONFIG.format(url=origin.url, jobs=JOBS, bad=JOBS // 10))
        for _ in range(KILLS):
            run = start(tmp_path)
            # Time is what is random here: some kills hit the start, most the middle of the work.
            time.sleep(moments.uniform(0.6, 1.4))
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                killed += 1
            run.communicate()
        last = start(tmp_path)
        _, said = last.communicate(timeout=60)
    assert last.returncode == 0, said
    assert killed >= 2, "the batch was over before it could be killed"
    assert f"{JOBS + JOBS // 10:,} jobs" in said
    assert "all accounted for" in said
    assert "200 records that a stage has dropped" in said
    good = {f"{origin.url}/delay/0.01/bytes/100?n={n}" for n in range(1, JOBS + 1)}
    kept = {f"{origin.url}/status/404?n={n}" for n in range(3, JOBS // 10 + 1, 3)}
    assert urls(tmp_path / "all.jsonl") == urls(tmp_path / "large.jsonl") == Counter(good | kept)
    odd = {url for url in good | kept if int(url.rpartition("=")[2]) % 2}
    assert urls(tmp_path / "odd.jsonl") == Counter(odd)
