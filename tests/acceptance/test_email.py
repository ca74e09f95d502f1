"""Batches that end in every way, and who is told of it by mail."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys

import pytest
from origin_process import origin_process

from fetcher.assembly import Batch
from fetcher.config import Config
from fetcher.errors import SinkError
from fetcher.pipeline import ending as module


@pytest.fixture
def server(smtp):
    smtp.reset()
    return smtp


def table(message):
    (attachment,) = message.iter_attachments()
    return list(csv.DictReader(io.StringIO(attachment.get_content())))


@pytest.fixture
def config(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*urls, **sections):
        email = server.options | {"type": "email", "timeout": 5.0} | sections.pop("email", {})
        usual = {"sources": list(urls), "sinks": ["out.jsonl", email], "retry": {"attempts": 1}}
        return Config.model_validate(usual | sections)

    return make


async def run(config, *, fresh=False):
    batch = Batch(config, fresh=fresh)
    await batch.open()
    try:
        return await batch.run()
    finally:
        await batch.close()


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


async def test_a_batch_that_ends_sends_one_message(config, server, origin):
    assert await run(config(f"{origin.url}/bytes/10?{{1..50}}", f"{origin.url}/status/500", max_failures=0))
    (message,) = server.messages
    assert message["subject"] == "[fetcher] batch: FAILED, 1 of 51 jobs failed (more than 0)"
    (row,) = table(message)
    assert (row["url"], row["status"], row["error_kind"]) == (f"{origin.url}/status/500", "500", "http_5xx")
    assert "ok 50" in message.get_body(("plain",)).get_content()


async def test_a_batch_that_was_interrupted_sends_its_message_when_it_ends(config, server, origin):
    many = config(
        f"{origin.url}/status/500?{{1..20}}", f"{origin.url}/delay/0.02/bytes/10?{{1..300}}", max_failures=100
    )
    batch = Batch(many)
    await batch.open()
    settled = batch.engine._settled

    def drain_soon(leases, accepted):
        settled(leases, accepted)
        batch.drain()

    batch.engine.delivery._on_settled = drain_soon
    assert not await batch.run()
    await batch.close()
    assert server.messages == []
    assert await run(many)
    (message,) = server.messages
    assert message["subject"] == "[fetcher] batch: finished, 20 of 320 jobs failed"
    assert len(table(message)) == 20


async def test_a_run_that_is_stopped_by_a_fault_says_so(config, server, origin):
    urls = config(f"{origin.url}/bytes/10?{{1..50}}")
    batch = Batch(urls)
    await batch.open()

    async def fail(results):
        raise SinkError("out.jsonl: no such luck")

    batch.engine.delivery.outlets[0].sink.write = fail
    with pytest.raises(SinkError, match="no such luck"):
        await batch.run()
    await batch.close()
    (message,) = server.messages
    assert message["subject"].startswith("[fetcher] batch: STOPPED, 0 of ")
    assert "out.jsonl: no such luck" in message.get_body(("plain",)).get_content()
    assert await run(urls)
    assert [message["subject"].split()[2] for message in server.messages] == ["STOPPED,", "finished,"]


async def test_a_source_that_can_not_be_read_to_its_end_is_told_of(config, server, origin, tmp_path):
    (tmp_path / "urls.txt").write_text(f"{origin.url}/bytes/10\n")
    urls = config("urls.txt")
    batch = Batch(urls)
    await batch.open()
    (tmp_path / "urls.txt").unlink()
    assert not await batch.run()
    await batch.close()
    (message,) = server.messages
    assert "STOPPED" in message["subject"]
    assert "urls.txt" in message.get_body(("plain",)).get_content()


async def test_a_batch_does_not_fail_because_nobody_could_be_told(config, server, origin, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    urls = config(f"{origin.url}/bytes/10?{{1..5}}")
    batch = Batch(urls)
    await batch.open()
    server.stop()
    try:
        assert await batch.run()
        await batch.close()
    finally:
        server.start()
    assert batch.engine.delivery.outlets[1].errors == 1
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 5


async def test_a_message_that_is_required_is_sent_when_the_run_is_resumed(
    config, server, origin, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    urls = config(f"{origin.url}/bytes/10?{{1..5}}", email={"required": True})
    batch = Batch(urls)
    await batch.open()
    server.stop()
    try:
        with pytest.raises(SinkError, match="can not be reached") as failure:
            await batch.run()
        await batch.close()
    finally:
        server.start()
    assert failure.value.exit_code == 75
    assert await run(urls)
    assert len(server.messages) == 1
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 5


async def test_a_server_that_comes_back_in_time_is_sent_the_message(config, server, origin):
    urls = config(f"{origin.url}/bytes/10?{{1..5}}")
    batch = Batch(urls)
    await batch.open()
    server.answer = "451 try later"
    calls = []
    sink = batch.engine.delivery.outlets[1].sink
    conclude = sink.conclude

    async def recover(ending):
        calls.append(ending)
        if len(calls) == 2:
            server.answer = "250 OK"
        return await conclude(ending)

    sink.conclude = recover
    assert await batch.run()
    await batch.close()
    assert len(calls) == 2
    assert len(server.messages) == 1


async def test_killed_and_resumed_it_sends_one_message_with_all_failures(server, origin, tmp_path):
    urls = [f"{origin.url}/{'status/500' if n % 10 == 0 else 'delay/0.02/bytes/10'}?{n}" for n in range(600)]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    config = {
        "sources": ["urls.txt"],
        "sinks": ["out.jsonl", server.options | {"type": "email"}],
        "retry": {"attempts": 1},
        "limits": {"concurrency": 10, "per_host": {"concurrency": 10}},
        "max_failures": "50%",
    }
    (tmp_path / "batch.yaml").write_text(json.dumps(config))
    first = await started(tmp_path)
    while not (tmp_path / "out.jsonl").exists() or (tmp_path / "out.jsonl").stat().st_size < 20_000:
        assert first.returncode is None, await first.stderr.read()
        await asyncio.sleep(0.01)
    first.kill()
    await first.communicate()
    assert server.messages == []
    second = await started(tmp_path)
    _, said = await second.communicate()
    assert second.returncode == 0, said
    (message,) = server.messages
    assert message["subject"] == "[fetcher] batch: finished, 60 of 600 jobs failed"
    assert len({row["job_id"] for row in table(message)}) == len(table(message)) == 60


async def started(folder):
    command = [sys.executable, "-m", "fetcher", "run", "batch.yaml"]
    return await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=asyncio.subprocess.PIPE)
