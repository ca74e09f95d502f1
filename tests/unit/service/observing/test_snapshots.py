"""The service at one moment: made once a second at most, and of a bounded size whatever there is of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.errors import ErrorKind, StateError
from fetcher.model import Outcome, Result
from fetcher.pipeline.outlet import Outlet, Plan, Trouble
from fetcher.pipeline.tally import Kind, Tally
from fetcher.service.models import BatchView, State
from fetcher.service.observing.snapshots import MOST_BATCHES, Snapshots
from fetcher.service.observing.vitals import Vitals

LONG = "x" * 3000


class Facts:
    """A service that is well."""

    state = "ready"
    concurrency = 100
    troubles: tuple[str, ...] = ()
    why = None

    def __init__(self):
        self.hosts = Hosts(LimitSettings())


class Watched:
    """Batches that are open."""

    def __init__(self, *names):
        self.running = {f"{name}-{number}": batch(name) for number, name in enumerate(names)}
        self.snapshots = None
        self.looks = 0

    def counts(self):
        return {"running": len(self.running)}

    def shown(self, most):
        self.looks += 1
        return [view(batch_id, self.snapshots.progress(batch_id, one)) for batch_id, one in self.running.items()][:most]


def batch(name):
    tally = Tally(kinds={f"kind_{n}": Kind(n, f"http://h.test/{LONG}", LONG) for n in range(40)})
    outlets = [Outlet("sink:0", SimpleNamespace(), Plan(title="file-1"))]
    engine = SimpleNamespace(
        added=100,
        fed=True,
        growing=False,
        running={},
        duplicates=0,
        delivery=SimpleNamespace(tally=tally, outlets=outlets),
    )
    return SimpleNamespace(config=SimpleNamespace(name=name), engine=engine)


def view(batch_id, progress):
    return BatchView(
        id=batch_id, name=batch_id, state=State.RUNNING, origin="api", created_at=datetime.now(UTC), progress=progress
    )


def failed(name):
    return Result(
        batch=name,
        job_id="1",
        url="http://h.test/",
        outcome=Outcome.FAILED,
        attempts=1,
        error_kind=ErrorKind.READ_TIMEOUT,
        error_message=LONG,
    )


def made(*names):
    watched, facts = Watched(*names), Facts()
    watched.snapshots = Snapshots(watched, facts)
    return watched.snapshots, watched, facts


async def test_a_snapshot_is_as_large_as_a_screen_not_as_the_service():
    snapshots, watched, facts = made(*(f"batch-{n}" for n in range(300)))
    for number in range(50_000):
        facts.hosts.host(f"h{number}.test")
    snapshots.observe([failed("batch-1")] * 1000)
    snapshots.tick()
    found = snapshots.get()
    assert found.hosts_total == 50_000
    assert len(found.batches) == MOST_BATCHES < len(watched.running) == found.states[State.RUNNING]
    assert len(found.model_dump_json()) < 600_000
    # Long texts are what is left of it: each is cut, and there are but so many.
    assert all(len(kind.example_message) <= 600 for one in found.batches for kind in one.progress.kinds)
    assert all(one.progress.kinds[0].kind == "kind_39" for one in found.batches)


async def test_it_is_made_once_for_all_who_ask():
    snapshots, watched, _ = made("a")
    snapshots.tick()
    assert snapshots.get() is snapshots.get()
    assert watched.looks == 1
    snapshots.tick()
    snapshots.get()
    assert watched.looks == 2


async def test_nothing_is_made_if_nobody_asks_but_the_past_is_kept():
    snapshots, watched, _ = made("a")
    for _ in range(400):
        snapshots.tick()
    assert watched.looks == 0
    assert len(snapshots.history().moments) == 300


async def test_who_looks_goes_on_though_the_catalogue_can_not_be_read_once(monkeypatch):
    monkeypatch.setattr("fetcher.service.observing.snapshots.BEAT", 0.01)
    snapshots, watched, _ = made("a")
    told: asyncio.Queue[str] = asyncio.Queue()

    def publish(get):
        told.put_nowait("asked")
        told.put_nowait(get().state)

    shown = watched.shown
    monkeypatch.setattr(watched, "shown", lambda most: raise_once(watched, shown, most))
    running = asyncio.create_task(snapshots.run(publish))
    async with asyncio.timeout(10):
        assert [await told.get() for _ in range(3)] == ["asked", "asked", "ready"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def raise_once(watched, shown, most):
    watched.shown = shown
    raise StateError("the database is locked")


async def test_a_failure_names_its_batch_unless_several_have_that_name():
    snapshots, _, _ = made("alone", "both", "both")
    snapshots.tick()
    snapshots.observe([failed("alone"), failed("both")])
    assert [failure.batch for failure in snapshots.get().failures] == ["both", "alone-0"]


async def test_a_sink_that_takes_nothing_for_long_is_a_trouble_of_the_service():
    snapshots, watched, facts = made("a", "b")
    now = asyncio.get_running_loop().time()
    facts.troubles = ("the config could not be loaded",)
    for one, since in zip(watched.running.values(), (now - 60, now - 1), strict=True):
        one.engine.delivery.outlets[0].trouble = Trouble(since, "no space left", 3)
    snapshots.tick()
    first, second = snapshots.get().trouble
    assert first == "the config could not be loaded"
    assert second.startswith("file-1 of a-0 has taken nothing for 60 s: no space left")


async def test_the_rate_of_a_batch_is_that_of_its_own_jobs(monkeypatch):
    snapshots, watched, _ = made("a", "b")
    moment = asyncio.get_running_loop().time()
    monkeypatch.setattr(snapshots, "_loop", SimpleNamespace(time=lambda: moment))
    for second in range(12):
        moment = 1000.0 + second
        watched.running["a-0"].engine.delivery.tally.outcomes[Outcome.OK] = 5 * second
        snapshots.tick()
    assert snapshots.progress("a-0", watched.running["a-0"]).rate == pytest.approx(5.0)
    assert snapshots.progress("b-1", watched.running["b-1"]).rate == 0.0
    del watched.running["a-0"]
    snapshots.tick()
    assert snapshots.progress("a-0", batch("a")).rate == 0.0


async def test_a_loop_that_is_held_up_is_seen():
    vitals = Vitals()
    vitals.start()
    await asyncio.sleep(0.15)
    until = asyncio.get_running_loop().time() + 0.3
    while asyncio.get_running_loop().time() < until:
        pass
    await asyncio.sleep(0.01)
    vitals.update()
    assert vitals.lag > 0.1
    assert vitals.cpu > 0.1
    assert vitals.memory > 1_000_000
    vitals.stop()
