"""``fetcher serve`` as a process: whatever ends it, every job of every batch has one record in the end (F80)."""

import json
import random
import signal
import subprocess
import sys
import time
import urllib.error
from collections import Counter

import pytest
from origin_process import origin_process
from serve_process import serve_process

JOBS = 3000
KILLS = 4


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


def config(origin, jobs=JOBS, **sections):
    return {
        "sources": [f"{origin}/delay/0.02/bytes/200?n={{1..{jobs}}}"],
        "body": "none",
        "limits": {"concurrency": 40, "per_host": {"concurrency": 40}},
    } | sections


FAST = "limits.per_host.concurrency=80"


def each_once(found, jobs=JOBS):
    counts = Counter(record["job_id"] for record in found)
    assert counts == Counter(f"0-{n}" for n in range(1, jobs + 1))
    return True


def test_sigterm_drains_and_the_next_service_goes_on(tmp_path, origin):
    with serve_process(tmp_path, FAST) as service:
        ids = [service.submit(name=f"b{n}", sinks=[f"out{n}.jsonl"], **config(origin)) for n in range(2)]
        for batch_id in ids:
            service.wait_for(batch_id, lambda view: view["progress"]["outcomes"].get("ok", 0) > 100)
        assert service.stop() == 75
        assert service.log()[-1]["event"] == "service_ended"
    before = {n: len((tmp_path / f"out{n}.jsonl").read_text().splitlines()) for n in range(2)}
    assert all(100 < count < JOBS for count in before.values())
    with serve_process(tmp_path, FAST) as service:
        for n, batch_id in enumerate(ids):
            assert service.wait_for_end(batch_id)["state"] == "done"
            assert each_once(service.results(batch_id))
            assert each_once(map(json.loads, (tmp_path / f"out{n}.jsonl").read_text().splitlines()))
        assert service.stop() == 0


def test_kill_9_at_random_moments_loses_nothing_and_duplicates_nothing(tmp_path, origin):
    seed = random.randrange(2**32)
    sys.stderr.write(f"seed {seed}\n")
    moments = random.Random(seed)
    ids = []
    for n in range(KILLS):
        with serve_process(tmp_path, FAST) as service:
            ids.append(service.submit(name=f"b{n}", **config(origin)))
            # Time is what is random here.
            time.sleep(moments.uniform(0.05, 0.9))
            assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    with serve_process(tmp_path, FAST) as service:
        for batch_id in ids:
            view = service.wait_for_end(batch_id)
            assert (view["state"], view["reason"]) == ("done", None)
            assert view["progress"]["outcomes"] == {"ok": JOBS}
            assert each_once(service.results(batch_id))
        assert len(service.ask("GET", "/v1/batches")["batches"]) == KILLS
        assert service.stop() == 0


def test_pause_resume_cancel_and_retry_over_restarts(tmp_path, origin):
    with serve_process(tmp_path, FAST) as service:
        paused = service.submit(name="paused", **config(origin, 600))
        cancelled = service.submit(name="cancelled", **config(origin, 600))
        for batch_id, action in [(paused, "pause"), (cancelled, "cancel")]:
            service.wait_for(batch_id, lambda view: view["progress"]["outcomes"].get("ok", 0) > 20)
            service.ask("POST", f"/v1/batches/{batch_id}/{action}")
        service.wait_for(paused, lambda view: view["state"] == "paused")
        service.wait_for(cancelled, lambda view: view["state"] == "cancelled")
        assert service.stop() == 0
    with serve_process(tmp_path, FAST) as service:
        assert [service.batch(one)["state"] for one in (paused, cancelled)] == ["paused", "cancelled"]
        assert 20 < len(service.results(cancelled)) < 600
        service.ask("POST", f"/v1/batches/{paused}/resume")
        service.ask("POST", f"/v1/batches/{cancelled}/retry")
        for batch_id in (paused, cancelled):
            assert service.wait_for_end(batch_id)["state"] == "done"
            assert each_once(service.results(batch_id), 600)
        service.ask("DELETE", f"/v1/batches/{paused}")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            service.batch(paused)


def test_while_it_drains_the_api_answers_and_is_not_ready(tmp_path, origin):
    with serve_process(tmp_path) as service:
        batch_id = service.submit(sources=[f"{origin}/delay/3/bytes/1?n={{1..4}}"])
        service.wait_for(batch_id, lambda view: view["progress"]["in_flight"] == 4)
        assert service.ask("GET", "/readyz") == b"ready\n"
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_event("service_draining")
        assert service.ask("GET", "/livez") == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            service.ask("GET", "/readyz")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            service.submit(sources=[f"{origin}/bytes/1"])
        assert service.batch(batch_id)["reason"] == "draining"
        # Nobody cuts off what ends within the timeout.
        assert service.wait() == 0
        ended = [line for line in service.log() if line["event"] == "batch_finished"]
        assert [line["ok"] for line in ended] == [4]


def test_limits_are_changed_while_batches_run_and_a_bad_config_changes_nothing(tmp_path, origin):
    path = tmp_path / "service.yaml"
    path.write_text("limits: {concurrency: 2}\n")
    with serve_process(tmp_path, config="service.yaml") as service:
        batch_id = service.submit(sources=[f"{origin}/delay/0.5/bytes/1?n={{1..200}}"])
        service.wait_for(batch_id, lambda view: view["progress"]["in_flight"] == 2)
        path.write_text("limits: {concurency: 50}\n")
        assert "did you mean 'concurrency'?" in service.wait_for_event("config_refused")["problems"][0]
        assert "the one before holds on" in service.ask("GET", "/v1/snapshot")["trouble"][0]
        path.write_text("limits: {concurrency: 60, per_host: {concurrency: 60}}\n")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(batch_id, lambda view: view["progress"]["in_flight"] > 20)
        assert service.wait_for_end(batch_id)["progress"]["outcomes"] == {"ok": 200}
        assert each_once(service.results(batch_id), 200)
        assert service.stop() == 0


def test_a_second_signal_ends_it_at_once(tmp_path, origin):
    with serve_process(tmp_path) as service:
        batch_id = service.submit(sources=[f"{origin}/delay/30"])
        service.wait_for(batch_id, lambda view: view["progress"]["in_flight"] == 1)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_event("service_draining")
        assert service.stop(signal.SIGTERM) == -signal.SIGTERM


def test_a_state_folder_has_one_service(tmp_path):
    with serve_process(tmp_path):
        command = [sys.executable, "-m", "fetcher", "serve", "-s", "service.port=0"]
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 75
        assert "state/service: another service is using it" in second.stderr


def test_a_port_that_is_taken_is_said_so_before_anything_is_begun(tmp_path):
    with serve_process(tmp_path) as service:
        port = service.url.rpartition(":")[2]
        command = [
            sys.executable,
            "-m",
            "fetcher",
            "serve",
            "-s",
            f"service.port={port}",
            "-s",
            "service.state_dir=other",
        ]
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 78
        assert f"can not listen on 127.0.0.1:{port}" in second.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("service.host=0.0.0.0", "takes tokens; make one: fetcher token"),
        ("service.prot=1", "did you mean 'port'?"),
        ("http.tls.ca_file=nothing.pem", "nothing.pem"),
    ],
)
def test_a_bad_config_is_refused(tmp_path, override, words):
    command = [sys.executable, "-m", "fetcher", "serve", "-s", "service.port=0", "-s", override]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert words in done.stderr


def test_lint_knows_the_config_of_a_service(tmp_path):
    (tmp_path / "good.yaml").write_text("service: {port: 0}\nlimits: {concurrency: 5}\n")
    (tmp_path / "bad.yaml").write_text("service:\n  port: many\nsources: [x]\n")
    command = [sys.executable, "-m", "fetcher", "lint", "good.yaml", "bad.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert done.stdout == "good.yaml: ok\n"
    lines = done.stderr.splitlines()
    assert lines[0] == "bad.yaml:2: service.port: should be a whole number, not 'many'"
    assert lines[1].startswith("bad.yaml:3: sources: unknown key")


def test_a_token_is_shown_once_and_its_hash_is_what_the_config_takes(tmp_path):
    command = [sys.executable, "-m", "fetcher", "token", "--name", "ci", "--write"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    token = done.stdout.strip()
    assert token not in done.stderr
    (tmp_path / "service.yaml").write_text(done.stderr.partition("\n")[2])
    with serve_process(tmp_path, config="service.yaml") as service:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            service.ask("GET", "/v1/batches")
        listed = service.ask("GET", "/v1/batches", Authorization=f"Bearer {token}")
        assert listed == {"batches": [], "next": None}
        assert token not in service.log_path.read_text()
