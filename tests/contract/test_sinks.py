"""What every sink promises, whatever its type: see ``fetcher.interfaces.Sink`` and ``contract.sinks``."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from contract.sinks import SERVERS, TARGETS

from fetcher.errors import ErrorKind, SinkError
from fetcher.model import Outcome, Redirect, Result

_WAIT = 20.0


@pytest.fixture(params=TARGETS)
async def target(request, tmp_path):
    server = SERVERS.get(request.param)
    made = TARGETS[request.param](tmp_path, server and request.getfixturevalue(server))
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
async def begun(target):
    """Check and open new sinks, each as a process of its own would; the one before it is closed first."""
    open_now = []

    async def begin(mark=None, *, resume=False):
        while open_now:
            await open_now.pop().close()
        sink = target.sink()
        open_now.append(sink)
        await sink.check(mark, resume=resume)
        return sink, await sink.open(mark)

    yield begin
    for sink in open_now:
        await sink.close()


def results(*names, **fields):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    return [
        Result(
            batch="batch",
            job_id=f"0:{name}",
            url=f"http://a.test/{name}",
            final_url=f"http://a.test/{name}",
            method="GET",
            status=200,
            outcome=Outcome.OK,
            attempts=1,
            started_at=moment,
            finished_at=moment,
            total_s=0.25,
            headers=[("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
            content_type="text/html",
            body_size=4,
            body=b"body",
            meta={"name": str(name)},
            **fields,
        )
        for name in names
    ]


def ids(*names):
    return Counter(f"0:{name}" for name in names)


async def arrived(target):
    return Counter(record["job_id"] for record in await target.records())


async def test_what_was_written_is_there_when_write_returns(target, begun):
    sink, _ = await begun()
    await sink.write(results(1, 2, 3))
    assert await arrived(target) == ids(1, 2, 3)
    await sink.write(results(4))
    assert await arrived(target) == ids(1, 2, 3, 4)
    assert {record["url"] for record in await target.records()} == {f"http://a.test/{n}" for n in (1, 2, 3, 4)}


async def test_marks_are_all_or_none(target, begun):
    """A sink that has marks has one from the beginning on, and a sink that has none never invents one."""
    sink, first = await begun()
    marks = [first, await sink.write(results(1)), await sink.write(results(2))]
    assert marks == [None] * 3 or all(isinstance(mark, str) for mark in marks)


async def test_a_check_changes_nothing(target, begun):
    sink, mark = await begun()
    mark = await sink.write(results(1, 2)) or mark
    await sink.close()
    another = target.sink()
    await another.check(mark, resume=True)
    await another.close()
    assert await arrived(target) == ids(1, 2)


async def test_what_is_written_again_after_a_crash_is_there_once(target, begun):
    """The end came after the sink had taken the batch and before that was acknowledged (F81)."""
    sink, mark = await begun()
    mark = await sink.write(results(1, 2)) or mark
    await sink.write(results(3, 4, 5))
    sink, _ = await begun(mark, resume=True)
    if not target.takes_back:
        return
    await sink.write(results(3, 5))
    await sink.write(results(4, 6))
    assert await arrived(target) == ids(1, 2, 3, 4, 5, 6)


async def test_what_is_written_again_by_another_attempt_is_there_once(target, begun):
    """The batch was divided in another way the second time: other jobs were ready first."""
    sink, mark = await begun()
    await sink.write(results(1, 2, 3))
    sink, _ = await begun(mark, resume=True)
    if not target.takes_back:
        return
    for names in ((3,), (2, 4), (1,)):
        await sink.write(results(*names))
    assert await arrived(target) == ids(1, 2, 3, 4)


async def test_an_earlier_run_is_replaced(target, begun):
    sink, mark = await begun()
    mark = await sink.write(results(1, 2)) or mark
    await sink.close()
    again = target.sink()
    await again.check(mark, resume=False)
    if mark is not None:
        await again.discard(mark)
    await again.open(None)
    await again.write(results(2, 3))
    await again.close()
    if target.discards:
        assert await arrived(target) in (ids(2, 3), ids(1, 2, 3))  # without marks nobody knows whose it is
    assert mark is None or not target.discards or await arrived(target) == ids(2, 3)


async def test_close_flushes_and_may_be_called_twice(target, begun):
    sink, _ = await begun()
    await sink.write(results(*range(50)))
    await sink.close()
    await sink.close()
    assert await arrived(target) == ids(*range(50))


async def test_a_sink_that_was_never_opened_can_be_closed(target):
    sink = target.sink()
    await sink.close()
    await sink.close()


async def test_a_batch_is_taken_whole_however_large(target, begun):
    sink, _ = await begun()
    many = results(*range(2000))
    for result in many:
        result.body = b"x" * 500
        result.body_size = 500
    await sink.write(many)
    assert await arrived(target) == ids(*range(2000))


def poison():
    """Return results as hostile servers and inputs make them, with two good ones around them."""
    bad = results("nul", "surrogate", "binary", "wide", "empty", "failed", "odd\u2028id", "large")
    nul, surrogate, binary, wide, empty, failed, odd, large = bad
    nul.error_message = "a\0b"
    nul.headers = [("X", "a\0b"), ("", "")]
    nul.meta = {"a\0": "b\0", "deep": {"er": [None, True, 1.5, {"x": []}]}}
    surrogate.url = surrogate.final_url = "http://a.test/\udcff"
    surrogate.headers = [("X-\udcff", "\udcfe")]
    surrogate.meta = {"\udcff": "\udcfe"}
    binary.body = bytes(range(256)) * 4
    binary.body_size = 1024
    wide.meta = {"big": 2**63 - 1, "negative": -(2**63), "float": 1e308, "text": "\U0001f600 ' \" \\ ; -- %s $1 {}"}
    wide.content_type = "x" * 5000
    wide.content_length = 2**62
    # No such times in UTC: a stage may make them.
    wide.started_at = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    wide.finished_at = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    empty.body = b""
    empty.headers, empty.meta, empty.redirects = [], {}, []
    failed.outcome, failed.error_kind, failed.error_message = Outcome.FAILED, ErrorKind.INTERNAL, "=cmd|' /C calc'!A0"
    failed.status = failed.final_url = failed.body = failed.started_at = None
    odd.redirects = [Redirect("http://a.test/\t", 302, 'x,"y"\r\n;\'')]
    odd.extracted = {"title": ["a", None], "n": 1}
    large.body = b"y" * 3_000_000
    large.body_size = 3_000_000
    return [*results("before"), *bad, *results("after")]


async def test_a_poison_record_spoils_nothing(target, begun):
    sink, _ = await begun()
    given = poison()
    await sink.write(given)
    await sink.write(results("later"))
    expected = Counter(result.job_id for result in given) + ids("later")
    assert await arrived(target) == expected


async def test_a_write_that_was_cancelled_leaves_a_sink_that_can_be_closed_and_resumed(target, begun):
    sink, mark = await begun()
    mark = await sink.write(results(1)) or mark
    call = asyncio.ensure_future(sink.write(results(*range(2, 400))))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    await sink.close()
    if target.takes_back:
        sink, _ = await begun(mark, resume=True)
        await sink.write(results(*range(2, 400)))
        assert await arrived(target) == ids(*range(1, 400))


async def test_a_target_that_stalls_holds_up_the_write(target, begun):
    if not target.can_stall:
        pytest.skip("this target can not be made to stall")
    sink, _ = await begun()
    await sink.write(results("before"))
    async with target.stalled():
        call = asyncio.ensure_future(sink.write(results(*range(20))))
        done, _ = await asyncio.wait([call], timeout=0.3)
        assert not done
    await asyncio.wait_for(call, _WAIT)
    assert await arrived(target) == ids("before", *range(20))


async def test_a_target_that_was_away_is_written_to_again(target, begun):
    """A sink says that trying again is worth it, and the same sink goes on when its target is back (F93)."""
    if not target.can_stop:
        pytest.skip("this target can not be away")
    sink, _ = await begun()
    await sink.write(results(1, 2))
    await target.stop()
    for _ in range(2):
        with pytest.raises(SinkError) as failure:
            await asyncio.wait_for(sink.write(results(3, 4)), _WAIT)
        assert failure.value.retryable
        assert failure.value.exit_code == 75
    await target.start()
    async with asyncio.timeout(_WAIT):
        while True:
            try:
                await sink.write(results(3, 4))
                break
            except SinkError as error:
                assert error.retryable, error  # noqa: PT017  it may take a moment
                await asyncio.sleep(0.1)
    assert await arrived(target) == ids(1, 2, 3, 4)
