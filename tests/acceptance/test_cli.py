"""The commands as a person or a script meets them: what they print, where, and how they end."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from origin_process import origin_process


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    """Run a command in an empty folder and return what came of it."""

    def run(*arguments, stdin=None, env=None, timeout=60):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}
        return subprocess.run(
            [sys.executable, "-m", "fetcher", *map(str, arguments)],
            cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
            env=environment | (env or {}),
        )  # fmt: skip

    return run


def write(folder, text):
    (folder / "batch.yaml").write_text(text)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_prints_a_summary_and_writes_a_record_for_every_job(fetcher, tmp_path, origin):
    write(tmp_path, f"sources: ['{origin.url}/bytes/10?i={{1..50}}']\nsinks: [out/pages.jsonl]\n")
    done = fetcher("run", "batch.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert "batch    50 jobs = ok 50  failed 0  skipped 0  (all accounted for)" in done.stderr
    assert "out/pages.jsonl" in done.stderr
    found = lines(tmp_path / "out" / "pages.jsonl")
    assert {record["job_id"] for record in found} == {f"0-{n}" for n in range(1, 51)}
    assert {record["body"] for record in found} == {found[0]["body"]}


def test_failures_exit_3_unless_they_are_allowed(fetcher, tmp_path, origin):
    write(tmp_path, f"sources: ['{origin.url}/status/{{200,404}}']\nsinks: [out.jsonl]\n")
    failed = fetcher("run", "batch.yaml")
    assert failed.returncode == 3
    assert "http_4xx" in failed.stderr
    assert fetcher("run", "batch.yaml", "--max-failures", "1").returncode == 0
    assert fetcher("run", "batch.yaml", "--max-failures", "49%").returncode == 3
    assert fetcher("run", "batch.yaml", "--max-failures", "50%").returncode == 0


def test_a_finished_batch_starts_over_and_replaces_its_own_output(fetcher, tmp_path, origin):
    write(tmp_path, f"sources: ['{origin.url}/bytes/10?i={{1..5}}']\nsinks: [out.jsonl]\n")
    assert fetcher("run", "batch.yaml").returncode == 0
    first = lines(tmp_path / "out.jsonl")
    again = fetcher("run", "batch.yaml")
    assert again.returncode == 0
    assert "resuming" not in again.stderr
    second = lines(tmp_path / "out.jsonl")
    assert len(second) == 5
    assert first[0]["started_at"] != second[0]["started_at"]


def test_a_file_of_somebody_else_is_not_touched(fetcher, tmp_path, origin):
    write(tmp_path, f"sources: ['{origin.url}/bytes/10']\nsinks: [out.jsonl]\n")
    (tmp_path / "out.jsonl").write_text("precious\n")
    refused = fetcher("run", "batch.yaml")
    assert refused.returncode == 78
    assert refused.stderr == (
        "out.jsonl: exists and was not written by an earlier run of this batch; move it away, choose another "
        "path, set 'if_exists: append' or 'if_exists: replace', or start over with --fresh\n"
    )
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"
    assert (
        fetcher("run", "batch.yaml", "-s", "sinks.0={type: file, path: out.jsonl, if_exists: append}").returncode == 0
    )
    assert (tmp_path / "out.jsonl").read_text().startswith("precious\n{")
    assert fetcher("run", "batch.yaml", "--fresh").returncode == 0
    assert "precious" not in (tmp_path / "out.jsonl").read_text()


def test_an_unfinished_run_with_other_sources_is_refused_and_fresh_starts_over(fetcher, tmp_path, origin):
    with interrupted(tmp_path):
        pass
    write(tmp_path, f"sources: ['{origin.url}/bytes/10']\nsinks: [out.jsonl]\n")
    refused = fetcher("run", "batch.yaml")
    assert refused.returncode == 78
    assert "the sources of 'batch' are not those with which its unfinished run began" in refused.stderr
    assert fetcher("run", "batch.yaml", "--fresh").returncode == 0


class interrupted:  # noqa: N801  used like a function
    """Leave an unfinished run behind: a batch that was killed with its only job in flight."""

    def __init__(self, folder, keep=False):
        self.folder, self.keep = folder, keep

    def __enter__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        write(
            self.folder,
            f"sources: ['http://127.0.0.1:{self.server.getsockname()[1]}/']\nsinks: [out.jsonl]\n",
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fetcher", "run", "batch.yaml"], cwd=self.folder, stderr=subprocess.DEVNULL
        )
        self.connection, _ = self.server.accept()
        if not self.keep:
            self.__exit__()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.server.close()


def test_a_second_run_of_the_same_batch_is_told_to_wait(fetcher, tmp_path):
    with interrupted(tmp_path, keep=True):
        second = fetcher("run", "batch.yaml")
    assert second.returncode == 75
    assert second.stderr == (
        "state/batch.db: another process is using this queue; wait until it has ended, or name another\n"
    )


def test_a_bad_url_in_line_70001_is_a_record_with_its_line(fetcher, tmp_path, origin):
    urls = [f"{origin.url}/bytes/1?i={n}" for n in range(1, 70_101)]
    urls[70_000] = "http://exa mple/"
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    write(
        tmp_path,
        "sources: [urls.txt]\nsinks: [out.jsonl]\nbody: none\nlimits: {per_host: {concurrency: 100}}\n",
    )
    done = fetcher("run", "batch.yaml")
    assert done.returncode == 0, done.stderr
    assert "70,100 jobs = ok 70,099  failed 0  skipped 1  (all accounted for)" in done.stderr
    (skipped,) = [record for record in lines(tmp_path / "out.jsonl") if record["outcome"] == "skipped"]
    assert skipped["job_id"] == "0-70001"
    assert skipped["error_kind"] == "invalid_url"
    assert skipped["error_message"] == "contains a space or a control character"


def test_the_first_url_of_a_slow_pipe_is_fetched_before_the_pipe_ends(fetcher, tmp_path, origin):
    write(tmp_path, "sources: ['-']\nsinks: ['-']\nqueue: memory\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "fetcher", "run", "batch.yaml"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with run:
        for n in range(3):
            run.stdin.write(f"{origin.url}/bytes/{n}\n")
            run.stdin.flush()
            # Blocks until the record is there, though the pipe is still open.
            assert json.loads(run.stdout.readline())["body_size"] == n
        run.stdin.close()
        assert run.stdout.read() == ""
    assert run.returncode == 0


def test_a_fast_rate_is_held_and_ends(fetcher, tmp_path, origin):
    write(
        tmp_path,
        f"sources: ['{origin.url}/bytes/1?i={{1..300}}']\nsinks: [out.jsonl]\nlimits: {{per_host: {{rate: 500/s}}}}\n",
    )
    done = fetcher("run", "batch.yaml")
    assert done.returncode == 0, done.stderr
    assert "300 jobs = ok 300" in done.stderr


def test_a_source_that_breaks_off_does_not_stop_the_others(fetcher, tmp_path, origin):
    rows = "".join(f"{origin.url}/bytes/1?row={n}\n" for n in range(20_000))
    (tmp_path / "urls.txt.gz").write_bytes(gzip.compress(rows.encode())[:-20_000])
    write(tmp_path, f"sources: [urls.txt.gz, '{origin.url}/bytes/1?i={{1..200}}']\nsinks: [out.jsonl]\nbody: none\n")
    done = fetcher("run", "batch.yaml")
    assert done.returncode == 75
    assert "a source could not be read to its end: urls.txt.gz" in done.stderr
    assert "mend it and run the same command again to resume" in done.stderr
    found = lines(tmp_path / "out.jsonl")
    assert sum("?i=" in record["url"] for record in found) == 200
    assert sum("?row=" in record["url"] for record in found) > 0


def test_the_retry_deadline_cuts_an_attempt_off(fetcher, tmp_path, origin):
    """F65: it covers all attempts, the one under way too."""
    write(tmp_path, f"sources: ['{origin.url}/hang']\nsinks: [out.jsonl]\nretry: {{deadline: 500ms}}\n")
    done = fetcher("run", "batch.yaml", timeout=20)
    assert done.returncode == 3
    (record,) = lines(tmp_path / "out.jsonl")
    assert (record["error_kind"], record["error_message"]) == ("deadline", "took longer than the retry deadline")


def test_an_own_key_is_fetched_once(fetcher, tmp_path, origin):
    (tmp_path / "urls.csv").write_text(f"url,id\n{origin.url}/bytes/1,a\n{origin.url}/bytes/2,a\n")
    write(tmp_path, "sources: [{type: file, path: urls.csv, key: id}]\nsinks: [out.jsonl]\n")
    assert "1 jobs = ok 1" in fetcher("run", "batch.yaml").stderr


def test_dedupe_fetches_a_url_once(fetcher, tmp_path, origin):
    with gzip.open(tmp_path / "urls.txt.gz", "wt") as file:
        file.write(f"{origin.url}/bytes/1\n" * 1000 + f"{origin.url}/bytes/2\n")
    write(tmp_path, "sources: [urls.txt.gz]\nsinks: [out.jsonl]\ndedupe: true\n")
    done = fetcher("run", "batch.yaml")
    assert "2 jobs = ok 2" in done.stderr
    assert "999 rows named a job that was there already" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sources: [missing.txt]\nsinks: [out.jsonl]\n",
            "missing.txt: can not be opened: No such file or directory; a path is",
        ),
        (
            "sources: ['http://127.0.0.1:1/']\nsinks: [/proc/nope/out.jsonl]\n",
            "/proc/nope/out.jsonl: can not be written",
        ),
        (
            "sources: ['http://127.0.0.1:1/']\nsinks: [out.jsonl]\nqueue: {type: sqlite, path: /proc/x/q.db}\n",
            "/proc/x",
        ),
    ],
)
def test_what_can_not_be_used_is_said_before_any_fetch(fetcher, tmp_path, text, message):
    write(tmp_path, text)
    refused = fetcher("run", "batch.yaml")
    assert refused.returncode == 78
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_lint_names_every_problem_with_its_line(fetcher, tmp_path, origin):
    write(
        tmp_path,
        "sources: [http://127.0.0.1/]\nrequst: {}\nlimits:\n  concurrency: many\nsinks: [out.jsonl]\n",
    )
    (tmp_path / "good.yaml").write_text("sources: [http://127.0.0.1/]\nsinks: [out.jsonl]\n")
    done = fetcher("lint", "batch.yaml", "good.yaml")
    assert done.returncode == 78
    assert done.stdout == "good.yaml: ok\n"
    assert done.stderr == (
        "batch.yaml:2: requst: unknown key; did you mean 'request'?\n"
        "batch.yaml:4: limits.concurrency: should be a whole number or auto, not 'many'\n"
    )
    assert not (tmp_path / "state").exists()


def test_lint_opens_the_files_of_tls(fetcher, tmp_path):
    write(tmp_path, "sources: [https://127.0.0.1/]\nhttp: {tls: {ca_file: none.pem}}\nsinks: [out.jsonl]\n")
    done = fetcher("lint", "batch.yaml")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == "http.tls.ca_file 'none.pem' can not be used: no such file or directory\n"


def test_schema_is_json_schema(fetcher):
    schema = json.loads(fetcher("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"sources", "sinks", "limits", "retry"} <= schema["properties"].keys()


def test_get_prints_records_and_only_records_to_stdout(fetcher, origin):
    done = fetcher("get", f"{origin.url}/json/1", f"{origin.url}/bytes/3")
    assert (done.returncode, done.stderr) == (0, "")
    assert {record["status"] for record in map(json.loads, done.stdout.splitlines())} == {200}


def test_get_posts_what_it_is_given(fetcher, origin):
    done = fetcher("get", f"{origin.url}/json/1", "-d", "hello", "-H", "X-Name: value")
    record = json.loads(done.stdout)
    echoed = json.loads(record["body"])
    assert (record["method"], echoed["body"], echoed["headers"]["x-name"]) == ("POST", "hello", "value")


def test_get_of_what_is_no_url_is_a_usage_error(fetcher):
    done = fetcher("get", "example.org:80/x", "gopher://example.org/")
    assert done.returncode == 2
    assert done.stderr == (
        "fetcher get: example.org:80/x: has no scheme; write http:// or https:// before it\n"
        "fetcher get: gopher://example.org/: nothing here fetches gopher: URLs; "
        "it takes http:, https:, ws:, wss:, ftp:, ftps:, tcp:, tls:, udp:\n"
    )


def test_get_of_a_failure_exits_3(fetcher, origin):
    assert fetcher("get", f"{origin.url}/status/500", "-s", "retry.attempts=1").returncode == 3


def test_get_allows_as_many_failures_as_it_is_told(fetcher, origin):
    urls = [f"{origin.url}/status/404", f"{origin.url}/status/410", f"{origin.url}/bytes/1"]
    assert fetcher("get", *urls, "-s", "max_failures=1").returncode == 3
    assert fetcher("get", *urls, "-s", "max_failures=2").returncode == 0
    assert fetcher("get", *urls, "-s", "max_failures=70%").returncode == 0


def test_unknown_commands_and_options_are_usage_errors(fetcher):
    for arguments in (["rnu"], ["run"], ["run", "x.yaml", "--frsh"], ["lint"], ["get"]):
        assert fetcher(*arguments).returncode == 2, arguments


def test_terminal_escapes_of_a_server_do_not_reach_the_terminal(fetcher, tmp_path):
    """F102: what a URL or a server says is shown, not obeyed."""
    (tmp_path / "urls.txt").write_bytes(b"\x1b[31mred\x1b[0m\n")
    write(tmp_path, "sources: [urls.txt]\nsinks: [out.jsonl]\n")
    done = fetcher("run", "batch.yaml")
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mred" in done.stderr


def test_a_reader_that_goes_away_ends_the_run_without_a_traceback(tmp_path, origin):
    write(tmp_path, f"sources: ['{origin.url}/bytes/1000?i={{1..5000}}']\nsinks: ['-']\n")
    run = subprocess.Popen(
        [sys.executable, "-m", "fetcher", "run", "batch.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run.stdout.readline()
    run.stdout.close()
    said = run.stderr.read()
    run.wait(timeout=30)
    run.stderr.close()
    assert run.returncode == 1
    assert said == "standard output was closed by its reader\n"


def test_a_reader_that_stops_reading_does_not_keep_a_drain_from_ending(tmp_path, origin):
    write(
        tmp_path,
        f"sources: ['{origin.url}/bytes/1000?i={{1..5000}}']\nsinks: ['-']\nshutdown_timeout: 300ms\n",
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "fetcher", "run", "batch.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with run:
        run.stdout.readline()  # and no more: the pipe fills up
        run.send_signal(signal.SIGTERM)
        said = run.stderr.read()
        assert run.wait(timeout=20) == 75
    assert "did not take the last results in time; their jobs will be fetched again" in said


def test_the_demo_fetches_ten_thousand_urls_of_fifty_hosts_and_more(fetcher, tmp_path):
    done = fetcher("demo", timeout=110)
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "out" / "demo" / "pages.jsonl")
    assert len(found) >= 10_000
    assert len({record["url"].split("/")[2] for record in found}) >= 50
    assert {"http_4xx", "http_5xx", "body_incomplete"} <= {record.get("error_kind") for record in found}
    assert any(record["attempts"] > 1 and record["outcome"] == "ok" for record in found)
    assert any(record.get("redirects") for record in found)
    assert "(all accounted for)" in done.stderr


def test_progress_is_logged_as_json_where_there_is_no_terminal(tmp_path):
    """A job that is never answered keeps the run going until the first line of progress is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        write(tmp_path, f"sources: ['http://127.0.0.1:{server.getsockname()[1]}/']\nsinks: [out.jsonl]\n")
        run = subprocess.Popen(
            [sys.executable, "-m", "fetcher", "run", "batch.yaml"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(30, run.kill)
        timer.start()
        with run:
            progress = json.loads(run.stderr.readline())
            run.kill()
        timer.cancel()
    assert (progress["event"], progress["batch"], progress["in_flight"]) == ("progress", "batch", 1)
