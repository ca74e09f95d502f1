"""What results weigh, and that it is what the delivery holds back by."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fetcher.model import Job, Outcome, Result
from fetcher.pipeline.delivery import BATCH_BYTES, Delivery
from fetcher.pipeline.weight import added, weight_of
from fetcher.queues.memory import MemoryQueue
from fetcher.testing import MemorySink

LONG = "x" * 1_000_000


def made(job_id="1", **fields):
    return Result(batch="b", job_id=job_id, url="u", outcome=Outcome.OK, attempts=1, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"body": LONG.encode()},
        {"headers": [("a", "b"), ("c", LONG)]},
        {"meta": {"a": 1, "b": LONG}},
        {"meta": {"a": [{"b": LONG}]}},
        {"extracted": {"text": LONG}},
        {"extracted": {"a": None, "list": ["x" * 1000] * 1000, "b": 1.5}},
        {"extracted": {"odd": [object(), LONG]}},
    ],
)
def test_what_can_be_large_counts_wherever_it_is(fields):
    assert 1_000_000 <= weight_of(made(**fields)) < 1_010_000
    assert weight_of(made()) == 0


def test_what_records_share_with_their_results_counts_once():
    result = made(body=b"x" * 1000, meta={"a": LONG})
    text = msgspec.structs.replace(result, extracted={"text": "y" * 500})
    assert added([result, text], [result]) == 500
    assert added([msgspec.structs.replace(text, body=b"z" * 70)], [result]) == 570


@pytest.mark.parametrize("fields", [{"headers": [("a", LONG)]}, {"meta": {"a": LONG}}])
async def test_workers_wait_when_what_is_not_a_body_is_large(fields):
    delivery = Delivery(MemoryQueue(), {}, lambda leases, accepted: None)
    for number in range(4 * BATCH_BYTES // len(LONG) + 1):
        assert not delivery.full
        delivery.add(None, made(str(number), **fields))
    assert delivery.full


class Growing:
    """A stage whose records are much larger than what it is given."""

    concurrency = 0

    def check(self):
        pass

    def apply(self, result):
        return msgspec.structs.replace(result, extracted={"text": "x" * 300_000})


async def test_what_stages_add_counts_until_it_is_acknowledged():
    queue, sink = MemoryQueue(), MemorySink()
    sink.gate = asyncio.Event()
    await queue.put([Job(id=str(n), url="u", host="a") for n in range(10)], {})
    delivery = Delivery(queue, {"sink": sink}, lambda leases, accepted: None, {"grow": Growing()})
    await delivery.open({})
    running = asyncio.ensure_future(delivery.run())
    for lease in (await queue.lease(10, 10, {})).leases:
        delivery.add(lease, made(lease.job.id))
    delivery.hurry()
    async with asyncio.timeout(10):
        while not delivery._ledger.weight:  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.001)
    assert delivery._ledger.weight == 3_000_000
    sink.gate.set()
    delivery.finish()
    await running
    assert delivery._ledger.weight == 0
    assert len(sink.results) == 10
