"""Large downloads and later runs, as a person runs them: killed in the middle, gone on with, fetched again."""
# ruff: noqa: ASYNC240  the files of a test are near

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from range_server import RangeServer, content, range_server

if TYPE_CHECKING:
    from asyncio.subprocess import Process

MIB = 1024 * 1024
SIZE = 64 * MIB
# What may be under way when a process is killed: a batch that is filled, one that is written, what sockets hold.
IN_FLIGHT = 8 * MIB


@pytest.fixture(scope="module")
def large():
    return content(SIZE)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def configure(*urls: str, **sections: Any) -> None:
    rows = [dict(zip(("link", "sum"), url.split("|"), strict=False)) for url in urls]
    Path("urls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"type": "file", "path": "urls.jsonl", "column": "link", "checksum": "sum"}
    retry = {"attempts": 1}
    config = {"sources": [source], "sinks": ["out/r.jsonl"], "retry": retry, "max_failures": "100%"}
    Path("batch.yaml").write_text(json.dumps(config | sections))


FILES = {"store": "file", "path": "out/{batch}/{job_id}.bin", "max_size": "1GiB", "range": "resume"}


async def start(*arguments: str) -> Process:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml", *arguments]
    return await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment)


async def finished(*arguments: str, code: int = 0) -> str:
    process = await start(*arguments)
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == code, said.decode()
    return said.decode()


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/r.jsonl").read_text().splitlines()]


def stored() -> list[str]:
    return sorted(str(path) for path in Path("out").rglob("*") if path.is_file() and path.name != "r.jsonl")


async def sent_by(server: RangeServer, count: int, process: Process) -> None:
    """Wait until a process has been sent so many bytes; one that ends before that says why."""
    sending = asyncio.create_task(server.has_sent(count))
    ending = asyncio.create_task(process.communicate())
    await asyncio.wait([sending, ending], return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        sending.cancel()
        raise AssertionError(ending.result()[1].decode())
    ending.cancel()
    await asyncio.wait([ending])


async def killed_in_the_middle(server: RangeServer) -> None:
    server.pause = 0.005  # for each 64 KiB: some five seconds in all for the largest
    process = await start()
    await sent_by(server, len(server.body) // 2, process)
    process.kill()
    await process.communicate()
    server.pause = 0.0
    # No name says that it is whole.
    assert [name for name in stored() if ".partial" not in name] == []


async def test_a_download_that_was_killed_is_gone_on_with(large):
    async with range_server(large) as server:
        digest = hashlib.sha256(large).hexdigest()
        configure(f"{server.url()}|sha256:{digest}", body=FILES)
        await killed_in_the_middle(server)
        await finished()
    [record] = records()
    assert (record["outcome"], record["status"], record["sha256"]) == ("ok", 206, digest)
    assert record["resumed_at"] > SIZE // 2 - IN_FLIGHT
    assert record["body_size"] == SIZE
    assert record["wire_size"] == SIZE - record["resumed_at"]
    assert "body" not in record
    assert hashlib.sha256(Path(record["body_path"]).read_bytes()).hexdigest() == digest
    assert server.sent <= SIZE + IN_FLIGHT
    assert stored() == ["out/batch/0-1.bin"]


async def test_within_a_run_every_attempt_goes_on_where_the_last_one_stopped(large):
    large = large[: 4 * MIB]
    async with range_server(large, breaks=[MIB, MIB, MIB]) as server:
        configure(server.url(), body=FILES, retry={"attempts": 4, "backoff": "10ms"})
        await finished()
    [record] = records()
    assert (record["outcome"], record["attempts"], record["status"]) == ("ok", 4, 206)
    assert Path(record["body_path"]).read_bytes() == large
    assert server.sent == len(large)


async def test_a_drained_run_goes_on_with_what_it_had_begun(large):
    async with range_server(large[: SIZE // 4]) as server:
        configure(server.url(), body=FILES, shutdown_timeout="100ms")
        server.pause = 0.005
        process = await start()
        await sent_by(server, SIZE // 8, process)
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
        assert process.returncode == 75, said
        server.pause = 0.0
        await finished()
    [record] = records()
    assert record["resumed_at"] > 0
    assert Path(record["body_path"]).read_bytes() == large[: SIZE // 4]


@pytest.mark.parametrize("how", ["no ranges", "another version", "a lie"])
async def test_or_fetched_again_if_that_can_not_be(large, how):
    large = large[: SIZE // 4]
    other = content(len(large), "other") if how == "another version" else large
    async with range_server(large) as server:
        configure(server.url(), body=FILES)
        await killed_in_the_middle(server)
        server.ranges = how != "no ranges"
        server.body, server.etag = other, '"v2"' if how == "another version" else '"v1"'
        server.lies = [f"bytes 1000-{len(large) - 1}/{len(large)}"]
        await finished()
    [record] = records()
    assert (record["outcome"], record["status"], record.get("resumed_at")) == ("ok", 200, None)
    assert record["sha256"] == hashlib.sha256(other).hexdigest()
    assert Path(record["body_path"]).read_bytes() == other


async def test_what_is_killed_without_resuming_leaves_nothing_behind(large):
    async with range_server(large[: SIZE // 4]) as server:
        configure(server.url(), body=FILES | {"range": "none"})
        await killed_in_the_middle(server)
        await finished()
    assert records()[0]["status"] == 200
    assert stored() == ["out/batch/0-1.bin"]


async def test_a_checksum_that_is_wrong_or_none(large):
    body = large[: 2 * MIB]
    async with range_server(body) as server:
        digest = hashlib.sha1(body).hexdigest()
        configure(f"{server.url()}|sha1:{digest}", f"{server.url()}|{'0' * 40}", f"{server.url()}|crc:1", body="file")
        await finished()
        assert len(server.requests) == 2
    good, wrong, none = sorted(records(), key=lambda record: record["job_id"])
    assert (good["outcome"], good["body_path"]) == ("ok", f"out/bodies/{good['sha256'][:2]}/{good['sha256']}")
    assert (wrong["outcome"], wrong["error_kind"], wrong.get("body_path")) == ("failed", "checksum_mismatch", None)
    assert (none["outcome"], none["error_kind"]) == ("skipped", "invalid_row")
    assert stored() == [good["body_path"]]


async def test_a_later_run_fetches_only_what_has_changed(large):
    body = large[: 2 * MIB]
    async with range_server(body) as server:
        configure(server.url("/a"), server.url("/b"), body="file", http={"cache": True})
        await finished()
        await finished()
        again = records()
        assert server.sent == 2 * len(body)
        server.body, server.etag = content(1000, "new"), '"v2"'
        await finished()
    assert [(record["outcome"], record["status"], record["revalidated"]) for record in again] == [("ok", 304, True)] * 2
    for record in again:
        assert Path(record["body_path"]).read_bytes() == body
    assert [(record["status"], record["body_size"]) for record in records()] == [(200, 1000)] * 2


async def test_a_full_disk_can_be_resumed_from(large):
    """The limit holds for every file, of which the body's is the first to meet it."""
    async with range_server(large[: 4 * MIB]) as server:
        configure(server.url(), body=FILES)
        command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
        limited = ["bash", "-c", 'trap "" XFSZ; ulimit -S -f 2000; exec "$@"', "bash", *command]
        process = await asyncio.create_subprocess_exec(*limited, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 75, said
        assert "free some space and run again to resume" in said.decode().splitlines()[-1]
        await finished()
    assert records()[0]["body_size"] == 4 * MIB
