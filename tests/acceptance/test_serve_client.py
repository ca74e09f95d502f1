"""The service as its users have it: commands against a real process, beside the API and the folder."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from origin_process import origin_process
from serve_process import serve_process

TOKEN = "a-token-of-at-least-20-characters"


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


class Terminal:
    """Runs commands in a folder, against a service."""

    def __init__(self, folder, service, **environment):
        self.folder = folder
        self.environment = os.environ | {"FETCHER_TO": service.url} | environment

    def run(self, *arguments, stdin=None, code=0):
        """Run a command and return what it wrote to stdout, or to stderr if it was to fail."""
        command = [sys.executable, "-m", "fetcher", *arguments]
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def records(self, batch_id, *options):
        """Return the records of a batch."""
        return [json.loads(line) for line in self.run("results", batch_id, *options).splitlines()]


def urls(origin, count, path="bytes/100"):
    return "".join(f"{origin}/{path}?n={n}\n" for n in range(count))


def test_a_file_of_urls_is_submitted_waited_for_and_read(tmp_path, origin):
    (tmp_path / "pages.txt").write_text(urls(origin, 300))
    with serve_process(tmp_path) as service:
        terminal = Terminal(tmp_path, service)
        batch_id = terminal.run("submit", "pages.txt", "--wait", "--priority", "3").strip()
        assert service.batch(batch_id)["priority"] == 3
        assert service.batch(batch_id)["name"] == "pages"
        records = terminal.records(batch_id)
        assert sorted(record["url"] for record in records) == sorted(urls(origin, 300).split())
        assert "done" in terminal.run("status")
        assert "300" in terminal.run("status", batch_id)
        assert json.loads(terminal.run("status", "--json"))["batches"][0]["id"] == batch_id


def test_packed_files_are_taken_too_and_batches_are_known_by_their_names(tmp_path, origin):
    (tmp_path / "more pages.txt.gz").write_bytes(gzip.compress(urls(origin, 30).encode()))
    (tmp_path / "c.yaml").write_text(f"name: weekly\nsources: ['{origin}/bytes/5']\n")
    with serve_process(tmp_path) as service:
        terminal = Terminal(tmp_path, service)
        packed, config = terminal.run("submit", "more pages.txt.gz", "c.yaml", "--wait").split()
        assert packed.startswith("more-pages.txt-")
        assert config.startswith("weekly-")
        assert len(terminal.records(packed)) == 30
        assert service.batch(packed)["name"] == "more-pages.txt"
        assert "weekly" in terminal.run("status")


def test_what_failed_can_be_asked_for_and_tried_again(tmp_path, origin):
    lines = urls(origin, 40) + urls(origin, 10, "status/404")
    with serve_process(tmp_path) as service:
        terminal = Terminal(tmp_path, service)
        # The exit code is that of a run: some have failed.
        assert "http_4xx" in terminal.run("submit", "-", "--name", "mixed", "--wait", stdin=lines, code=3)
        [batch] = json.loads(terminal.run("status", "--json"))["batches"]
        failed = terminal.records(batch["id"], "--outcome", "failed")
        assert {record["status"] for record in failed} == {404}
        again = terminal.run("retry", batch["id"]).split()[0]
        assert service.wait_for_end(again)["retry_of"] == batch["id"]
        assert Counter(record["url"] for record in terminal.records(again)) == Counter(
            record["url"] for record in failed
        )


def test_two_batches_are_paused_resumed_and_cancelled_and_survive_a_kill(tmp_path, origin):
    for name in ("kept", "left"):
        config = {"sources": [f"{origin}/delay/0.05/bytes/50?{name}={{1..1000}}"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    # Slow enough that nothing ends before somebody has typed a command or two.
    with serve_process(tmp_path, "limits.per_host.concurrency=4") as service:
        terminal = Terminal(tmp_path, service)
        kept, left = terminal.run("submit", "kept.json", "left.json").split()
        for batch_id in (kept, left):
            service.wait_for(batch_id, lambda view: view["progress"]["outcomes"].get("ok", 0) > 5)
        assert terminal.run("pause", kept).startswith(kept)
        service.wait_for(kept, lambda view: view["state"] == "paused")
        terminal.run("resume", kept)
        terminal.run("cancel", left)
        service.wait_for(left, lambda view: view["state"] == "cancelled")
        assert service.batch(kept)["state"] in {"queued", "running"}
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    with serve_process(tmp_path, "limits.per_host.concurrency=80") as service:
        terminal = Terminal(tmp_path, service)
        found = terminal.records(kept, "--follow")
        assert Counter(record["job_id"] for record in found) == Counter(f"0-{n}" for n in range(1, 1001))
        terminal.run("retry", left)
        found = terminal.records(left, "--follow")
        assert Counter(record["job_id"] for record in found) == Counter(f"0-{n}" for n in range(1, 1001))
        terminal.run("delete", kept, left)
        assert json.loads(terminal.run("status", "--json"))["batches"] == []


def test_a_small_batch_is_not_stuck_behind_a_large_one(tmp_path, origin):
    large = {"sources": [f"{origin}/delay/0.05/bytes/10?large={{1..4000}}"]}
    small = {"sources": [f"{origin}/delay/0.05/bytes/10?small={{1..40}}"]}
    with serve_process(tmp_path, "limits.concurrency=10", "limits.per_host.concurrency=10") as service:
        first = service.submit(name="large", **large)
        service.wait_for(first, lambda view: view["progress"]["in_flight"] == 10)
        second = service.submit(name="small", **small)
        assert service.wait_for_end(second)["progress"]["outcomes"] == {"ok": 40}
        # All of the large one alone takes twenty seconds; the small one has waited for a part of its own time.
        assert service.batch(first)["progress"]["outcomes"].get("ok", 0) < 2000
        service.ask("POST", f"/v1/batches/{first}/cancel")
        service.wait_for_end(first)


def test_a_batch_comes_by_the_folder_too(tmp_path, origin):
    with serve_process(tmp_path, "service.watch=watch") as service:
        (tmp_path / "watch/inbox/bad.yaml").write_text("sources: [a.txt]\nrequst: {}\n")
        (tmp_path / "watch/inbox/good.txt").write_text(urls(origin, 20))
        service.wait_for_event("batch_finished")
        [batch] = service.ask("GET", "/v1/batches")["batches"]
        assert (batch["origin"], batch["progress"]["outcomes"]) == ("folder", {"ok": 20})
        assert len(Terminal(tmp_path, service).records(batch["id"])) == 20


def test_who_has_no_token_is_told_how_to_give_one(tmp_path, origin):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    tokens = "service.tokens=[{name: me, token: {file: token}, scopes: [read, write]}]"
    with serve_process(tmp_path, tokens) as service:
        terminal = Terminal(tmp_path, service)
        assert "FETCHER_TOKEN" in terminal.run("status", code=78)
        assert "FETCHER_TOKEN" in Terminal(tmp_path, service, FETCHER_TOKEN="not-" + TOKEN).run("status", code=78)
        assert terminal.run("status", "--token-file", "token") == ""
        by_environment = Terminal(tmp_path, service, FETCHER_TOKEN=TOKEN)
        batch_id = by_environment.run("submit", "-", "--wait", stdin=urls(origin, 3)).strip()
        assert len(by_environment.records(batch_id)) == 3
        assert TOKEN not in service.log_path.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit"], 78, "nothing to submit"),
        (["submit", "pages.xls"], 78, "pages.xls: should end in .yaml"),
        (["submit", "nowhere.txt"], 78, "there is no such file"),
        (["submit", "bad.yaml"], 78, "bad.yaml:1: requst: unknown key; did you mean 'request'?"),
        (["pause"], 78, "nothing to pause"),
        (["delete"], 78, "nothing to delete"),
        (["submit", "bad.yaml", "--name", "x"], 78, "a config says it itself"),
        (["status", "nope"], 2, "nope"),
        (["results", "nope"], 2, "nope"),
        (["pause", "nope"], 2, "nope"),
        (["status", "--to", "http://127.0.0.1:9"], 75, "connection refused"),
        (["status", "--to", "127.0.0.1"], 78, "should be the URL of a service"),
        (["status", "--token-file", "nowhere"], 78, "can not be read"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_line(refusing, arguments, code, words):
    assert words in refusing.run(*arguments, code=code)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """A terminal whose service has nothing."""
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "bad.yaml").write_text("requst: {}\n")
    with serve_process(folder) as service:
        yield Terminal(folder, service)


def test_results_are_read_on_when_the_service_comes_back(tmp_path, origin):
    port = None
    config = {"sources": [f"{origin}/delay/0.02/bytes/50?n={{1..800}}"]}
    with serve_process(tmp_path, "limits.per_host.concurrency=10") as service:
        port = int(service.url.rsplit(":", 1)[1])
        batch_id = service.submit(name="long", **config)
        service.wait_for(batch_id, lambda view: view["progress"]["outcomes"].get("ok", 0) > 50)
        command = [sys.executable, "-m", "fetcher", "results", batch_id, "--follow", "--to", service.url]
        with (tmp_path / "out.jsonl").open("wb") as out:
            reading = subprocess.Popen(command, stdout=out)
        service.stop()
    with serve_process(tmp_path, f"service.port={port}", "limits.per_host.concurrency=10") as service:
        assert reading.wait(60) == 0
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert Counter(record["job_id"] for record in found) == Counter(f"0-{n}" for n in range(1, 801))
