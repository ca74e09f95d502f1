"""Rounds over a transport that answers as told; nothing here depends on how fast the machine is."""

import asyncio

import pytest

from fetcher.errors import ErrorKind
from fetcher.histogram import middle_of
from fetcher.load.plan import Spec
from fetcher.load.run import UNFINISHED, Run
from fetcher.model import Job, Outcome, Result

JOBS = [Job(id=f"0-{n}", url=f"http://127.0.0.1/{n}", host="127.0.0.1") for n in range(3)]


def result(outcome=Outcome.OK, status=200, kind=None):
    return Result(
        batch="b", job_id="0", url="http://127.0.0.1/", outcome=outcome, status=status, error_kind=kind,
        error_message="no" if kind else None, attempts=1, wire_size=10,
    )  # fmt: skip


def run(fetch, stop=None, grace=10.0, **spec):
    spec = Spec(**({"warm_up": 0.0, "concurrency": 2} | spec))
    return Run(spec, JOBS, fetch, stop or asyncio.Event(), grace=grace)


async def at_once(_job):
    return result()


async def test_a_number_of_requests_is_that_number_and_cycles_the_jobs():
    asked = []

    async def fetch(job):
        asked.append(job.id)
        await asyncio.sleep(0)
        return result()

    measured = await run(fetch, requests=10, concurrency=1).measure()
    assert asked == [f"0-{n % 3}" for n in range(10)]
    assert (measured.requests, measured.ok, measured.answered, measured.received) == (10, 10, 10.0, 100.0)
    assert measured.throughput == pytest.approx(10 / measured.seconds)
    assert sum(measured.latency.values()) == 10


async def test_concurrency_is_the_number_in_flight():
    most = now = 0

    async def fetch(_job):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return result()

    await run(fetch, requests=100, concurrency=7).measure()
    assert most == 7


async def test_a_fetch_that_never_waits_does_not_stop_the_clock():
    measured = await run(at_once, duration=0.05).measure()
    assert measured.requests > 2
    assert measured.seconds == pytest.approx(0.05)


async def test_the_warm_up_is_not_counted():
    loop = asyncio.get_running_loop()
    started = []

    async def fetch(_job):
        started.append(loop.time())
        await asyncio.sleep(0.002)
        return result()

    measured = await run(fetch, requests=5, warm_up=0.05, concurrency=1).measure()
    assert measured.requests == 5
    assert len(started) > 5


async def test_failures_are_counted_by_kind_and_only_answers_and_timeouts_have_a_latency():
    answers = iter(
        [result()]
        + [result(Outcome.FAILED, 503, ErrorKind.HTTP_5XX)] * 2
        + [result(Outcome.FAILED, None, ErrorKind.CONNECT_REFUSED)] * 3
        + [result(Outcome.FAILED, None, ErrorKind.READ_TIMEOUT)]
    )

    async def fetch(_job):
        await asyncio.sleep(0)
        return next(answers)

    measured = await run(fetch, requests=7, concurrency=1).measure()
    assert measured.errors == {"http_5xx": 2, "connect_refused": 3, "read_timeout": 1}
    assert measured.messages["http_5xx"] == "no"
    assert sum(measured.latency.values()) == 4
    assert measured.error_rate == pytest.approx(6 / 7)
    assert measured.good == 1.0


async def test_what_hangs_at_the_end_counts_as_slow_and_is_let_go():
    cancelled = 0

    async def fetch(_job):
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    measured = await run(fetch, duration=0.02, grace=0.01, concurrency=3).measure()
    assert measured.errors == {UNFINISHED: 3}
    assert measured.requests == 3
    assert measured.slowest >= 0.02
    assert cancelled == 3


async def test_stopping_ends_it_at_once_and_blames_nobody():
    stop, started = asyncio.Event(), asyncio.Event()

    async def fetch(_job):
        started.set()
        await asyncio.Event().wait()

    round_ = run(fetch, stop, duration=3600)
    measuring = asyncio.create_task(round_.measure())
    await started.wait()
    stop.set()
    measured = await measuring
    assert (measured.requests, measured.errors, measured.complete) == (0, {}, False)


async def test_a_fault_of_ours_ends_the_round_and_leaves_no_task():
    async def fetch(_job):
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await run(fetch, duration=3600).measure()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_open_loop_counts_the_wait_for_a_worker():
    """One worker, and a target that needs ten times as long as requests are apart: the queue shows."""
    took = 0.01

    async def fetch(_job):
        await asyncio.sleep(took)
        return result()

    measured = await run(fetch, requests=20, rate=1000.0, concurrency=1).measure()
    assert measured.requests == 20
    # The last is due after 19 ms and begins when 19 others are through: in a closed loop it would show 10 ms.
    assert measured.slowest >= 19 * took - 0.019
    assert measured.achieved_rate < 200
    middle = sorted(bucket for bucket, count in measured.latency.items() for _ in range(count))[10]
    assert middle_of(middle) > 5 * took


async def test_an_open_loop_sends_no_more_than_is_due():
    measured = await run(at_once, duration=0.2, rate=100.0, warm_up=0.05, concurrency=50).measure()
    assert measured.due <= 20
    assert measured.requests <= 20
    assert measured.achieved_rate <= 100.0


async def test_an_open_loop_that_can_not_be_held_says_so_and_holds_nothing_in_memory():
    async def fetch(_job):
        await asyncio.sleep(0.005)
        return result()

    measured = await run(fetch, duration=0.05, rate=10_000_000.0, concurrency=2).measure()
    assert measured.due > measured.requests
    assert measured.achieved_rate < 10_000_000.0
    assert measured.requests < 100


async def test_an_answer_that_spans_the_end_counts_with_its_share():
    async def fetch(_job):
        await asyncio.sleep(0.1)
        return result()

    measured = await run(fetch, duration=0.05, concurrency=4).measure()
    # None of the four ended within the window, and yet it had about half of each.
    assert (measured.requests, measured.ok) == (4, 4)
    assert 0 < measured.answered <= 2.01
