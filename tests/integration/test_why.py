"""What bounds the throughput, told from real runs: each is built so that one thing does."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from batches import TEST_HOSTS
from bounded_runs import batch, first, true, why
from origin_process import origin_process

from fetcher.assembly import Shared
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.engine.why.advice import USUAL, Bound
from fetcher.engine.why.sampling import sample
from fetcher.interfaces import Chunk
from fetcher.model import Job
from fetcher.registry import config_class
from fetcher.service.observing.why import Reasons


@pytest.fixture(scope="module")
def origin():
    with origin_process() as running:
        yield running


def url(origin, path, host="a.test"):
    return f"http://{host}:{origin.port}{path}"


@asynccontextmanager
async def shared(**limits):
    one = Shared(LimitSettings(**limits), config_class("transports", "http").model_validate(TEST_HOSTS))
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def test_a_host_at_its_limit(origin, tmp_path):
    one = batch(tmp_path, [url(origin, "/delay/0.05/bytes/10?n={1..2000}")], limits={"per_host": {"concurrency": 1}})
    found = first(await why(one))
    assert found.name == Bound.HOST_LIMITS
    assert found.share > 0.5
    assert found.details == ["a.test (100%)"]
    assert "limits.per_host.concurrency" in found.advice


async def test_a_rate(origin, tmp_path):
    limits = {"per_host": {"rate": "5/s"}}
    found = first(await why(batch(tmp_path, [url(origin, "/bytes/10?n={1..2000}")], limits=limits)))
    assert found.name == Bound.RATE
    assert found.share > 0.5
    assert found.details == ["a.test (100%)"]


@pytest.mark.parametrize("limit", [{"rate": "20/s"}, {"budget": ["20/s"]}])
async def test_a_pace_while_answers_are_slow_is_not_the_fault_of_the_queue(origin, tmp_path, limit):
    limits = {"per_host": {"concurrency": 100} | limit}
    one = batch(tmp_path, [url(origin, "/delay/30/bytes/10?n={1..2000}")], limits=limits)
    reasons = await why(one, until=lambda: len(one.engine.running) > 3)
    assert first(reasons).name == (Bound.RATE if "rate" in limit else Bound.BUDGET)
    assert not {Bound.QUEUE, Bound.CPU} & {found.name for found in reasons.get().bounds if found.share > 0.1}


async def test_a_tiny_concurrency(origin, tmp_path):
    sources = [url(origin, "/delay/0.05/bytes/10?n={1..2000}", host) for host in ("a.test", "b.test")]
    found = first(await why(batch(tmp_path, sources, limits={"concurrency": 2})))
    assert found.name == Bound.CONCURRENCY
    assert found.share > 0.5
    assert found.details == [f"{tmp_path.name} (100%)"]


async def test_a_slow_origin(origin, tmp_path):
    limits = {"concurrency": 50, "per_host": {"concurrency": 50}}
    one = batch(tmp_path, [url(origin, "/delay/30/bytes/10?n={1..500}")], limits=limits)

    def has_waited():
        return len(one.engine.running) == 50 and all(
            work.seconds > USUAL for work in sample(one.engine, loop.time()).at_work
        )

    loop = asyncio.get_running_loop()
    found = first(await why(one, until=has_waited))
    assert found.name == Bound.ORIGIN
    assert found.details == ["a.test (100%)"]


async def test_a_host_that_asks_to_be_left_alone(origin, tmp_path):
    one = batch(tmp_path, [url(origin, "/retry-after/60/1/bytes/1?n={1..50}")])
    found = first(await why(one, until=lambda: one.engine.retries))
    assert found.name == Bound.REST
    assert found.details == ["a.test (100%)"]


async def test_a_host_that_does_not_answer(tmp_path):
    one = batch(tmp_path, ["http://dead.test:1/{1..500}"], limits={"breaker": {"failures": 3}}, retry={"attempts": 1})
    found = first(await why(one, until=lambda: one.engine.delivery.held or one.engine.done))
    assert found.name == Bound.BREAKER
    assert found.details == ["dead.test (100%)"]


async def test_jobs_that_wait_to_be_tried_again(origin, tmp_path):
    retry = {"backoff": "30s", "statuses": [500]}
    one = batch(tmp_path, [url(origin, "/status/500?n={1..20}")], retry=retry)
    found = first(await why(one, until=lambda: one.engine.retries == 20))
    assert found.name == Bound.RETRIES


async def test_a_slow_sink(origin, tmp_path):
    async def receive(request):
        # It is asked once without a record, whether it is there.
        await asyncio.sleep(60 if len(await request.read()) > 100 else 0)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sinks = [{"type": "webhook", "name": "hooked", "url": f"http://127.0.0.1:{port}/"}]
    one = batch(tmp_path, [url(origin, "/bytes/10?n={1..20000}")], sinks=sinks)
    try:
        found = first(await why(one, until=lambda: one.engine.delivery.full))
    finally:
        await runner.cleanup()
    assert found.name == Bound.SINK
    assert found.share > 0.5
    assert found.details == ["hooked (100%)"]


async def test_a_source_that_brings_too_little(origin, tmp_path):
    class Trickle:
        def check(self):
            pass

        async def read(self, position):
            for number in range(1000):
                yield Chunk([Job(str(number), url(origin, f"/bytes/{number}"), "a.test")], str(number))
                await asyncio.sleep(0.1)

    one = batch(tmp_path, ["http://a.test/"])
    one.engine._feeder._sources = [Trickle()]
    found = first(await why(one))
    assert found.name == Bound.SOURCE
    assert found.share > 0.5


async def test_something_that_blocks_the_loop(origin, tmp_path):
    async def block():
        while True:
            time.sleep(0.5)  # noqa: ASYNC251  that is the fault
            await asyncio.sleep(0.001)

    sources = [url(origin, "/delay/0.01/bytes/10?n={1..2000}")]
    one = batch(tmp_path, sources, limits={"concurrency": 20, "per_host": {"concurrency": 20}})
    blocking = []

    def has_begun():
        if one.engine.running and not blocking:
            blocking.append(asyncio.create_task(block()))
        return bool(blocking)

    try:
        found = first(await why(one, until=has_begun, kind=Reasons))
    finally:
        blocking[0].cancel()
    assert found.name == Bound.CPU
    assert "stages" in found.advice


async def test_batches_that_wait_for_the_slots_of_the_service(origin, tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    async with shared(concurrency=4) as service:
        batches = [
            batch(folder, [url(origin, "/delay/0.05/bytes/10?n={1..2000}", f"{folder.name}.test")], shared=service)
            for folder in folders
        ]
        found = first(await why(*batches))
    assert found.name == Bound.SERVICE
    assert found.share > 0.5


@pytest.mark.parametrize("own", [{}, {"concurrency": 50}])
async def test_the_concurrency_of_a_service_that_binds_its_only_batch(origin, tmp_path, own):
    async with shared(concurrency=3) as service:
        sources = [url(origin, "/delay/0.05/bytes/10?n={1..2000}", host) for host in ("a.test", "b.test")]
        found = first(await why(batch(tmp_path, sources, limits=own, shared=service)))
    assert found.name == Bound.SERVICE
    assert found.share > 0.5
    assert "in the config of the service" in found.advice


@pytest.mark.parametrize(("own", "by_service"), [({}, True), ({"concurrency": 50}, True), ({"concurrency": 1}, False)])
async def test_the_limit_of_a_host_is_that_of_the_service_or_of_the_batch(origin, tmp_path, own, by_service):
    async with shared(per_host=HostLimits(concurrency=2)) as service:
        sources = [url(origin, "/delay/0.05/bytes/10?n={1..2000}")]
        found = first(await why(batch(tmp_path, sources, limits={"per_host": own}, shared=service)))
    assert found.name == Bound.HOST_LIMITS
    assert ("in the config of the service" in found.advice) is by_service


@pytest.mark.parametrize(("own", "by_service"), [({}, True), ({"rate": "50/s"}, True), ({"rate": "2/s"}, False)])
async def test_a_rate_is_that_of_the_service_or_of_the_batch(origin, tmp_path, own, by_service):
    async with shared(per_host=HostLimits(rate=5)) as service:
        sources = [url(origin, "/bytes/10?n={1..2000}")]
        found = first(await why(batch(tmp_path, sources, limits={"per_host": own}, shared=service)))
    assert found.name == Bound.RATE
    assert ("in the config of the service" in found.advice) is by_service


async def test_a_batch_that_waits_for_its_host_beside_one_that_has_all_slots(origin, tmp_path):
    folders = [tmp_path / name for name in ("busy", "waits")]
    for folder in folders:
        folder.mkdir()
    async with shared(concurrency=10) as service:
        many = [url(origin, "/delay/0.05/bytes/10?n={1..500}", f"h{number}.test") for number in range(10)]
        busy = batch(folders[0], many, shared=service)
        slow = {"per_host": {"rate": "1/s"}}
        waits = batch(folders[1], [url(origin, "/bytes/10?n={1..500}", "slow.test")], limits=slow, shared=service)
        found = first(await why(busy, waits, until=lambda: service.slots.in_flight == 10))
    assert found.name == Bound.SERVICE
    assert found.share > 0.6


async def test_of_a_batch_that_was_ended_nothing_is_told(origin, tmp_path):
    limits = {"per_host": {"rate": "5/s"}}
    reasons = await why(batch(tmp_path, [url(origin, "/bytes/10?n={1..2000}")], limits=limits))
    assert first(reasons).name == Bound.RATE
    reasons.look()
    assert reasons.get().bounds == []
    assert reasons.get().seconds == 0


async def test_nothing_to_do():
    reasons = Reasons(list)
    reasons.look()
    assert reasons.get().bounds == []
    assert reasons.get().verdict == "Nothing is being fetched."


async def test_looking_costs_less_than_a_hundredth_of_a_core(origin, tmp_path):
    sources = [url(origin, "/delay/30/bytes/10?n={1..20}", f"h{number}.test") for number in range(100)]
    limits = {"concurrency": 1000, "per_host": {"concurrency": 100}}
    one = batch(tmp_path, sources, limits=limits)
    spent = []

    def cost(reasons):
        started = time.thread_time()
        reasons.look()
        spent.append(time.thread_time() - started)

    await one.open()
    run = asyncio.create_task(one.run())
    try:
        await true(lambda: len(one.engine.running) == 1000)
        reasons = Reasons(lambda: [one.engine])
        for _ in range(20):
            cost(reasons)
            await asyncio.sleep(0)
    finally:
        one.drain()
        await run
        await one.close()
    # Four looks a second, and the least of them, as others may be at the same core.
    assert 4 * min(spent) < 0.01
