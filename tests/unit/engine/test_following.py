"""Pages within the engine: fakes at both ends, so that time and order can be controlled."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter

import pytest

from fetcher.engine import following
from fetcher.engine.engine import Engine
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.parts import Parts
from fetcher.engine.retry import RetrySettings
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.why.lookout import sample
from fetcher.errors import ErrorKind, FetchError, LateError, StateError
from fetcher.interfaces import Chunk
from fetcher.model import Job, Outcome, Rejection
from fetcher.pagination import PaginationSettings, Paginator
from fetcher.pagination.queries import parameter
from fetcher.pipeline import delivery
from fetcher.queues.memory import MemoryQueue
from fetcher.queues.sqlite import SqliteQueue
from fetcher.settings import RequestSettings
from fetcher.testing import MemorySink, MockTransport, ok

PAGES = 7
NO_WAIT = RetrySettings(backoff=0)


@pytest.fixture(autouse=True)
async def nothing_left_behind():
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


class Listings:
    """A source of listings, and of rows that are something else."""

    def __init__(self, count, *others):
        self.jobs = [Job(str(n), f"http://h{n}.test/?n={n}", f"h{n}.test") for n in range(count)]
        self.jobs += others

    def check(self):
        pass

    async def read(self, position):
        if position is None:
            yield Chunk([job.__copy__() for job in self.jobs], "end")


def page(job):
    """Answer with a page of a listing that has some."""
    number = int(parameter(job.url, "page") or 1)
    return ok(job, json.dumps({"data": [number] if number <= PAGES else [], "pages": PAGES}).encode())


class Bench:
    def __init__(self, source, respond=page, *, queue=None, sink=None, limits=None, section=None, gate=None, **parts):
        section = section or {"page": {"items": "data", "total": "pages"}}
        paginator = Paginator(PaginationSettings.model_validate(section), RequestSettings())
        paginator.check()
        self.queue = queue or MemoryQueue()
        self.transport = MockTransport(respond, gate=gate)
        self.sink = sink or MemorySink()
        self.engine = Engine(
            Parts(
                batch="b",
                sources=[source],
                queue=self.queue,
                transports={"http": self.transport, "udp": self.transport},
                sinks={"sink:0": self.sink},
                limits=limits or LimitSettings(),
                retry=NO_WAIT,
                paginator=paginator,
                **parts,
            )
        )

    async def run(self):
        marks = await self.queue.open()
        await self.engine.start(marks)
        try:
            await self.engine.run(marks)
        finally:
            await self.engine.close()

    @property
    def ids(self):
        return Counter(result.job_id for result in self.sink.results)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  no event to wait for
            await asyncio.sleep(0.001)


def expected(listings, pages=PAGES):
    return Counter(f"0-{n}" + (f"~{page}" if page > 1 else "") for n in range(listings) for page in range(1, pages + 1))


async def test_every_page_has_one_record_that_says_which_it_is():
    bench = Bench(Listings(3))
    await bench.run()
    assert bench.ids == expected(3)
    assert bench.engine.accounted
    assert (bench.engine.added, bench.engine.duplicates) == (3 * PAGES, 0)
    for result in bench.sink.results:
        root, _, number = result.job_id.partition("~")
        assert (result.parent_id, result.page) == ((root if number else None), int(number or 1))
        assert result.has_more is (result.page < PAGES)
        assert f"page={result.page}" in result.url


async def test_a_page_goes_to_the_queue_before_its_record_to_the_sinks(monkeypatch):
    monkeypatch.setattr(delivery, "LINGER", 0)
    gate, putting = asyncio.Event(), asyncio.Event()

    class Queue(MemoryQueue):
        async def put(self, jobs, marks):
            if any(job.parent for job in jobs):
                putting.set()
                await gate.wait()
            return await super().put(jobs, marks)

    bench = Bench(Listings(5), queue=Queue())
    run = asyncio.create_task(bench.run())
    await putting.wait()
    for _ in range(50):  # whatever could happen before the put is done
        await asyncio.sleep(0.001)
    assert (bench.engine.delivery.held, bench.sink.results, bench.engine.finished) == (0, [], False)
    gate.set()
    await run
    assert bench.ids == expected(5)


async def test_a_page_that_is_fetched_again_after_a_crash_adds_nothing(tmp_path):
    """What was put is there, what was not acknowledged is done again: at whatever page it ended."""
    for dead_at in range(1, PAGES + 1):
        path = tmp_path / f"{dead_at}.db"
        sink = MemorySink()
        sink.gate = asyncio.Event()  # nothing is ever acknowledged
        bench = Bench(Listings(1), queue=SqliteQueue(path), sink=sink)
        marks = await bench.queue.open()
        await bench.engine.start(marks)
        run = asyncio.create_task(bench.engine.run(marks))
        await until(lambda jobs=bench.transport.jobs, most=dead_at: len(jobs) >= most)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await bench.queue.close()
        again = Bench(Listings(1), queue=SqliteQueue(path))
        await again.run()
        assert again.ids == expected(1)
        assert again.engine.accounted
        assert (again.engine.added, again.engine.duplicates) == (PAGES, 0)
        await again.queue.close()


async def test_pages_go_on_where_a_drain_has_stopped_them(tmp_path):
    queue, sink = SqliteQueue(tmp_path / "q.db"), MemorySink()
    first = Bench(Listings(4), queue=queue, sink=sink)

    def respond(job):
        if len(first.transport.jobs) == 9:
            first.engine.drain()
        return page(job)

    first.transport._respond = respond
    await first.run()
    assert not first.engine.finished
    assert 9 <= first.ids.total() < 4 * PAGES
    assert (await queue.counts()).left == first.engine.left > 0
    await queue.close()
    second = Bench(Listings(4), queue=SqliteQueue(tmp_path / "q.db"), sink=sink)
    await second.run()
    assert second.ids == expected(4)
    assert second.engine.accounted
    await second.queue.close()


async def test_what_is_fetched_while_it_drains_is_followed_and_recorded():
    gate = asyncio.Event()
    bench = Bench(Listings(3), gate=gate)
    run = asyncio.create_task(bench.run())
    await until(lambda: bench.transport.in_flight == 3)
    bench.engine.drain()
    gate.set()
    await run
    assert bench.ids == expected(3, pages=1)
    assert (bench.engine.added, bench.engine.left) == (6, 3)


async def test_a_queue_that_takes_no_pages_ends_the_run_and_nothing_is_acknowledged():
    class Queue(MemoryQueue):
        async def put(self, jobs, marks):
            if any(job.parent for job in jobs):
                raise StateError("q.db: disk is full")
            return await super().put(jobs, marks)

    bench = Bench(Listings(3), queue=Queue())
    with pytest.raises(StateError, match="disk is full"):
        await bench.run()
    assert bench.sink.results == []
    assert (await bench.queue.counts()).outcomes == {}


async def test_a_queue_that_is_late_at_a_shutdown_is_named():
    class Queue(MemoryQueue):
        async def put(self, jobs, marks):
            if any(job.parent for job in jobs):
                bench.engine.drain()
                await asyncio.Event().wait()
            return await super().put(jobs, marks)

    bench = Bench(Listings(1), queue=Queue(), shutdown_timeout=0.01)
    with pytest.raises(LateError, match="the queue did not take the last results in time"):
        await bench.run()


async def test_workers_wait_while_the_queue_takes_no_pages(monkeypatch):
    monkeypatch.setattr(following, "_SIZE", 2)
    gate, putting = asyncio.Event(), asyncio.Event()

    class Queue(MemoryQueue):
        async def put(self, jobs, marks):
            if any(job.parent for job in jobs):
                putting.set()
                await gate.wait()
            return await super().put(jobs, marks)

    limits = LimitSettings.model_validate({"concurrency": 1})
    bench = Bench(Listings(60), queue=Queue(), limits=limits)
    run = asyncio.create_task(bench.run())
    await putting.wait()
    await until(lambda: bench.engine.waits_for_pages)
    fetched = len(bench.transport.jobs)
    await asyncio.sleep(0.02)
    assert len(bench.transport.jobs) == fetched < 60
    assert sample(bench.engine, asyncio.get_running_loop().time()).full == []
    gate.set()
    await run
    assert bench.ids == expected(60)


async def test_how_many_jobs_there_will_be_is_not_known_before_the_last_page():
    gate = asyncio.Event()
    bench = Bench(Listings(1), gate=gate)
    run = asyncio.create_task(bench.run())
    await until(lambda: bench.engine.fed and bench.transport.in_flight)
    assert bench.engine.growing
    gate.set()
    await run
    assert not bench.engine.growing


# What ends a listing


async def test_a_page_without_a_usable_next_one_has_failed():
    def respond(job):
        return ok(job, b"<html>" if parameter(job.url, "page") == "3" else page(job).body)

    bench = Bench(Listings(1), respond)
    await bench.run()
    assert bench.ids == expected(1, pages=3)
    last = next(result for result in bench.sink.results if result.page == 3)
    assert (last.outcome, last.error_kind, last.parent_id) == (Outcome.FAILED, ErrorKind.BAD_PAGINATION, "0-0")
    assert (last.attempts, last.body, last.has_more) == (1, b"<html>", None)
    assert bench.engine.accounted


async def test_a_page_that_fails_for_good_ends_its_listing_and_names_it():
    def respond(job):
        if parameter(job.url, "page") == "2":
            raise FetchError(ErrorKind.CONNECT_REFUSED, "refused", sent=False)
        return page(job)

    bench = Bench(Listings(1), respond)
    await bench.run()
    assert bench.ids == expected(1, pages=2)
    last = next(result for result in bench.sink.results if result.page == 2)
    assert (last.outcome, last.parent_id, last.attempts, last.has_more) == (Outcome.FAILED, "0-0", 4, None)


async def test_a_page_that_is_tried_again_leads_on():
    tried = Counter()

    def respond(job):
        tried[job.url] += 1
        return page(job) if tried[job.url] > 1 else ok(job, b"", 503)

    bench = Bench(Listings(2), respond)
    await bench.run()
    assert bench.ids == expected(2)
    assert {result.attempts for result in bench.sink.results} == {2}


async def test_a_page_that_is_skipped_names_its_listing(monkeypatch):
    monkeypatch.setattr(Scheduler, "some_in_trouble", property(lambda _: True))
    bench = Bench(Listings(1))
    gone = Rejection(ErrorKind.HOST_DOWN, "is down")
    bench.engine.scheduler.verdict = lambda lease, _: gone if lease.job.page == 2 else None
    await bench.run()
    last = next(result for result in bench.sink.results if result.outcome is Outcome.SKIPPED)
    assert (last.job_id, last.parent_id, last.page) == ("0-0~2", "0-0", 2)


async def test_a_listing_that_is_longer_than_it_may_be_is_counted():
    bench = Bench(Listings(3), section={"page": {"total": "pages"}, "max_pages": 4})
    await bench.run()
    assert bench.ids == expected(3, pages=4)
    assert bench.engine.delivery.tally.cut == 3
    assert bench.engine.accounted
    whole = Bench(Listings(3), section={"page": {"total": "pages"}, "max_pages": PAGES})
    await whole.run()
    assert whole.engine.delivery.tally.cut == 0


async def test_only_answers_over_http_have_pages():
    bench = Bench(Listings(0, Job("0", "udp://h.test:7", "h.test")), lambda job: ok(job, b"[]"))
    await bench.run()
    (only,) = bench.sink.results
    assert (only.outcome, only.page, only.has_more) == (Outcome.OK, None, None)


async def test_a_fault_of_ours_costs_one_page(monkeypatch):
    def broken(self, job, result):
        raise KeyError("a bug")

    monkeypatch.setattr(Paginator, "following", broken)
    bench = Bench(Listings(2))
    await bench.run()
    assert {result.error_kind for result in bench.sink.results} == {ErrorKind.INTERNAL}
    assert bench.engine.accounted


# What it costs


@pytest.mark.parametrize(("size", "on_loop"), [(10, True), (following.LARGE, False)])
async def test_large_bodies_are_looked_at_on_another_thread(monkeypatch, size, on_loop):
    threads = set()
    look = Paginator.following

    def watched(self, job, result):
        threads.add(threading.current_thread())
        return look(self, job, result)

    monkeypatch.setattr(Paginator, "following", watched)
    bench = Bench(Listings(1), lambda job: ok(job, json.dumps({"data": [], "padding": "x" * size}).encode()))
    await bench.run()
    assert (threads == {threading.main_thread()}) is on_loop


async def test_the_last_page_does_not_wait_for_others_to_be_delivered_with(monkeypatch):
    monkeypatch.setattr(delivery, "LINGER", 60)
    bench = Bench(Listings(1))
    async with asyncio.timeout(20):
        await bench.run()
    assert bench.ids == expected(1)


async def test_dedupe_is_about_rows_and_not_about_pages():
    again = Job("9", "http://h0.test/?n=0", "h0.test")
    own = Job("10", "http://h0.test/?n=0&page=2", "h0.test")
    bench = Bench(Listings(1, again, own), dedupe=True)
    await bench.run()
    assert (bench.engine.added, bench.engine.duplicates) == (2 * PAGES - 1, 1)
    assert bench.engine.accounted
