"""The life of batches, with real engines, real queues and a real origin."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import sqlite3
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from origin_process import origin_process
from raw_server import raw_server

from fetcher.assembly import Shared
from fetcher.config import ConfigProblems
from fetcher.errors import BatchStateError, CursorError, StateBusyError, StateError, UnknownBatchError
from fetcher.service.batches.catalogue import Catalogue
from fetcher.service.keeper import Keeper
from fetcher.service.models import State
from fetcher.service.settings import ServiceConfig

SOON = 20.0


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Clock:
    """The time of day."""

    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def keeping(clock=None, **service):
    """Open a keeper, and drain it in the end."""
    limits = service.pop("limits", {"per_host": {"concurrency": 50}})
    config = ServiceConfig.model_validate(
        {"service": {"state_dir": "state/service", "files": "."} | service, "limits": limits, "http": {"guard": False}}
    )
    shared = Shared(config.limits, config.http)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(shared.close)
        await shared.open()
        keeper = Keeper(config, shared, **({} if clock is None else {"clock": clock}))
        await keeper.open()
        opened.push_async_callback(keeper.close, 5.0)
        yield keeper


def config(*sources, **sections):
    return json.dumps(
        {"name": "b", "sources": list(sources), "max_failures": "100%", "retry": {"attempts": 1}} | sections
    )


async def submit(keeper, *sources, batch_id=None, upload=None, **sections):
    view = await keeper.submit(config(*sources, **sections), "b.yaml", "api", batch_id=batch_id, upload=upload)
    return view.id


async def ended(keeper, batch_id):
    async with asyncio.timeout(SOON):
        return await keeper.wait(batch_id)


async def until(keeper, batch_id, what):
    """Wait until a view is as wanted. Looked at often, as nobody tells of progress."""
    async with asyncio.timeout(SOON):
        while not what(view := keeper.get(batch_id)):
            assert view.state is not State.FAILED, view.reason
            await asyncio.sleep(0.01)
    return view


async def records(keeper, batch_id, **wanted):
    found = b""
    async for lines, _ in keeper.results(batch_id, **wanted):
        found += lines
    return [json.loads(line) for line in found.splitlines()]


def each_once(found, count):
    return Counter(record["job_id"] for record in found) == Counter(f"0-{n}" for n in range(1, count + 1))


# From beginning to end


async def test_a_batch_is_taken_fetched_and_kept(origin, folder):
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/bytes/10?n={{1..300}}", sinks=["out.jsonl"])
        assert keeper.get(batch_id).state in {State.QUEUED, State.RUNNING}
        view = await ended(keeper, batch_id)
        assert (view.state, view.reason, view.exceeded, view.origin) == (State.DONE, None, False, "api")
        assert view.progress.outcomes == {"ok": 300}
        assert (view.progress.jobs, view.progress.left, view.progress.read_all) == (300, 0, True)
        assert view.created_at <= view.started_at <= view.finished_at
        assert each_once(await records(keeper, batch_id), 300)
        assert len((folder / "out.jsonl").read_text().splitlines()) == 300
        kept = {path.name for path in (folder / "state/service/batches" / batch_id).iterdir()}
        assert kept == {"config.yaml", "results.jsonl"}
        assert keeper.running == {}
    async with keeping() as keeper:
        assert keeper.get(batch_id) == view
        assert each_once(await records(keeper, batch_id), 300)


async def test_jobs_that_fail_make_no_batch_fail_but_are_counted(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/status/404?n={{1..3}}", f"{origin}/bytes/1", max_failures=2)
        view = await ended(keeper, batch_id)
        assert (view.state, view.exceeded) == (State.DONE, True)
        assert view.progress.outcomes == {"ok": 1, "failed": 3}
        assert [(kind.kind, kind.count) for kind in view.progress.kinds] == [("http_4xx", 3)]
        assert len(await records(keeper, batch_id, outcome="failed", kind="http_4xx")) == 3
        assert await records(keeper, batch_id, kind="dns_failure") == []


async def test_what_is_wrong_is_told_and_leaves_nothing_behind(folder):
    async with keeping() as keeper:
        for text, words in [
            ("sources: [nothing.csv]", "nothing.csv"),
            ("sources: [/etc/passwd]", "lies outside"),
            ("sources: ['http://x.org/']\nsinkz: []", "did you mean 'sinks'"),
            ("a" * 2_000_000, "is larger than service.max_config"),
        ]:
            with pytest.raises(ConfigProblems, match=words):
                await keeper.submit(text, "b.yaml", "api")
        assert keeper.list().batches == []
        assert list((folder / "state/service/batches").iterdir()) == []


async def test_a_submission_may_be_repeated_and_is_taken_once(origin, folder):
    urls = folder / "urls.txt"
    async with keeping() as keeper:
        urls.write_text(f"{origin}/bytes/1\n")
        found = await asyncio.gather(*(submit(keeper, f"{origin}/bytes/1", batch_id="mine") for _ in range(5)))
        assert set(found) == {"mine"}
        assert await submit(keeper, batch_id="mine", upload=urls) == "mine"
        assert urls.exists()
        assert (await ended(keeper, "mine")).progress.jobs == 1
        with pytest.raises(ConfigProblems, match="the id of a batch"):
            await submit(keeper, f"{origin}/", batch_id="../mine")


async def test_an_upload_is_moved_and_fetched_and_stays_if_it_is_refused(origin, folder):
    async with keeping() as keeper:
        upload = folder / "incoming.csv"
        upload.write_text("url,n\n" + "".join(f"{origin}/bytes/1?n={n},{n}\n" for n in range(20)))
        with pytest.raises(ConfigProblems):
            await keeper.submit("nonsense: 1", "b.yaml", "api", upload=upload)
        assert upload.exists()
        view = await keeper.submit("{}", "urls.yaml", "folder", upload=upload)
        assert not upload.exists()
        view = await ended(keeper, view.id)
        assert (view.name, view.origin, view.progress.outcomes) == ("urls", "folder", {"ok": 20})
        assert {record["meta"]["n"] for record in await records(keeper, view.id)} == {str(n) for n in range(20)}


async def test_batches_that_can_not_go_on_fail_with_their_reason_and_no_others_do(origin, folder):
    (folder / "taken.jsonl").write_text("mine\n")
    (folder / "urls.csv").write_text(f"url\n{origin}/bytes/1\n")
    async with keeping() as keeper:
        fine = await submit(keeper, f"{origin}/bytes/1?n={{1..200}}")
        taken = await submit(keeper, f"{origin}/bytes/1", sinks=["taken.jsonl"])
        assert (await ended(keeper, fine)).state is State.DONE
        view = await ended(keeper, taken)
        assert view.state is State.FAILED
        assert "taken.jsonl: exists and was not written by an earlier run" in view.reason
        assert view.finished_at is not None
        # Once it is mended, it goes on.
        (folder / "taken.jsonl").unlink()
        assert (await keeper.retry(taken)).state is State.QUEUED
        assert (await ended(keeper, taken)).state is State.DONE
    assert (folder / "taken.jsonl").exists()


async def test_a_source_that_ends_early_fails_a_batch_that_goes_on_when_it_is_mended(origin, folder):
    # What is wrong with it is too far within to be seen before it is read.
    comments = "".join(f"# {random.randbytes(500).hex()}\n" for _ in range(2000))
    rows = [f"{origin}/bytes/1?b={n}\n" for n in range(30)]
    whole = gzip.compress("".join([*rows[:15], comments, *rows[15:]]).encode())
    (folder / "a.txt").write_text("".join(f"{origin}/bytes/1?a={n}\n" for n in range(30)))
    (folder / "b.txt.gz").write_bytes(whole[:-20])
    async with keeping() as keeper:
        batch_id = await submit(keeper, {"type": "file", "path": ["a.txt", "b.txt.gz"]})
        view = await ended(keeper, batch_id)
        assert view.state is State.FAILED
        assert "b.txt.gz" in view.reason
        assert 30 <= view.progress.outcomes["ok"] < 60
        (folder / "b.txt.gz").write_bytes(whole)
        await keeper.retry(batch_id)
        view = await ended(keeper, batch_id)
        assert (view.state, view.reason, view.progress.outcomes) == (State.DONE, None, {"ok": 60})
        assert len({record["job_id"] for record in await records(keeper, batch_id)}) == 60


async def test_a_sink_that_takes_nothing_more_fails_a_batch_and_no_other(origin, folder):
    (folder / "full.db").symlink_to("/dev/full")
    async with keeping(files="/") as keeper:
        fine = await submit(keeper, slow(origin, 100))
        broken = await submit(keeper, f"{origin}/bytes/1", sinks=[{"type": "sqlite", "path": "full.db"}])
        assert (await ended(keeper, broken)).state is State.FAILED
        assert (await ended(keeper, fine)).state is State.DONE


async def test_a_deadline_fails_a_batch_that_can_be_gone_on_with(origin):
    async with keeping() as keeper:
        batch_id = await submit(
            keeper,
            f"{origin}/delay/0.3/bytes/1?n={{1..40}}",
            deadline="700ms",
            limits={"concurrency": 10},
            shutdown_timeout="5s",
        )
        view = await ended(keeper, batch_id)
        assert (view.state, view.reason) == (
            State.FAILED,
            "its deadline of 0.7 s has passed; retry goes on with what is left",
        )
        assert 0 < view.progress.outcomes["ok"] < 40
        rounds = 0
        while view.state is State.FAILED:
            await keeper.retry(batch_id)
            view = await ended(keeper, batch_id)
            rounds += 1
            assert rounds < 6
        assert each_once(await records(keeper, batch_id), 40)


# Pause, resume, cancel


def slow(origin, jobs=400):
    return f"{origin}/delay/0.05/bytes/1?n={{1..{jobs}}}"


async def test_a_batch_is_paused_and_goes_on_with_nothing_lost_and_nothing_twice(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 10})
        await until(keeper, batch_id, lambda view: view.progress.outcomes.get("ok", 0) > 30)
        view = await keeper.pause(batch_id)
        assert (view.state, view.reason) == (State.RUNNING, "pausing")
        assert (await keeper.pause(batch_id)).reason == "pausing"
        view = await until(keeper, batch_id, lambda view: view.state is State.PAUSED)
        assert (await keeper.pause(batch_id)) == view
        done = view.progress.outcomes["ok"]
        assert 30 < done < 400
        assert (view.progress.in_flight, view.finished_at, view.reason) == (0, None, None)
        assert len(await records(keeper, batch_id)) == done
        with pytest.raises(BatchStateError, match=r"is paused; what has not ended can not be retried"):
            await keeper.retry(batch_id)
        with pytest.raises(BatchStateError, match=r"is paused; cancel it first"):
            await keeper.delete(batch_id)
        assert (await keeper.resume(batch_id)).state is State.QUEUED
        assert (await keeper.resume(batch_id)).state in {State.QUEUED, State.RUNNING}
        view = await ended(keeper, batch_id)
        assert view.progress.outcomes == {"ok": 400}
        assert each_once(await records(keeper, batch_id), 400)


async def test_a_pause_that_is_taken_back_before_it_is_there(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 10})
        await until(keeper, batch_id, lambda view: view.progress.outcomes)
        await keeper.pause(batch_id)
        await keeper.resume(batch_id)
        assert (await ended(keeper, batch_id)).state is State.DONE
        assert each_once(await records(keeper, batch_id), 400)


async def test_a_batch_is_cancelled_at_once_and_keeps_its_results(origin):
    async with keeping() as keeper:
        batch_id = await submit(
            keeper,
            slow(origin, 100),
            f"{origin}/delay/30?n={{1..50}}",
            shutdown_timeout="1h",
            limits={"concurrency": 60},
        )
        await until(keeper, batch_id, lambda view: view.progress.outcomes.get("ok") == 100)
        view = await keeper.cancel(batch_id)
        assert (view.state, view.reason) == (State.RUNNING, "cancelling")
        with pytest.raises(BatchStateError, match="is being cancelled"):
            await keeper.pause(batch_id)
        with pytest.raises(BatchStateError, match="is being cancelled"):
            await keeper.resume(batch_id)
        view = await ended(keeper, batch_id)
        assert view.state is State.CANCELLED
        assert (await keeper.cancel(batch_id)) == view
        assert len(await records(keeper, batch_id)) == 100
        with pytest.raises(BatchStateError, match="what has ended can not be paused"):
            await keeper.pause(batch_id)


async def test_a_cancelled_batch_may_be_gone_on_with_after_all(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 10})
        await until(keeper, batch_id, lambda view: view.progress.outcomes.get("ok", 0) > 30)
        await keeper.cancel(batch_id)
        view = await ended(keeper, batch_id)
        assert 30 < view.progress.outcomes["ok"] < 400
        assert len(await records(keeper, batch_id)) == view.progress.outcomes["ok"]
        await keeper.retry(batch_id)
        assert (await ended(keeper, batch_id)).state is State.DONE
        assert each_once(await records(keeper, batch_id), 400)


async def test_whatever_is_pressed_at_once_leaves_a_batch_that_can_be_used(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 10})
        await until(keeper, batch_id, lambda view: view.progress.outcomes)
        actions = [keeper.pause, keeper.cancel, keeper.resume, keeper.cancel, keeper.pause, keeper.retry, keeper.delete]
        done = await asyncio.gather(*(action(batch_id) for action in actions), return_exceptions=True)
        assert {type(one).__name__ for one in done} <= {"BatchView", "BatchStateError"}
        assert (await ended(keeper, batch_id)).state is State.CANCELLED
        await keeper.retry(batch_id)
        assert (await ended(keeper, batch_id)).state is State.DONE
        assert each_once(await records(keeper, batch_id), 400)


async def test_what_waits_can_be_paused_and_cancelled_too(origin):
    async with keeping(running=1) as keeper:
        first = await submit(keeper, slow(origin), limits={"concurrency": 5})
        paused, cancelled = [await submit(keeper, f"{origin}/bytes/1") for _ in range(2)]
        assert (await keeper.pause(paused)).state is State.PAUSED
        assert (await keeper.cancel(cancelled)).state is State.CANCELLED
        assert await records(keeper, cancelled) == []
        await keeper.cancel(first)
        await ended(keeper, first)
        assert keeper.get(paused).state is State.PAUSED
        await keeper.resume(paused)
        assert (await ended(keeper, paused)).state is State.DONE


async def test_so_many_run_at_once_and_the_rest_goes_by_priority_and_age(origin):
    async with keeping(running=1) as keeper:
        first = await submit(keeper, slow(origin, 100_000), limits={"concurrency": 10})
        await until(keeper, first, lambda view: view.state is State.RUNNING)
        waiting = [await submit(keeper, f"{origin}/bytes/1", priority=priority) for priority in (0, 0, 5)]
        assert [keeper.get(one).state for one in waiting] == [State.QUEUED] * 3
        await keeper.cancel(first)
        views = [await ended(keeper, one) for one in waiting]
        assert views[2].started_at <= views[0].started_at <= views[1].started_at
        assert views[2].started_at >= keeper.get(first).finished_at


# Retry of what failed


async def test_a_retry_of_a_batch_that_is_done_has_only_what_failed(origin, folder):
    upload = folder / "u.csv"
    upload.write_text(
        "url\n" + "".join(f"{origin}/{'flaky/1/' if n % 4 == 0 else ''}bytes/9?n={n}\n" for n in range(40))
    )
    async with keeping() as keeper:
        text = json.dumps({"name": "x", "sinks": ["all.jsonl"], "retry": {"attempts": 1}})
        first = (await keeper.submit(text, "x.yaml", "api", upload=upload)).id
        assert (await ended(keeper, first)).progress.outcomes == {"ok": 30, "failed": 10}
        again = await keeper.retry(first)
        assert (again.retry_of, again.origin, again.name) == (first, "retry", "x")
        await keeper.delete(first)
        view = await ended(keeper, again.id)
        assert (view.state, view.reason, view.progress.outcomes) == (State.DONE, None, {"ok": 10})
        assert {record["job_id"] for record in await records(keeper, again.id)} == {
            f"0-{n + 2}" for n in range(0, 40, 4)
        }
        assert len((folder / "all.jsonl").read_text().splitlines()) == 50
        with pytest.raises(BatchStateError, match="nothing to retry: no job has failed"):
            await keeper.retry(again.id)


async def test_a_retry_of_a_page_that_has_failed_has_its_whole_listing(folder):
    asked = Counter()

    async def serve(peer):
        while True:
            target = (await peer.request()).split()[1].decode()
            asked[target] += 1
            broken = target == "/?n=1&page=2" and asked[target] == 1
            status, body = (b"500 x", b"") if broken else (b"200 OK", b'{"pages": 3}')
            await peer.send(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    async with raw_server(serve) as server, keeping() as keeper:
        source = f"http://127.0.0.1:{server.port}/?n={{1..3}}"
        first = await submit(keeper, source, pagination={"page": {"total": "pages"}})
        assert (await ended(keeper, first)).progress.outcomes == {"ok": 7, "failed": 1}
        again = await keeper.retry(first)
        assert (await ended(keeper, again.id)).progress.outcomes == {"ok": 3}
        found = await records(keeper, again.id)
    assert {(record["job_id"], record["page"], record.get("parent_id")) for record in found} == {
        ("0-1", 1, None),
        ("0-1~2", 2, "0-1"),
        ("0-1~3", 3, "0-1"),
    }


# Deleting


async def test_what_is_deleted_is_gone(origin, folder):
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/bytes/1")
        await ended(keeper, batch_id)
        await keeper.delete(batch_id)
        for ask in (keeper.get, keeper.text, keeper.results, keeper.acknowledged):
            with pytest.raises(UnknownBatchError):
                ask(batch_id)
        for act in (keeper.pause, keeper.resume, keeper.cancel, keeper.retry, keeper.delete, keeper.wait):
            with pytest.raises(UnknownBatchError):
                await act(batch_id)
        assert list((folder / "state/service/batches").iterdir()) == []
        assert keeper.find(batch_id) is None


async def test_who_waits_for_a_batch_that_is_deleted_is_told(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 5})
        waiting = asyncio.create_task(keeper.wait(batch_id))
        await until(keeper, batch_id, lambda view: view.state is State.RUNNING)
        await keeper.cancel(batch_id)
        assert (await waiting).state is State.CANCELLED


async def test_batches_are_kept_for_so_long_after_their_end(origin, folder):
    clock = Clock()
    async with keeping(clock, keep="10d") as keeper:
        old = await submit(keeper, f"{origin}/bytes/1")
        paused = await submit(keeper, slow(origin), limits={"concurrency": 1})
        await ended(keeper, old)
        await keeper.pause(paused)
        await until(keeper, paused, lambda view: view.state is State.PAUSED)
    clock.now += 6 * 86_400
    async with keeping(clock, keep="10d") as keeper:
        new = await submit(keeper, f"{origin}/bytes/1")
        await ended(keeper, new)
    clock.now += 5 * 86_400
    async with keeping(clock, keep="10d") as keeper:
        await until(keeper, new, lambda _: not (folder / "state/service/batches" / old).exists())
        assert keeper.find(old) is None
        assert {view.id for view in keeper.list().batches} == {paused, new}
    assert {path.name for path in (folder / "state/service/batches").iterdir()} == {paused, new}


# Lists and results


async def test_lists_go_on_where_they_ended(origin):
    async with keeping() as keeper:
        ids = [await submit(keeper, f"{origin}/bytes/1") for _ in range(5)]
        for batch_id in ids:
            await ended(keeper, batch_id)
        first = keeper.list(limit=2)
        second = keeper.list(limit=2, cursor=first.next)
        third = keeper.list(limit=2, cursor=second.next)
        assert [view.id for page in (first, second, third) for view in page.batches] == ids[::-1]
        assert third.next is None
        assert keeper.list(state="failed").batches == []
        assert [view.id for view in keeper.shown(3)] == ids[:1:-1]
        for cursor in ("x", "-1", "9" * 40, "\u0663"):
            with pytest.raises(CursorError):
                keeper.list(cursor=cursor)


async def test_results_can_be_followed_while_a_batch_runs(origin):
    async with keeping() as keeper:
        batch_id = await submit(keeper, slow(origin), limits={"concurrency": 20})
        found, cursor = b"", 0
        while True:
            state = keeper.get(batch_id).state
            async for lines, after in keeper.results(batch_id, cursor=cursor):
                found, cursor = found + lines, after
            if state is State.DONE:
                break
            await asyncio.sleep(0.02)
        assert each_once([json.loads(line) for line in found.splitlines()], 400)


# Restarts


async def test_a_service_that_ends_lets_batches_go_on_when_it_is_back(origin):
    async with keeping() as keeper:
        running = await submit(keeper, slow(origin), limits={"concurrency": 10})
        paused = await submit(keeper, slow(origin, 50), limits={"concurrency": 5})
        await until(keeper, paused, lambda view: view.progress.outcomes)
        await keeper.pause(paused)
        await until(keeper, paused, lambda view: view.state is State.PAUSED)
        await until(keeper, running, lambda view: view.progress.outcomes)
        assert not await keeper.close(5.0)
        with pytest.raises(StateBusyError, match="about to end"):
            await submit(keeper, f"{origin}/bytes/1")
    async with keeping() as keeper:
        assert keeper.get(running).progress.outcomes["ok"] > 0
        assert (await ended(keeper, running)).state is State.DONE
        assert each_once(await records(keeper, running), 400)
        assert keeper.get(paused).state is State.PAUSED
        assert await keeper.close(5.0)


async def test_what_is_paused_while_the_service_ends_stays_so(origin):
    async with keeping() as keeper:
        paused, cancelled = [await submit(keeper, slow(origin), limits={"concurrency": 5}) for _ in range(2)]
        for batch_id in (paused, cancelled):
            await until(keeper, batch_id, lambda view: view.progress.outcomes)
        await keeper.pause(paused)
        await keeper.cancel(cancelled)
        assert await keeper.close(5.0)
    async with keeping() as keeper:
        assert [keeper.get(one).state for one in (paused, cancelled)] == [State.PAUSED, State.CANCELLED]


async def test_who_does_not_end_in_time_is_cut_off_and_goes_on_later(origin):
    async with keeping(shutdown_timeout="1h") as keeper:
        batch_id = await submit(keeper, slow(origin, 20), f"{origin}/delay/3/bytes/1?n={{1..4}}", shutdown_timeout="1h")
        await until(keeper, batch_id, lambda view: view.progress.outcomes.get("ok") == 20)
        assert not await keeper.close(0.1)
    async with keeping() as keeper:
        assert (await ended(keeper, batch_id)).progress.outcomes == {"ok": 24}
        assert len(await records(keeper, batch_id)) == 24


async def test_what_is_no_longer_allowed_when_the_service_is_back_fails_with_that_reason(origin):
    async with keeping(env=["PATH"]) as keeper:
        batch_id = await submit(keeper, slow(origin), request={"headers": {"x": "${PATH}"}}, limits={"concurrency": 5})
        await until(keeper, batch_id, lambda view: view.progress.outcomes)
    async with keeping() as keeper:
        view = await ended(keeper, batch_id)
        assert view.state is State.FAILED
        assert "the variable PATH is not there for batches" in view.reason


async def test_a_batch_that_ended_just_before_a_crash_is_not_fetched_again(origin, folder, monkeypatch):
    update = Catalogue.update

    async def refuses(self, batch_id, **changes):
        if changes.get("state") == "done":
            raise StateError("database or disk is full")
        await update(self, batch_id, **changes)

    monkeypatch.setattr(Catalogue, "update", refuses)
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/bytes/9?n={{1..50}}", sinks=["out.jsonl"])
        queue = folder / "state/service/batches" / batch_id / "queue.db"
        await until(keeper, batch_id, lambda _: has_finished(queue))
    before = (folder / "out.jsonl").read_bytes()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    async with keeping() as keeper:
        view = await ended(keeper, batch_id)
        assert (view.state, view.progress.outcomes) == (State.DONE, {"ok": 50})
        assert each_once(await records(keeper, batch_id), 50)
    # Times are in the records: these are the same.
    assert (folder / "out.jsonl").read_bytes() == before


def has_finished(queue):
    """Tell whether a queue says that its batch has ended. It is closed by then, and nobody else has it."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{queue}?mode=ro", uri=True, timeout=0)) as db,
    ):
        return db.execute("SELECT 1 FROM marks WHERE name = 'finished'").fetchone() is not None
    return False


@pytest.mark.parametrize("state", ["running", "done"])
async def test_what_can_not_be_written_down_is_when_the_disk_has_room_again(origin, monkeypatch, state):
    update, refused = Catalogue.update, []

    async def refuses(self, batch_id, **changes):
        if changes.get("state") == state and not refused:
            refused.append(batch_id)
            raise StateError("database or disk is full")
        await update(self, batch_id, **changes)

    monkeypatch.setattr(Catalogue, "update", refuses)
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/bytes/9")
        assert (await ended(keeper, batch_id)).state is State.DONE
    assert refused == [batch_id]


async def test_who_acts_on_a_batch_that_can_not_be_written_down_is_told_so(origin, monkeypatch):
    update, full, refused = Catalogue.update, [True], asyncio.Event()

    async def refuses(self, batch_id, **changes):
        if changes.get("state") == "done" and full:
            refused.set()
            raise StateError("database or disk is full")
        await update(self, batch_id, **changes)

    monkeypatch.setattr(Catalogue, "update", refuses)
    monkeypatch.setattr("fetcher.service.keeper._LONGEST_TURN", 0.05)
    async with keeping() as keeper:
        batch_id = await submit(keeper, f"{origin}/bytes/9")
        async with asyncio.timeout(SOON):
            await refused.wait()
        for act in (keeper.pause, keeper.cancel, keeper.delete):
            with pytest.raises(StateBusyError, match="is the disk of the service full"):
                await act(batch_id)
        full.clear()
        assert (await ended(keeper, batch_id)).state is State.DONE


async def test_what_is_deleted_just_before_it_is_begun_is_not_begun(origin, monkeypatch):
    waiting, ghosts = Catalogue.waiting, []

    def with_a_ghost(self, room):
        rows = waiting(self, room)
        if rows and not ghosts:
            ghosts.append(msgspec.structs.replace(rows[0], id="gone"))
            return [*ghosts, *rows]
        return rows

    monkeypatch.setattr(Catalogue, "waiting", with_a_ghost)
    async with keeping() as keeper:
        for _ in range(2):
            assert (await ended(keeper, await submit(keeper, f"{origin}/bytes/9"))).state is State.DONE
    assert ghosts


async def test_what_runs_and_is_submitted_keeps_to_a_config_that_was_changed(origin, folder):
    (folder / "urls.txt").write_text(f"{origin}/bytes/1\n")
    async with keeping(running=1) as keeper:
        first = await submit(keeper, slow(origin), limits={"concurrency": 5})
        second = await submit(keeper, f"{origin}/bytes/1", limits={"concurrency": 5})
        await until(keeper, first, lambda view: view.progress.outcomes)
        assert keeper.get(second).state is State.QUEUED
        changed = {"state_dir": "state/service", "running": 2, "files": "elsewhere"}
        keeper.reconfigure(ServiceConfig.model_validate({"service": changed, "http": {"guard": False}}))
        assert (await ended(keeper, second)).state is State.DONE
        assert keeper.get(first).state is State.RUNNING
        with pytest.raises(ConfigProblems, match="lies outside"):
            await submit(keeper, "urls.txt")


async def test_an_upload_is_not_lost_if_its_submission_is_broken_off(origin, folder, monkeypatch):
    async def refuses(self, row):
        raise StateError("database or disk is full")

    upload = folder / "in.txt"
    upload.write_text(f"{origin}/bytes/1\n")
    async with keeping() as keeper:
        with monkeypatch.context() as patch:
            patch.setattr(Catalogue, "insert", refuses)
            with pytest.raises(StateError):
                await submit(keeper, upload=upload, batch_id="mine")
        assert upload.exists()
        assert list((folder / "state/service/batches").iterdir()) == []
        await submit(keeper, upload=upload, batch_id="mine")
        assert not upload.exists()
        assert (await ended(keeper, "mine")).progress.outcomes == {"ok": 1}


async def test_a_second_service_on_the_same_folder_is_refused():
    async with keeping() as keeper:
        with pytest.raises(StateBusyError):
            async with keeping():
                pass
        assert keeper.list().batches == []


async def test_a_folder_without_a_batch_is_removed_at_the_start(folder):
    stray = folder / "state/service/batches/stray-1"
    stray.mkdir(parents=True)
    (stray / "config.yaml").write_text("{}")
    async with keeping():
        assert not stray.exists()


async def test_two_batches_of_one_name_with_files_for_bodies_do_not_meet(origin, folder):
    body = {"store": "file", "path": "bodies/{host}/{job_id}-{sha256}"}
    async with keeping() as keeper:
        ids = [await submit(keeper, f"{origin}/bytes/900?n={{1..60}}&of={n}", body=body) for n in range(2)]
        for batch_id in ids:
            view = await ended(keeper, batch_id)
            assert (view.reason, view.progress.outcomes) == (None, {"ok": 60})
        for record in await records(keeper, ids[0]):
            assert (folder / record["body_path"]).stat().st_size == 900
