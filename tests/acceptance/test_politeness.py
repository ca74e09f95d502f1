"""Politeness that nobody configured: what a person sees who runs a batch against hosts in trouble."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

import pytest
from batches import TEST_HOSTS, run_batch
from origin_process import origin_process
from raw_server import ok, raw_server, unused_port

CONFIG = """\
sources: {sources}
queue: memory
body: none
http: {{resolve: {{"*.test": 127.0.0.1}}}}
sinks: [out.jsonl]
"""


@pytest.fixture
def run(tmp_path):
    """Run a batch of some sources and return the process and its records."""

    def run(sources, *overrides):
        (tmp_path / "batch.yaml").write_text(CONFIG.format(sources=json.dumps(sources)), encoding="utf-8")
        flags = [word for override in overrides for word in ("-s", override)]
        done = subprocess.run(
            [sys.executable, "-m", "fetcher", "run", "batch.yaml", *flags],
            cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
            env={key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")},
        )  # fmt: skip
        return done, [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    return run


def statuses(origin, host):
    return Counter(line["status"] for line in origin.log_lines() if line["host"].startswith(host))


def at(origin, host, path):
    return f"http://{host}.test:{origin.port}{path}"


def test_a_host_that_takes_two_at_once_is_asked_for_about_two_at_once(run, tmp_path):
    """8 in flight are allowed. At that, three answers in four would be refusals, and jobs would fail for it."""
    with origin_process(tmp_path / "access.jsonl") as origin:
        done, records = run(
            [
                at(origin, "tight", "/at-most/2/0.05/bytes/100?i={1..200}"),
                at(origin, "well", "/delay/0.05/bytes/100?i={1..200}"),
            ]
        )
    assert (done.returncode, len(records)) == (0, 400), done.stderr
    tight = statuses(origin, "tight")
    assert tight[200] == 200
    assert tight[429] < 50
    # Nobody else is asked any less: 200 answers of 50 ms, 8 at a time.
    assert statuses(origin, "well") == {200: 200}
    ended = [record["finished_at"] for record in records if "well" in record["url"]]
    assert max(ended) < max(record["finished_at"] for record in records if "tight" in record["url"])


def test_without_adaptation_it_is_refused_again_and_again(run, tmp_path):
    with origin_process(tmp_path / "access.jsonl") as origin:
        run([at(origin, "tight", "/at-most/2/0.05/bytes/100?i={1..200}")], "limits.adapt=false", "retry.attempts=2")
    assert statuses(origin, "tight")[429] > 100


def test_a_dead_host_is_given_up_and_every_job_accounted_for(run, tmp_path):
    port = unused_port()
    with origin_process() as origin:
        done, records = run(
            [f"http://dead.test:{port}/{{1..5000}}", at(origin, "well", "/bytes/100?i={1..200}")],
            "limits.breaker.pause=300ms",
            "max_failures=1000",
        )
    # Few have failed, but those that were skipped are missing all the same.
    assert done.returncode == 3
    found = Counter((record["outcome"], record.get("error_kind")) for record in records)
    assert found.total() == 5200
    assert found["ok", None] == 200
    assert found["skipped", "host_down"] > 4900
    assert set(found) <= {("ok", None), ("skipped", "host_down"), ("failed", "connect_refused")}
    assert "5,200 jobs = ok 200" in done.stderr
    skipped = next(record for record in records if record.get("error_kind") == "host_down")
    assert skipped["error_message"].startswith(f"dead.test:{port} did not answer: ")


def test_a_dead_port_costs_no_job_of_another_port_of_the_same_host(run):
    port = unused_port()
    with origin_process() as origin:
        done, records = run(
            [f"http://x.test:{port}/{{1..1000}}", at(origin, "x", "/bytes/100?i={1..100}")],
            "limits.breaker.pause=300ms",
        )
    assert done.returncode == 3
    found = Counter((record["outcome"], record.get("error_kind")) for record in records)
    assert found.total() == 1100
    assert found["ok", None] == 100
    assert found["skipped", "host_down"] > 950
    assert {f":{port}/" in record["url"] for record in records if record["outcome"] == "skipped"} == {True}


def test_a_handful_of_urls_of_a_dead_host_ends_with_its_own_error(run):
    done, records = run([f"http://dead.test:{unused_port()}/{{1..3}}"], "retry.backoff=10ms")
    assert done.returncode == 3
    assert [(record["error_kind"], record["attempts"]) for record in records] == [("connect_refused", 4)] * 3


def test_concurrency_may_find_itself(run):
    with origin_process() as origin:
        done, records = run(
            [at(origin, "well", "/delay/0.1/bytes/100?i={1..1500}")],
            "limits={concurrency: auto, per_host: {concurrency: 500}}",
        )
    assert (done.returncode, len(records)) == (0, 1500), done.stderr
    begun = Counter(record["started_at"][:19] for record in records)
    # Twenty at a time are 200 in a second.
    assert max(begun.values()) > 250


async def test_the_crawl_delay_of_robots_txt_is_kept_if_robots_are_obeyed(tmp_path):
    came = []

    async def script(peer):
        while True:
            robots = b" /robots.txt " in await peer.request()
            if not robots:
                came.append(time.monotonic())
            await peer.send(ok(b"User-agent: *\nCrawl-delay: 1\n" if robots else b"page"))

    async with raw_server(script) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", "a.test") for n in range(4)],
            http={**TEST_HOSTS, "robots": "obey"},
            # It is known with the first answer; what had begun by then is not taken back.
            limits={"per_host": {"concurrency": 1}},
        )
    assert [record["outcome"] for record in records] == ["ok"] * 4
    assert min(after - before for before, after in pairwise(came)) >= 0.99
