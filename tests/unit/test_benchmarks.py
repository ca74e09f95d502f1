"""Every case at a tiny size, so that a broken contender is noticed. What it costs is asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.batch_files import read_records
from benchmarks.cases import Case, Check, Report, all_cases
from benchmarks.contenders import Fetched, Task, metered
from benchmarks.inputs import write_urls, zipf_hosts
from benchmarks.measure import ContenderError, Entrant, bench, spread

REQUESTS = 200
ROWS = {
    "engine": {"bare_aiohttp": 200, "fetcher_null": 200},
    "end_to_end": {"bare_aiohttp": 200, "fetcher_run": 200, "fetcher_batch": 200},
    "scale": {
        "fetcher_null 2": 2,
        "fetcher_null 20": 20,
        "fetcher_null 200": 200,
        "fetcher_run 2": 2,
        "fetcher_run 20": 20,
    },
    "hosts": {f"{name}, {order}": 200 for name in ("steep", "flat") for order in ("random", "sorted")},
}


def test_every_case_is_tested():
    assert set(ROWS) == set(all_cases())


@pytest.mark.parametrize("case", ROWS)
def test_case(case, tmp_path, capsys):
    file = tmp_path / "report.json"
    arguments = [
        case,
        "--repeat",
        "1",
        "--requests",
        str(REQUESTS),
        "--concurrency",
        "20",
        "--json",
        str(file),
    ]
    assert program.main(arguments) == 0
    document = json.loads(file.read_bytes())
    (table,) = document["report"]["tables"]
    assert [row[0] for row in table["rows"]] == list(ROWS[case])
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    counts = {sample["label"]: sample["fetched"]["count"] for sample in document["report"]["samples"]}
    assert {label: counts[label] for label in ROWS[case]} == ROWS[case]
    assert document["report"]["checks"]
    output = capsys.readouterr().out
    assert all(f"│ {label} " in output for label in ROWS[case])
    assert all(word in output for word in ("CPython", "aiohttp 3", "core"))


def test_without_a_case_they_are_listed_with_their_goals():
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == list(all_cases())
    assert all(case.goal in done.stdout for case in all_cases().values())


@pytest.mark.parametrize(("count", "size"), [(11, 110), (10, 101)], ids=["a response", "a byte"])
def test_a_contender_that_misses_something_fails(count, size):
    with bench() as ready:
        urls = write_urls(ready, 10, "/bytes/10")
        with pytest.raises(ContenderError, match="bare_aiohttp: got 10 responses with 100 bytes"):
            ready.run(Entrant("bare_aiohttp", "bare_aiohttp", urls, count, size))


def test_a_contender_that_breaks_down_fails_the_program(monkeypatch, capfd):
    def run(ready, options):
        return ready.run(Entrant("gone", "no_such_module", Path("urls.txt"), 1, 1))

    monkeypatch.setattr(program, "all_cases", lambda: {"broken": Case("None.", run, 1)})
    assert program.main(["broken"]) == 1
    assert "gone: exit code 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("check", "code"), [([], 0), (["--check"], 1)], ids=["without --check", "with --check"]
)
def test_a_missed_bound_counts_only_if_asked_for(check, code, monkeypatch):
    report = Report(tables=[], checks=[Check("at least 2", "1", held=False)], samples=[])
    monkeypatch.setattr(program, "all_cases", lambda: {"slow": Case("None.", lambda *_: report, 1)})
    assert program.main(["slow", *check]) == code


def test_a_record_counts_once_and_only_if_it_is_ok(tmp_path):
    record = {
        "job_id": "0-1",
        "url": "http://a.test/",
        "outcome": "ok",
        "started_at": "2026-01-01T00:00:00Z",
        "total_s": 0.5,
        "body_size": 7,
    }
    records = [record, record, record | {"job_id": "0-2", "outcome": "failed"}, record | {"job_id": "0-3"}]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    fetched = Fetched()
    read_records(Task(tmp_path / "urls.txt", tmp_path), fetched)
    assert (fetched.count, fetched.bytes, fetched.service_s, fetched.busiest_host_s) == (2, 14, 0.5, 1.0)


def test_what_is_done_inside_is_measured():
    with metered() as fetched:
        sum(range(100_000))
    assert fetched.seconds > 0
    assert fetched.cpu_s > 0
    assert fetched.max_rss > 1_000_000


def test_hosts_are_the_same_every_time_and_each_has_a_job():
    hosts = zipf_hosts(1000, 100, 1.0)
    assert hosts == zipf_hosts(1000, 100, 1.0)
    assert len(hosts) == 1000
    assert len(set(hosts)) == 100
    assert max(sorted(set(hosts)), key=hosts.count) == max(hosts)


def test_spread_is_of_median_and_extremes():
    assert spread([3.0, 1.0, 2.0, 9.0]) == spread([9.0, 2.0, 3.0, 1.0])
    assert (spread([3.0, 1.0, 2.0]).median, spread([3.0, 1.0, 2.0]).low, spread([3.0, 1.0, 2.0]).high) == (
        2,
        1,
        3,
    )
