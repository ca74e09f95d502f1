"""What whole batches do when a server that takes their records is full, slow, hostile, or not to be reached."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from origin_process import origin_process

from fetcher.assembly import Batch
from fetcher.config import Config
from fetcher.errors import ConfigError
from fetcher.registry import config_class

JOBS = 60


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


@pytest.fixture
def config(origin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *sinks: Config.model_validate(
        {"sources": [f"{origin.url}/bytes/10?{{1..{JOBS}}}"], "sinks": ["out.jsonl", *sinks], "queue": "memory"}
    )


@pytest.fixture
def receiver(webhook):
    webhook.reset()
    return webhook


async def run(batch):
    await batch.open()
    try:
        assert await batch.run()
        assert batch.engine.accounted
    finally:
        await batch.close()


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_f78_a_webhook_to_a_blocked_address_is_refused_before_anything_is_fetched(config, receiver):
    batch = Batch(config({"type": "webhook", "url": receiver.url, "guard": True}))
    with pytest.raises(ConfigError, match="is blocked"):
        await batch.open()
    await batch.close()
    assert receiver.requests == []
    assert batch.engine.done == 0


async def test_f84_a_redis_that_is_full_is_waited_for(config, redis):
    key = f"results-{uuid.uuid4().hex}"
    batch = Batch(config({"type": "redis", "url": redis.url, "stream": key, "password": redis.password}))
    await batch.open()
    with redis.client() as client:
        client.config_set("maxmemory", "1")
        try:
            running = asyncio.create_task(batch.run())
            outlet = batch.engine.delivery.outlets[1]
            while outlet.trouble is None:
                assert not running.done()
                await asyncio.sleep(0.01)
            assert "is full; make room, raise its maxmemory, or set max_length" in outlet.trouble.message
        finally:
            client.config_set("maxmemory", "0")
        assert await running
        await batch.close()
        assert client.xlen(key) == JOBS


async def test_f95_a_webhook_that_fails_is_tried_again_until_it_takes_everything(config, receiver):
    answers = iter([200, 503, 429])  # the first is that to the ping
    receiver.answer = lambda _: next(answers, 200)
    await run(Batch(config({"type": "webhook", "url": receiver.url})))
    assert len({record["job_id"] for record in receiver.records}) == len(receiver.records) == JOBS


async def test_f95_a_webhook_that_goes_on_failing_has_dead_letters_of_its_own(config, receiver, tmp_path):
    receiver.answer = lambda posted: 503 if posted.records else 200
    sink = {"type": "webhook", "url": receiver.url, "required": False, "patience": "300ms"}
    batch = Batch(config(sink))
    await run(batch)
    assert len(lines(tmp_path / "out.jsonl")) == JOBS
    dead = lines(tmp_path / "state" / "batch.webhook-2.dead.jsonl")
    assert len({record["job_id"] for record in dead}) == len(dead) == JOBS
    assert batch.engine.delivery.tally.dead_letters == {"webhook-2": JOBS}


async def test_f95_a_record_that_a_webhook_refuses_holds_up_no_other(config, receiver, tmp_path):
    receiver.answer = lambda posted: 422 if any(r["job_id"] == "0-7" for r in posted.records) else 200
    await run(Batch(config({"type": "webhook", "url": receiver.url})))
    assert len(receiver.records) == JOBS - 1
    (rejected,) = lines(tmp_path / "state" / "batch.webhook-2.rejected.jsonl")
    assert (rejected["record"]["job_id"], rejected["reason"]) == ("0-7", "HTTP 422: said 422")
    assert len(lines(tmp_path / "out.jsonl")) == JOBS


async def test_f95_webhooks_that_refuse_have_files_of_their_own_and_of_one_run(config, receiver, tmp_path):
    receiver.answer = lambda posted: 422 if any(r["job_id"] in {"0-7", "0-9"} for r in posted.records) else 200
    sinks = [{"type": "webhook", "url": f"{receiver.url}{path}"} for path in ("a", "b")]
    made = config(*sinks).model_copy(update={"queue": config_class("queues", "sqlite")(path="queue.db")})
    for _ in range(2):
        await run(Batch(made))
        for title in ("webhook-2", "webhook-3"):
            kept = lines(tmp_path / "state" / f"batch.{title}.rejected.jsonl")
            assert sorted(line["record"]["job_id"] for line in kept) == ["0-7", "0-9"]
