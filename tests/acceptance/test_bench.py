"""``fetcher bench`` and ``fetcher tune`` as a person or a script meets them, on the origin in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from origin_process import origin_process

SHORT = ("--duration", "200ms", "--warm-up", "50ms", "--rounds", "2")


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    """Run a command in an empty folder and return what came of it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}

    def run(*arguments, timeout=90):
        return subprocess.run(
            [sys.executable, "-m", "fetcher", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, timeout=timeout, check=False, env=environment,
        )  # fmt: skip

    return run


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_url_is_measured_at_each_setting(fetcher, tmp_path, origin):
    done = fetcher(
        "bench",
        f"{origin.url}/bytes/100?i={{1..50}}",
        "--concurrency",
        "1,4",
        *SHORT,
        "--json",
        "o.json",
        "--html",
        "r.html",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["loop"] == "closed loop"
    assert [setting["concurrency"] for setting in report["settings"]] == [1, 4]
    for setting in report["settings"]:
        assert len(setting["rounds"]) == 2
        summary = setting["summary"]
        assert summary["ok"] == summary["requests"] > 0
        assert 0 < summary["latency"]["p50"] <= summary["latency"]["p99"] <= summary["latency"]["max"]
        assert summary["throughput"]["low"] <= summary["throughput"]["median"] <= summary["throughput"]["high"]
        assert summary["cpu_seconds_per_request"] > 0
        assert summary["peak_rss"] > 10_000_000
    order = [json.loads(line)["concurrency"] for line in done.stderr.splitlines()]
    assert order == [1, 4, 1, 4]
    assert "closed loop" in done.stdout
    assert "loop lag p99" in done.stdout
    assert "<!doctype html>" in (tmp_path / "r.html").read_text()[:20]


def test_a_config_gives_jobs_request_and_resolution(fetcher, tmp_path, origin):
    (tmp_path / "urls.txt").write_text(
        f"http://shop.test:{origin.port}/bytes/10\nhttp://shop.test:{origin.port}/status/404\n"
    )
    (tmp_path / "b.yaml").write_text(
        'sources: [urls.txt]\nsinks: [out.jsonl]\nhttp: {resolve: {"*.test": 127.0.0.1}}\nretry: {attempts: 9}\n'
    )
    done = fetcher(
        "bench", "b.yaml", "--concurrency", "2", "--requests", "10", "--rounds", "1", "--warm-up", "0s", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["settings"][0]["summary"]
    assert (summary["requests"], summary["ok"], summary["errors"]) == (10, 5, {"http_4xx": 5})
    assert "http_4xx" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.yaml", "urls.txt"]


def test_an_open_loop_that_can_not_be_held_says_so(fetcher, origin):
    done = fetcher("bench", f"{origin.url}/delay/0.05", "--concurrency", "2", "--rate", "5000/s", *SHORT, "--json=-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["loop"] == "open loop"
    assert any("the rate was not held at concurrency 2" in note for note in report["notes"])
    assert report["settings"][0]["summary"]["achieved_rate"] < 5000


def test_a_report_is_compared_with_an_older_one(fetcher, origin):
    command = ("bench", f"{origin.url}/bytes/10", "--concurrency", "2", *SHORT)
    assert fetcher(*command, "--json", "old.json").returncode == 0
    done = fetcher(*command, "--compare", "old.json")
    assert done.returncode == 0, done.stderr
    assert "requests/s new/old" in done.stdout
    refused = fetcher("bench", f"{origin.url}/bytes/10", "--concurrency", "3", "--compare", "old.json")
    assert refused.returncode == 78
    assert refused.stderr == "can not compare: no concurrency is in both; the older report has 2\n"


@pytest.mark.parametrize("command", ["bench", "tune"])
def test_a_target_of_others_is_refused(fetcher, command):
    done = fetcher(command, "http://192.88.99.1/")
    assert done.returncode == 2
    assert done.stderr.startswith("192.88.99.1 is not a loopback or private address")
    assert "--i-may-load-this-host" in done.stderr


@pytest.mark.parametrize("command", ["bench", "tune"])
def test_a_target_that_does_not_answer(fetcher, command):
    url = f"http://127.0.0.1:{closed_port()}/"
    done = fetcher(command, url)
    assert done.returncode == 3
    assert done.stderr.startswith(f"{url}: does not answer: connect_refused")
    assert done.stdout == ""


def test_only_failures_exit_3(fetcher, origin):
    done = fetcher("bench", f"{origin.url}/status/500", "--concurrency", "1", "--requests", "3", "--rounds", "1")
    assert done.returncode == 3
    assert "http_5xx" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--concurrency", "0"), 2, "--concurrency '0': 0 should be from 1 to 100,000"),
        (("--concurrency", "a,b"), 2, "'a' is no whole number; write 10,50,100"),
        (("--duration", "never"), 2, "--duration 'never': should be a duration"),
        (("--html", "/nowhere/r.html"), 78, "/nowhere/r.html: can not be written: No such file or directory"),
        (("--json", "."), 78, ".: can not be written: Is a directory"),
        (("--compare", "none.json"), 78, "none.json: can not be read: No such file or directory"),
        (("-s", "http.agent=x"), 78, "-s http.agent: unknown key"),
    ],
)
def test_bad_input_is_told_before_anything_is_sent(fetcher, tmp_path, arguments, code, message):
    done = fetcher("bench", f"http://127.0.0.1:{closed_port()}/", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_such_config(fetcher):
    done = fetcher("bench", "none.yaml")
    assert done.returncode == 78
    assert "none.yaml: there is no such file" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_full_disk_costs_the_report_and_not_the_figures(fetcher, origin, option):
    done = fetcher("bench", f"{origin.url}/bytes/10", "--concurrency", "1", *SHORT, option, "/dev/full")
    assert done.returncode == 1
    assert "requests/s" in done.stdout
    assert done.stderr.endswith(
        "/dev/full: the report could not be written: No space left on device; the figures are above\n"
    )


def test_an_interrupt_prints_what_was_measured(tmp_path, origin):
    options = ["--concurrency", "1,2", "--rounds", "1000", "--duration", "100ms", "--warm-up", "0s"]
    command = [sys.executable, "-m", "fetcher", "bench", f"{origin.url}/bytes/10", *options]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "requests/s" in output
    assert "interrupted:" in output


TUNED = """\
# The shop, with care.
sources: ["{url}/slots/10/0.04/bytes/10?i={{1..100}}"]   # ten at once

limits:
  concurrency:   200     # a guess
  per_host: {{concurrency: 2, rate: 1000000/s}}
body: none
sinks: [out.jsonl]
"""


def test_tune_finds_the_knee_of_an_origin_of_known_capacity_and_writes_it(fetcher, tmp_path, origin):
    text = TUNED.format(url=origin.url)
    (tmp_path / "shop.yaml").write_text(text)
    done = fetcher("tune", "shop.yaml", "--write", "--duration", "800ms", "--warm-up", "200ms")
    assert done.returncode == 0, done.stdout + done.stderr
    written = (tmp_path / "shop.yaml").read_text()
    knee = next(n for n in range(8, 13) if f"concurrency:   {n} " in written)
    assert written == text.replace("200 ", f"{knee} ").replace("concurrency: 2,", f"concurrency: {knee},")
    assert f"the knee is {knee}:" in done.stdout
    assert "<- the knee" in done.stdout
    assert "slower" in done.stdout
    assert "no faster" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--max-error-rate", "lots"), 2, "should be a percentage below 100%"),
        (("--max-concurrency", "0"), 2, "--max-concurrency 0: should be from 1"),
        (("--max-p99", "0s"), 2, "--max-p99 0s: should be more than 0"),
        (("--write",), 2, "there is no config to write to"),
    ],
)
def test_bad_input_of_tune(fetcher, arguments, code, message):
    done = fetcher("tune", f"http://127.0.0.1:{closed_port()}/", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_tune_without_anything_acceptable(fetcher, origin):
    done = fetcher("tune", f"{origin.url}/status/500", "--duration", "100ms", "--warm-up", "0s")
    assert done.returncode == 3
    assert "there is no acceptable concurrency: even concurrency 1 gives 100.0% errors" in done.stdout
