"""ftp from the outside: the config of the docs, `fetcher get`, a batch of two protocols, and a guarded service."""

# ruff: noqa: ASYNC240  the files of a test are small and near

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from batches import run_batch
from origin_process import origin_process
from serve_process import serve_process
from servers.ftp import PASSWORD, USER, FtpServer, ftp_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
FILES = {"store": "file", "path": "files/{sha256}", "inline_max": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FtpServer]:
    (tmp_path / "served").mkdir()
    with ftp_server(tmp_path / "served") as running:
        running.write("pub/data.csv", b"a,b\n1,2\n")
        running.write("reports/2026.csv", b"c\n3\n")
        yield running


def fetcher(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fetcher", *arguments]
    env = {**os.environ, **environ}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=env)


def test_the_config_of_the_docs_runs(tmp_path, server):
    (config,) = re.findall(r"<!-- config: ftp -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = config.replace("username: me", f"username: {USER}")
    config = re.sub(r"\w+://(\w+)\.example\.org/", rf"ftp://\1.example.org:{server.port}/", config)
    (tmp_path / "mirror.yaml").write_text(config + 'http: {resolve: {"*.example.org": 127.0.0.1}}\n')
    done = fetcher(tmp_path, "run", "mirror.yaml", FILES_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "out/mirror.jsonl").read_text().splitlines()]
    by_name = {record["url"].rpartition("/")[2]: record for record in records}
    assert [entry["name"] for entry in json.loads(by_name[""]["body"])] == ["data.csv"]
    assert by_name["data.csv"]["body"] == "a,b\n1,2\n"
    assert by_name["2026.csv"]["outcome"] == "ok"
    assert {record["method"] for record in records} == {"RETR", "LIST"}
    assert not any("status" in record for record in records)
    assert sorted(set(server.logins)) == [("anonymous", True), (USER, True)]


def test_get_fetches_a_file(tmp_path, server):
    done = fetcher(tmp_path, "get", server.url("pub/data.csv", user=f"{USER}:{PASSWORD}"))
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["outcome"], record["body_size"]) == ("ok", 8)
    assert PASSWORD not in done.stdout + done.stderr


async def test_one_batch_stores_the_bodies_of_both_protocols(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with origin_process() as origin:
        jobs = [server.url("pub/data.csv"), f"{origin.url}/bytes/100", server.url("missing")]
        records = await run_batch(tmp_path, jobs, body=FILES)
    found = {record["url"]: record for record in records}
    assert Path(found[jobs[0]]["body_path"]).read_bytes() == b"a,b\n1,2\n"
    assert Path(found[jobs[1]]["body_path"]).stat().st_size == 100
    assert (found[jobs[2]]["outcome"], found[jobs[2]]["error_kind"]) == ("failed", "ftp_5xx")


def test_clients_of_a_service_reach_no_ftp_server_that_its_guard_forbids(tmp_path, server):
    with serve_process(tmp_path, "http.guard=true") as service:
        batch = service.submit(
            sources=[server.url("pub/data.csv"), f"ftp://localhost:{server.port}/pub/"],
            sinks=[{"type": "file", "path": "out.jsonl"}],
        )
        service.wait_for_end(batch)
        records = service.results(batch)
        logins = [{"hosts": ["*"], "username": "me", "password": {"env": "PATH"}}]
        with pytest.raises(urllib.error.HTTPError) as caught:
            service.submit(sources=[server.url("pub/")], sinks=["out.jsonl"], ftp={"logins": logins})
    assert caught.value.code == 422
    assert "logins" in json.load(caught.value)["problems"][0]
    assert [record["error_kind"] for record in records] == ["blocked", "blocked"]
    assert not server.connections
