"""kill -9 at random moments loses nothing and duplicates nothing (F80, F81, F91)."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
from origin_process import origin_process

JOBS = 6000
HOSTS = 30
CRASHES = int(os.environ.get("CRASHES", "10"))


def write_batch(folder, port):
    """Write an input of every kind of row, and a config that takes several seconds to work through."""
    rows = []
    for n in range(JOBS):
        path = "/delay/0.02/bytes/200"
        if n % 40 == 7:
            path = "/flaky/1/bytes/100"
        elif n % 40 == 17:
            path = "/status/404"
        elif n % 40 == 27:
            path = "/truncated/600"
        rows.append("not a url" if n % 500 == 3 else f"http://h{n % HOSTS}.test:{port}{path}?n={n}")
    (folder / "urls.csv").write_text("url,n\n" + "".join(f"{url},{n}\n" for n, url in enumerate(rows)))
    (folder / "batch.yaml").write_text(
        "sources: [urls.csv]\nsinks: [out.jsonl]\nbody: none\n"
        "http: {resolve: {'*.test': 127.0.0.1}}\n"
        "retry: {attempts: 3, backoff: 10ms}\nlimits: {concurrency: 60, per_host: {concurrency: 4}}\n"
        "max_failures: 100%\n"
    )
    return [url for url in rows if url.startswith("http")]


def start(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def records(folder):
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def reconcile(folder, urls, log):
    """Hold output, queue and the origin's log against one another."""
    found = records(folder)
    assert Counter(record["meta"]["n"] for record in found) == Counter(str(n) for n in range(JOBS))
    assert len({record["job_id"] for record in found}) == JOBS
    outcomes = Counter(record["outcome"] for record in found)
    with sqlite3.connect(folder / "state" / "batch.db") as queue:
        counts = dict(queue.execute("SELECT name, n FROM counts"))
        assert queue.execute("SELECT count(*) FROM done").fetchone()[0] == JOBS
        assert queue.execute("SELECT count(*) FROM delayed").fetchone()[0] == 0
    assert counts == {"added": JOBS, **outcomes}
    fetched = {f"http://{line['host']}{line['path']}" for line in log}
    assert {url.replace(f":{url.rsplit(':', 1)[1].split('/')[0]}", "") for url in urls} == fetched


@pytest.mark.timeout(60 + CRASHES * 10)
def test_killed_at_random_moments_every_job_has_exactly_one_record(tmp_path):
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments = random.Random(seed)
    killed = 0
    with origin_process(access_log=tmp_path / "access.jsonl") as origin:
        urls = write_batch(tmp_path, origin.port)
        for _ in range(CRASHES):
            run = start(tmp_path)
            # Time is what is random here: some kills hit the start, most the middle of the work.
            time.sleep(moments.uniform(0.3, 1.3))
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                killed += 1
            run.communicate()
        last = start(tmp_path)
        _, said = last.communicate(timeout=60)
        assert last.returncode == 0, said
    assert "all accounted for" in said
    assert killed >= min(CRASHES, 3), "the batch was over before it could be killed"
    reconcile(tmp_path, urls, origin.log_lines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_records_what_was_fetched_and_can_be_resumed(tmp_path, number):
    with origin_process(access_log=tmp_path / "access.jsonl") as origin:
        urls = write_batch(tmp_path, origin.port)
        run = start(tmp_path)
        wait_for_records(tmp_path, run)
        run.send_signal(number)
        _, said = run.communicate(timeout=20)
        assert run.returncode == 75, said
        assert "run the same command again to resume" in said
        recorded = records(tmp_path)
        assert 0 < len(recorded) < JOBS
        # Whatever was answered is recorded, but for what is to be tried again.
        answered = {line["path"] for line in origin.log_lines() if line["status"] == 200}
        missing = answered - {
            record["url"].partition(".test")[2].partition("/")[2].join(["/", ""]) for record in recorded
        }
        assert not {path for path in missing if path.startswith("/delay")}
        again = start(tmp_path)
        _, said = again.communicate(timeout=60)
        assert again.returncode == 0, said
        assert f"resuming batch: {len(recorded)} of" in said.replace(",", "")
    reconcile(tmp_path, urls, origin.log_lines())


def test_a_second_signal_ends_it_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{{1..10}}"
        (tmp_path / "batch.yaml").write_text(f"sources: ['{url}']\nsinks: [out.jsonl]\nshutdown_timeout: 1h\n")
        run = start(tmp_path)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1000).startswith(b"GET /")
            run.send_signal(signal.SIGTERM)
            time.sleep(0.3)  # two signals at the same moment are one
            assert run.poll() is None
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=10)
    assert run.returncode == -signal.SIGTERM


def wait_for_file(path, run, size=0):
    for _ in range(2000):
        if run.poll() is not None:
            raise AssertionError(run.stderr.read())
        if path.exists() and path.stat().st_size >= size:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} did not appear")


def wait_for_records(folder, run):
    wait_for_file(folder / "out.jsonl", run, size=100_000)


def test_a_stop_longer_than_the_lease_duplicates_nothing(tmp_path):
    """F83: leases that lapsed while the process was stopped are renewed before anything is leased anew."""
    with origin_process(access_log=tmp_path / "access.jsonl") as origin:
        urls = write_batch(tmp_path, origin.port)
        with (tmp_path / "batch.yaml").open("a") as config:
            config.write("queue: {type: sqlite, lease: 1s}\n")
        run = start(tmp_path)
        for _ in range(2):
            wait_for_records(tmp_path, run)
            run.send_signal(signal.SIGSTOP)
            time.sleep(2.2)  # this is what is tested: time that passes while nothing runs
            run.send_signal(signal.SIGCONT)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
    reconcile(tmp_path, urls, origin.log_lines())
