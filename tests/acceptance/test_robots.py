"""``fetcher run`` with ``http.robots: obey``, against the origin."""

import json
import os
import subprocess
import sys

import pytest
from origin_process import origin_process
from raw_server import unused_port


@pytest.fixture
def run(tmp_path):
    """Run a batch in an empty folder; return the process and its records by URL."""

    def run(text):
        (tmp_path / "batch.yaml").write_text(text)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}
        done = subprocess.run(
            [sys.executable, "-m", "fetcher", "run", "batch.yaml"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment,
        )  # fmt: skip
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        return done, {record["url"]: record for record in found}

    return run


def test_what_robots_txt_does_not_allow_is_skipped(run, tmp_path):
    log = tmp_path / "access.jsonl"
    with origin_process(log) as origin:
        done, records = run(
            f"sources: ['{origin.url}/private/bytes/10?i={{1..40}}', '{origin.url}/bytes/10?i={{1..20}}',\n"
            f"          '{origin.url}/redirect-to?url=/private/bytes/10']\n"
            "sinks: [out.jsonl]\nhttp: {robots: obey}\nlimits: {per_host: {concurrency: 20}}\n"
        )
    assert done.returncode == 0
    assert "61 jobs = ok 20  failed 0  skipped 41  (all accounted for)" in done.stderr
    kinds = next(line for line in done.stderr.splitlines() if line.startswith("robots_disallowed"))
    assert kinds.split()[1] == "41"
    assert "/robots.txt does not allow it for fetcher" in kinds
    skipped = [record for record in records.values() if record["outcome"] == "skipped"]
    assert len(skipped) == 41
    assert {record["error_kind"] for record in skipped} == {"robots_disallowed"}
    redirected = records[f"{origin.url}/redirect-to?url=/private/bytes/10"]
    assert [hop["location"] for hop in redirected["redirects"]] == ["/private/bytes/10"]
    asked = [json.dumps(line) for line in origin.log_lines()]
    assert len(asked) == 22
    assert sum("robots.txt" in line for line in asked) == 1


def test_an_origin_that_can_not_be_asked_is_skipped_and_delays_no_other(run):
    dead = f"http://127.0.0.1:{unused_port()}"
    with origin_process() as origin:
        done, records = run(
            f"sources: ['{dead}/{{1..500}}', '{origin.url.replace('127.0.0.1', 'a.test')}/bytes/10?i={{1..50}}']\n"
            "sinks: [out.jsonl]\nhttp: {robots: obey, resolve: {a.test: 127.0.0.1}}\n"
        )
    # Nobody chose that these are not there.
    assert done.returncode == 3
    assert "550 jobs = ok 50  failed 0  skipped 500  (all accounted for)" in done.stderr
    assert "robots_unreachable" in done.stderr
    assert f"no answer to be had from {dead}/robots.txt, connect_refused" in records[f"{dead}/1"]["error_message"]


def test_by_default_robots_txt_is_not_asked_for(run, tmp_path):
    log = tmp_path / "access.jsonl"
    with origin_process(log) as origin:
        done, _ = run(f"sources: ['{origin.url}/private/bytes/10?i={{1..3}}']\nsinks: [out.jsonl]\n")
    assert "3 jobs = ok 3" in done.stderr
    assert len(origin.log_lines()) == 3
