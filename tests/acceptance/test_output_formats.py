"""One batch into files of every format at once: killed at random moments, and read by programs that others wrote."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import duckdb
import fastwarc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from origin_process import origin_process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JOBS = 4000
FEW = 1500
HOSTS = 7
CRASHES = int(os.environ.get("CRASHES", "5"))
CONFIG = """\
sources: [urls.txt]
http: {{resolve: {{"*.test": 127.0.0.1}}}}
retry: {{attempts: 1}}
limits: {{concurrency: 60, per_host: {{concurrency: 30}}}}
max_failures: 100%
sinks:
  - out.jsonl
  - out.jsonl.zst
  - out.csv.gz
  - out.warc.gz
  - {{type: file, path: out.parquet, format: {{type: parquet, part_size: {part_size}}}}}
  - {{type: file, path: hosts.parquet, format: {{type: parquet, part_size: {part_size}, partition_by: host}}}}
"""


def prepare(folder, port, jobs=JOBS, part_size="300kB"):
    urls = [
        f"http://h{n % HOSTS}.test:{port}/{'status/404' if n % 10 == 3 else 'bytes/100'}?n={n}" for n in range(jobs)
    ]
    (folder / "urls.txt").write_text("\n".join(urls))
    (folder / "batch.yaml").write_text(CONFIG.format(part_size=part_size))
    return urls


def start(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def parts(path):
    return [file for file in path.rglob("part-*.parquet") if file.is_file()]


def urls_of(folder):
    """Return what each output has, by name."""
    rows = csv.DictReader(io.StringIO(gzip.decompress((folder / "out.csv.gz").read_bytes()).decode(), newline=""))
    lines = zstd.decompress((folder / "out.jsonl.zst").read_bytes()).splitlines()
    with (folder / "out.warc.gz").open("rb") as file:
        metadata = fastwarc.ArchiveIterator(file, record_types=fastwarc.WarcRecordType.metadata)
        archived = [json.loads(record.reader.read())["url"] for record in metadata]
    found = {
        "jsonl": [json.loads(line)["url"] for line in (folder / "out.jsonl").read_bytes().splitlines()],
        "zst": [json.loads(line)["url"] for line in lines],
        "csv": [row["url"] for row in rows],
        "warc": archived,
    }
    for name in ("out", "hosts"):
        found[name] = [
            url for part in parts(folder / f"{name}.parquet") for url in pq.ParquetFile(part).read()["url"].to_pylist()
        ]
    return found


@pytest.mark.timeout(60 + CRASHES * 10)
def test_killed_at_random_moments_every_format_has_each_record_once(tmp_path):
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments = random.Random(seed)
    killed = 0
    with origin_process() as origin:
        urls = prepare(tmp_path, origin.port)
        for _ in range(CRASHES):
            run = start(tmp_path)
            # Time is what is random here; what happened so far must be readable, whenever that is.
            time.sleep(moments.uniform(0.6, 2.0))
            if run.poll() is None:
                run.send_signal(signal.SIGKILL)
                killed += 1
            run.communicate()
            for part in (*parts(tmp_path / "out.parquet"), *parts(tmp_path / "hosts.parquet")):
                assert pq.ParquetFile(part).read().num_rows > 0
        last = start(tmp_path)
        _, said = last.communicate(timeout=60)
        assert last.returncode == 0, said
    assert killed >= min(CRASHES, 2), "the batch was over before it could be killed"
    for name, found in urls_of(tmp_path).items():
        assert Counter(found) == Counter(urls), name
    assert not [file for file in tmp_path.rglob("_*") if file.name.endswith((".drafts", ".unfinished"))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The outputs of a batch that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    with origin_process() as origin:
        prepare(folder, origin.port, jobs=FEW, part_size="50kB")
        run = start(folder)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
    return folder


def checked(folder, *command):
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_warcio_finds_nothing_wrong(finished):
    said = checked(finished, "warcio", "check", "-v", "out.warc.gz")
    assert said.count("digest pass") == 1 + 3 * FEW
    assert "failed" not in said


def test_fastwarc_finds_nothing_wrong(finished):
    checked(finished, "fastwarc", "check", "out.warc.gz")
    with (finished / "out.warc.gz").open("rb") as file:
        kinds = Counter(record.headers["WARC-Type"] for record in fastwarc.ArchiveIterator(file))
    assert kinds == {"warcinfo": 1, "response": FEW, "request": FEW, "metadata": FEW}


def test_an_index_leads_to_every_response(finished):
    lines = checked(finished, "fetcher", "cdxj", "out.warc.gz").splitlines()
    assert lines == sorted(lines)
    assert len(lines) == FEW


def test_duckdb_and_pyarrow_read_the_parts(finished):
    assert len(parts(finished / "out.parquet")) > 1
    read = f"SELECT count(*), count(DISTINCT url) FROM read_parquet('{finished}/out.parquet/*.parquet')"
    assert duckdb.sql(read).fetchall() == [(FEW, FEW)]
    assert pq.read_table(finished / "out.parquet").num_rows == FEW
    read = f"SELECT host, count(*) FROM read_parquet('{finished}/hosts.parquet/*/*.parquet') GROUP BY host"
    expected = Counter(f"h{n % HOSTS}.test" for n in range(FEW))
    assert dict(duckdb.sql(read).fetchall()) == expected
    table = ds.dataset(finished / "hosts.parquet", partitioning="hive").to_table()
    assert Counter(table["host"].to_pylist()) == expected


def test_duckdb_reads_the_csv(finished):
    path = finished / "out.csv.gz"
    rows = duckdb.sql(f"SELECT outcome, count(*), max(body_size) FROM read_csv('{path}', header=true) GROUP BY 1")
    assert sorted((outcome, number) for outcome, number, _ in rows.fetchall()) == [
        ("failed", FEW // 10),
        ("ok", FEW * 9 // 10),
    ]
