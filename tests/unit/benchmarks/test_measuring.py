"""What runs, verifies and counts contenders. What anything costs is asserted nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.batch_files import read_records
from benchmarks.cases import Case, Check, Report, all_cases
from benchmarks.comparison import table
from benchmarks.contenders import Fetched, Task, metered
from benchmarks.contenders import __main__ as contender
from benchmarks.inputs import write_urls, zipf_hosts
from benchmarks.measure import ContenderError, Entrant, UnableContenderError, bench, spread


def test_without_a_case_they_are_listed_with_their_goals():
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == list(all_cases())
    assert all(case.goal in done.stdout for case in all_cases().values())


@pytest.mark.parametrize(("count", "size"), [(11, 110), (10, 101)], ids=["a response", "a byte"])
def test_a_contender_that_misses_something_fails(count, size):
    with bench() as ready:
        urls = write_urls(ready, 10, "/bytes/10")
        with pytest.raises(ContenderError, match="bare_aiohttp: got 10 responses with 100 bytes"):
            ready.run(Entrant("bare_aiohttp", "bare_aiohttp", urls, count, size))


def test_a_race_goes_on_without_those_who_break_down_or_are_not_able_to():
    with bench() as ready:
        urls = write_urls(ready, 10, "/bytes/10")
        entrants = [
            Entrant("good", "blocking_socket", urls, 10, 100),
            Entrant("greedy", "blocking_socket", urls, 10, 101),
            Entrant("curl", "curl_parallel", urls, 10, 100, concurrency=1_000_000),
        ]
        race = ready.race(entrants, 2)
    assert [list(each) for each in race.rounds] == [["good"], ["good"]]
    assert len(race.samples) == 2
    assert race.broken == {"greedy": "greedy: got 10 responses with 100 bytes; it was asked for 10 with 101"}
    assert list(race.unable) == ["curl"]
    rows = {row[0]: row for row in table("ten", race, "good").rows}
    assert list(rows) == ["good", "curl", "greedy"]
    assert rows["good"][2] == "1.00"
    assert rows["greedy"][1] == race.broken["greedy"]


def test_one_that_is_not_able_to_is_an_error_where_it_has_to_take_part():
    with bench() as ready:
        urls = write_urls(ready, 1, "/bytes/10")
        with pytest.raises(UnableContenderError):
            ready.rounds([Entrant("curl", "curl_parallel", urls, 1, 10, concurrency=1_000_000)], 1)


def test_a_library_that_is_not_installed_is_an_answer_that_says_what_to_do(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise ModuleNotFoundError(name="pycurl.something")

    arguments = ["contender", "pycurl_multi", "--urls", "urls.txt", "--folder", str(tmp_path)]
    monkeypatch.setattr(contender, "import_module", missing)
    monkeypatch.setattr(sys, "argv", arguments)
    contender.main()
    said = json.loads(capsys.readouterr().out)["unable"]
    assert said == "missing: pip install pycurl (or everything: pip install -e '.[bench]')"


def test_what_is_missing_and_what_is_broken_is_told_and_only_the_latter_fails(monkeypatch, capsys):
    missing, broken = {"x": "missing: pip install x"}, {"y": "y: exit code 3"}
    outcome = Report([], [], [], missing=missing)
    monkeypatch.setattr(program, "all_cases", lambda: {"odd": Case("None.", lambda *_: outcome, 1)})
    assert program.main(["odd"]) == 0
    outcome.broken = broken
    assert program.main(["odd"]) == 1
    assert "x: missing: pip install x\nBROKEN y: y: exit code 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small", "--peers", "bare_aiohttp,wget"], "no contender is called 'wget'; there are aiohttp_gather"),
        (["hosts", "--peers", "httpx"], "hosts is about this project alone"),
        (["small", "--repeat", "0"], "argument --repeat: invalid"),
        (["smal"], "invalid choice: 'smal'"),
    ],
)
def test_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_contender_that_breaks_down_fails_the_program(monkeypatch, capfd):
    def run(ready, options):
        return ready.run(Entrant("gone", "no_such_module", Path("urls.txt"), 1, 1))

    monkeypatch.setattr(program, "all_cases", lambda: {"broken": Case("None.", run, 1)})
    assert program.main(["broken"]) == 1
    assert "gone: exit code 1" in capfd.readouterr().err


@pytest.mark.parametrize(("check", "code"), [([], 0), (["--check"], 1)], ids=["without --check", "with --check"])
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
