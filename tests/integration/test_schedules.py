"""Schedules submit their batches: at their times, once each, whatever ends the service in between."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from origin_process import origin_process
from serve_process import serve_process

from fetcher.assembly import Shared
from fetcher.config import ConfigProblems
from fetcher.service.arrivals import schedules as module
from fetcher.service.arrivals.schedules import Schedules, check_schedules
from fetcher.service.keeper import Keeper
from fetcher.service.settings import ServiceConfig

SOON = 30.0
NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp()
MINUTE, HOUR = 60.0, 3600.0


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Clock:
    """The time of day."""

    now = NOW

    def __call__(self):
        return self.now


class Scheduled:
    """Schedules, with a keeper behind them, at a time that the test sets."""

    def __init__(self, keeper, schedules, clock, troubles):
        self.keeper = keeper
        self.schedules = schedules
        self.clock = clock
        self.troubles = troubles

    async def at(self, time):
        """Do what is due at a time."""
        self.clock.now = time
        return await self.schedules.tick()

    def ids(self):
        return sorted(view.id for view in self.keeper.list().batches)

    def view(self):
        (view,) = self.schedules.views().schedules
        return view

    async def ended(self, batch_id):
        async with asyncio.timeout(SOON):
            return await self.keeper.wait(batch_id)


def config_of(*schedules, **service):
    given = {"state_dir": "state/service", "files": "."} | service
    return ServiceConfig.model_validate({"service": given, "http": {"guard": False}, "schedules": list(schedules)})


@asynccontextmanager
async def scheduled(*schedules, clock=None, **service):
    config, clock, troubles = config_of(*schedules, **service), clock or Clock(), {}
    shared = Shared(config.limits, config.http)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(shared.close)
        await shared.open()
        keeper = Keeper(config, shared)
        await keeper.open()
        opened.push_async_callback(keeper.close, 5.0)
        found = Schedules(config, keeper, troubles.__setitem__, clock=clock)
        await found.open()
        yield Scheduled(keeper, found, clock, troubles)


def batch(*urls, **more):
    return {"sources": list(urls), "retry": {"attempts": 1}, "shutdown_timeout": "1s"} | more


def hourly(*urls, **more):
    return {"name": "s", "cron": "0 * * * *", "batch": batch(*urls)} | more


def slow(origin):
    return f"{origin}/delay/0.2/bytes/1?n={{1..1000}}"


# From one time to the next


async def test_a_batch_is_submitted_at_each_of_its_times(origin):
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        assert await at.at(NOW) == 30.0  # the clock is looked at now and then
        assert at.ids() == []
        assert await at.at(NOW + HOUR - 40) == 10.0
        for count in (1, 2, 3):
            await at.at(NOW + count * HOUR)
            await at.at(NOW + count * HOUR)
            assert len(at.ids()) == count
            await at.ended(at.ids()[-1])
        assert at.ids() == ["s-20260301T130000Z", "s-20260301T140000Z", "s-20260301T150000Z"]
        view = at.keeper.get("s-20260301T150000Z")
        assert (view.name, view.origin, view.progress.outcomes) == ("s", "schedule", {"ok": 1})
        shown = at.view()
        assert (shown.last_batch, shown.waiting, shown.trouble) == ("s-20260301T150000Z", False, None)
        assert shown.last.isoformat() == "2026-03-01T15:00:00+00:00"
        assert shown.next.isoformat() == "2026-03-01T16:00:00+00:00"


async def test_an_interval_begins_when_it_is_first_seen_and_goes_on_after_a_restart(origin):
    schedule = {"name": "s", "every": "90m", "batch": batch(f"{origin}/bytes/1")}
    async with scheduled(schedule) as at:
        await at.at(NOW)
        assert at.ids() == ["s-20260301T120030Z"]
        await at.ended(at.ids()[0])
    async with scheduled(schedule) as at:
        await at.at(NOW + HOUR)
        assert len(at.ids()) == 1
        await at.at(NOW + 1.5 * HOUR)
        assert at.ids()[1] == "s-20260301T133030Z"


async def test_the_file_of_a_batch_is_read_anew_each_time(origin, here):
    (here / "b.yaml").write_text(json.dumps(batch(f"{origin}/bytes/1")))
    async with scheduled({"name": "s", "cron": "0 * * * *", "batch": "b.yaml"}) as at:
        await at.at(NOW)
        (here / "b.yaml").write_text(json.dumps(batch(f"{origin}/bytes/1?n={{1..7}}")))
        await at.at(NOW + HOUR)
        assert (await at.ended("s-20260301T130000Z")).progress.jobs == 7
        # What is wrong with it by now is told, and the next time is another chance.
        (here / "b.yaml").write_text("sourcez: 1\n")
        await at.at(NOW + 2 * HOUR)
        assert "did you mean 'sources'" in at.troubles["schedule s"]
        assert at.troubles["schedule s"] == f"schedule s: {at.view().trouble}"
        assert len(at.ids()) == 1
        (here / "b.yaml").write_text(json.dumps(batch(f"{origin}/bytes/1")))
        await at.at(NOW + 2 * HOUR + MINUTE)
        assert len(at.ids()) == 1
        await at.at(NOW + 3 * HOUR)
        assert at.ids()[-1] == "s-20260301T150000Z"
        assert (at.troubles["schedule s"], at.view().trouble) == (None, None)


# While the batch before has not ended


async def test_a_batch_is_left_out_while_the_one_before_runs(origin):
    async with scheduled(hourly(slow(origin))) as at:
        await at.at(NOW)
        await at.at(NOW + HOUR)
        await at.at(NOW + 2 * HOUR)
        assert at.ids() == ["s-20260301T130000Z"]
        await at.keeper.cancel(at.ids()[0])
        await at.ended(at.ids()[0])
        await at.at(NOW + 2 * HOUR + MINUTE)
        assert len(at.ids()) == 1
        await at.at(NOW + 3 * HOUR)
        assert at.ids()[1] == "s-20260301T150000Z"


async def test_one_batch_waits_for_the_one_before(origin):
    async with scheduled(hourly(slow(origin), overlap="queue", missed="skip")) as at:
        await at.at(NOW)
        await at.at(NOW + HOUR)
        for hours in (2, 3):
            assert await at.at(NOW + hours * HOUR) == module.BUSY_SECONDS
            assert at.view().waiting
        assert len(at.ids()) == 1
        await at.keeper.cancel(at.ids()[0])
        await at.ended(at.ids()[0])
        await at.at(NOW + 3 * HOUR + 20 * MINUTE)
        assert at.ids()[1:] == ["s-20260301T150000Z"]
        assert not at.view().waiting


async def test_the_batch_before_is_cancelled_and_has_ended_when_the_next_begins(origin):
    async with scheduled(hourly(slow(origin), overlap="cancel")) as at:
        await at.at(NOW)
        await at.at(NOW + HOUR)
        await at.at(NOW + 2 * HOUR)
        await at.at(NOW + 2 * HOUR + 1)
        assert (await at.ended("s-20260301T130000Z")).state == "cancelled"
        assert len(at.ids()) == 1
        await at.at(NOW + 2 * HOUR + 2)
        assert at.ids()[1:] == ["s-20260301T140000Z"]


# What can go wrong


@pytest.mark.parametrize(("missed", "count"), [("once", 1), ("skip", 0)])
async def test_times_at_which_the_service_was_not_there(origin, missed, count):
    schedule = hourly(f"{origin}/bytes/1", missed=missed)
    async with scheduled(schedule) as at:
        await at.at(NOW)
    async with scheduled(schedule) as at:
        await at.at(NOW + 50 * HOUR + 10 * MINUTE)
        assert at.ids() == ["s-20260303T140000Z"][:count]
        for batch_id in at.ids():
            await at.ended(batch_id)
        await at.at(NOW + 51 * HOUR)
        assert at.ids()[-1] == "s-20260303T150000Z"


async def test_a_batch_that_was_submitted_but_not_noted_is_not_run_twice(origin, monkeypatch):
    monkeypatch.setattr(module.Diary, "write", failing := Failing(module.Diary.write))
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        await at.at(NOW)
        failing.fails = True
        assert await at.at(NOW + HOUR) == module.BUSY_SECONDS
        assert "No space left on device" in at.troubles["schedule s"]
        await at.ended("s-20260301T130000Z")
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        failing.fails = False
        await at.at(NOW + HOUR + 1)
        assert at.ids() == ["s-20260301T130000Z"]
        assert at.view().last_batch == "s-20260301T130000Z"
        assert (at.keeper.get("s-20260301T130000Z").state, at.troubles["schedule s"]) == ("done", None)


async def test_a_fault_of_ours_is_that_of_one_time(origin, monkeypatch):
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        await at.at(NOW)

        async def broken(*_, **__):
            raise ZeroDivisionError("by zero")

        with monkeypatch.context() as patched:
            patched.setattr(at.keeper, "submit", broken)
            await at.at(NOW + HOUR)
        assert at.view().trouble == "this is a fault of fetcher: ZeroDivisionError: by zero"
        await at.at(NOW + 2 * HOUR)
        assert (at.ids(), at.view().trouble) == (["s-20260301T140000Z"], None)


async def test_a_new_schedule_that_can_not_be_noted_is_noted_later(origin, monkeypatch):
    monkeypatch.setattr(module.Diary, "write", failing := Failing(module.Diary.write))
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        failing.fails = True
        assert await at.at(NOW) == module.BUSY_SECONDS
        assert "No space left on device" in at.view().trouble
        failing.fails = False
        assert await at.at(NOW + 1) > module.BUSY_SECONDS
        assert (at.view().trouble, at.view().waiting) == (None, False)
        await at.at(NOW + HOUR)
        assert at.ids() == ["s-20260301T130000Z"]


class Failing:
    """A method that fails while it is to."""

    fails = False

    def __init__(self, inner):
        self.inner = inner

    def __get__(self, owner, _):
        return lambda *args: self(owner, *args)

    def __call__(self, *args):
        if self.fails:
            raise OSError(28, "No space left on device")
        return self.inner(*args)


async def test_schedules_change_while_the_service_runs(origin):
    first, other = hourly(f"{origin}/bytes/1"), hourly(f"{origin}/bytes/1", name="t", cron="30 * * * *")
    async with scheduled(first) as at:
        await at.at(NOW)
        # Times of before the change mean nothing.
        at.schedules.reconfigure(config_of(hourly(f"{origin}/bytes/1", cron="0 3 * * *"), other))
        await at.at(NOW + HOUR)
        assert at.ids() == []
        at.schedules.reconfigure(config_of(other))
        await at.at(NOW + 1.5 * HOUR)
        assert at.ids() == ["t-20260301T133000Z"]
        assert (at.schedules._diary.find("s"), at.view().name) == (None, "t")
        assert [view.name for view in at.schedules.views().schedules] == ["t"]


async def test_a_service_that_is_about_to_end_submits_nothing_and_comes_back_to_it(origin):
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        await at.at(NOW)
        await at.keeper.drain(0)
        await at.at(NOW + HOUR)
    async with scheduled(hourly(f"{origin}/bytes/1")) as at:
        await at.at(NOW + HOUR + MINUTE)
        assert at.ids() == ["s-20260301T130000Z"]


async def test_it_looks_again_when_it_is_told_of_other_schedules(origin):
    async with scheduled() as at:
        running = asyncio.create_task(at.schedules.run())
        try:
            await asyncio.sleep(0)
            at.schedules.reconfigure(config_of({"name": "s", "every": "1h", "batch": batch(f"{origin}/bytes/1")}))
            async with asyncio.timeout(SOON):
                while not at.ids():  # noqa: ASYNC110  nobody tells of what was submitted
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.wait([running])


def test_what_is_wrong_with_a_schedule_is_told_when_it_is_read(here):
    (here / "b.yaml").write_text("sources: ['http://x.example/']\nsinkz: []\n")
    config = config_of(
        {"name": "a", "cron": "0 3 * * *", "batch": "b.yaml"},
        {"name": "b", "cron": "0 3 * * *", "batch": "nothing.yaml"},
        {"name": "c", "every": "1h", "batch": {"sources": ["/etc/passwd"], "x": 1}},
        {"name": "d", "every": "1h", "batch": {"sources": ["comes-later.csv"]}},
    )
    with pytest.raises(ConfigProblems) as caught:
        check_schedules(config)
    assert [problem.partition(" (")[0] for problem in caught.value.problems[:2]] == [
        "schedule a: b.yaml:2: sinkz: unknown key; did you mean 'sinks'?",
        "schedule b: nothing.yaml: can not be read: No such file or directory",
    ]
    assert caught.value.problems[2].startswith("schedule c: x: unknown key")


# The process


def config_file(here, origin):
    path = here / "service.yaml"
    schedule = {"name": "s", "every": "1h", "batch": batch(f"{origin}/bytes/1?n={{1..20}}")}
    path.write_text(json.dumps({"schedules": [schedule]}))
    return str(path)


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("fetcher.service.keeper:Keeper.submit", "before", 1),
        ("fetcher.service.batches.workspace:Workspace.create", "after", 1),
        ("fetcher.service.keeper:Keeper.submit", "after", 1),
        ("fetcher.service.arrivals.diary:Diary.write", "before", 2),
        ("fetcher.service.arrivals.diary:Diary.write", "after", 2),
    ],
)
def test_no_time_is_run_twice_when_the_service_is_killed(origin, here, place, when, count):
    path = config_file(here, origin)
    crash = Path(__file__).parents[1] / "crash_point.py"
    command = [sys.executable, str(crash), place, when, str(count), "serve", path, "-s", "service.port=0"]
    ended = subprocess.run([*command, "-s", "http.guard=false"], stderr=subprocess.PIPE, timeout=SOON * 2, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with serve_process(here, config=path) as service:
        asyncio.run(until(lambda: service.ask("GET", "/v1/schedules")["schedules"][0]["last_batch"]))
        (batch_view,) = service.ask("GET", "/v1/batches")["batches"]
        assert service.wait_for_end(batch_view["id"])["progress"]["outcomes"] == {"ok": 20}
        (schedule,) = service.ask("GET", "/v1/schedules")["schedules"]
        assert (schedule["last_batch"], schedule["every"]) == (batch_view["id"], HOUR)


async def until(what):
    async with asyncio.timeout(SOON):
        while not what():  # noqa: ASYNC110  another process is asked
            await asyncio.sleep(0.05)


def test_a_service_with_a_schedule_that_can_not_be_run_does_not_start(here):
    path = here / "service.yaml"
    path.write_text("schedules:\n  - name: s\n    cron: '0 3 * * *'\n    batch: nothing.yaml\n")
    command = [sys.executable, "-m", "fetcher", "serve", str(path), "-s", "service.port=0"]
    ended = subprocess.run(command, stderr=subprocess.PIPE, timeout=SOON, check=False)
    assert ended.returncode == 78
    assert b"schedule s: nothing.yaml: can not be read: No such file or directory" in ended.stderr
    lint = subprocess.run([sys.executable, "-m", "fetcher", "lint", str(path)], stderr=subprocess.PIPE, check=False)
    assert (lint.returncode, b"schedule s: nothing.yaml" in lint.stderr) == (78, True)
