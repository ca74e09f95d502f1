"""``fetcher run`` as a user starts it: SQLite queue, JSONL file. A process of its own, watched from this one.

``seconds`` is the batch's own elapsed time, from its tally. ``cpu_s`` and ``max_rss`` are of the whole
process, its start included.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import msgspec

from benchmarks.batch_files import read_records, write_config
from benchmarks.contenders import Fetched, Task, rusage_rss


class _Tally(msgspec.Struct):
    elapsed: float


def fetch(task: Task) -> Fetched:
    """Run the command to its end and read what it left behind."""
    command = [sys.executable, "-m", "fetcher", "run", str(write_config(task))]
    fetched = Fetched(started_at=time.time())
    with (task.folder / "stderr.txt").open("w+b") as errors:
        process = subprocess.Popen(command, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.stderr.buffer.write(errors.read())
    fetched.cpu_s = usage.ru_utime + usage.ru_stime
    fetched.max_rss = rusage_rss(usage)
    with closing(sqlite3.connect(task.folder / "queue.db")) as db:
        (text,) = db.execute("SELECT value FROM marks WHERE name = 'tally'").fetchone()
    fetched.seconds = msgspec.json.decode(text, type=_Tally).elapsed
    read_records(task, fetched)
    return fetched
