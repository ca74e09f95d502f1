"""What every queue promises, whatever its type (``fetcher.interfaces.Queue``); at the end, SQLite alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from contract.queues import QUEUES, TERM
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fetcher.errors import ErrorKind, StateBusyError, StateError
from fetcher.interfaces import Ack, Counts, Nack
from fetcher.model import Job, Outcome, Rejection
from fetcher.queues.memory import MemoryQueue
from fetcher.queues.sqlite import SqliteQueue
from fetcher.testing import FakeClock

MANY = 10_000


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=QUEUES)
async def queue(request, tmp_path, clock):
    made = QUEUES[request.param](tmp_path, clock)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def sqlite(tmp_path, clock):
    made = SqliteQueue(tmp_path / "queue.db", lease=TERM, clock=clock)
    await made.open()
    yield made
    await made.close()


def job(name, host="a.test", **fields):
    return Job(id=str(name), url=f"http://{host}/{name}", host=host, **fields)


def jobs(count, host="a.test", start=0, **fields):
    return [job(f"{host}-{n}", host, **fields) for n in range(start, start + count)]


async def lease(queue, limit=MANY, per_host=MANY, **room):
    return (await queue.lease(limit, per_host, room)).leases


def ids(leases):
    return [lease.job.id for lease in leases]


def acks(leases, outcome=Outcome.OK):
    return [Ack(lease, outcome) for lease in leases]


def nacks(leases, delay=0.0):
    return [Nack(lease, delay) for lease in leases]


def balanced(counts):
    return counts.added == counts.ready + counts.delayed + counts.leased + counts.done


# Putting, leasing, ending


async def test_a_new_queue_has_nothing(queue):
    assert await queue.counts() == Counts()
    leased = await queue.lease(10, 10, {})
    assert (leased.leases, leased.next_due, leased.backlog) == ([], None, {})
    assert (await queue.ack([], {}), await queue.nack([]), await queue.extend([])) == (0, 0, 0)
    assert await queue.put([], {}) == 0


async def test_a_job_goes_through_every_state_and_is_counted_in_it(queue):
    assert await queue.put(jobs(4), {}) == 4
    assert await queue.counts() == Counts(added=4, ready=4)
    held = await lease(queue)
    assert await queue.counts() == Counts(added=4, leased=4)
    assert await queue.ack([Ack(held[0], Outcome.OK), Ack(held[1], Outcome.FAILED)], {}) == 0
    assert await queue.ack([Ack(held[2], Outcome.SKIPPED)], {}) == 0
    assert await queue.nack([Nack(held[3], 10)]) == 0
    counts = await queue.counts()
    assert counts == Counts(added=4, delayed=1, outcomes={Outcome.OK: 1, Outcome.FAILED: 1, Outcome.SKIPPED: 1})
    assert (counts.done, counts.left) == (3, 1)


async def test_a_job_comes_out_as_it_was_put(queue):
    put = Job(
        id='0-ünï"\\\n\x00\u2028',
        url="http://bücher.test/ä?q=%00\U0001f600",
        host="bücher.test",
        method="POST",
        headers=[("X-A", "ö"), ("X-A", "2"), ("", "")],
        body=bytes(range(256)),
        priority=-7,
        timeout=1.25,
        meta={"ключ": ["値", None, 1.5, 2**63, -(2**70), True, {"": ""}], "null": None, "1": "1"},
        rejected=Rejection(ErrorKind.INVALID_ROW, "nö"),
        attempts=3,
        first_started_at=1700000000.123456,
    )
    await queue.put([put], {})
    before = put.__copy__()
    [held] = await lease(queue)
    assert held.job == before
    await queue.nack(nacks([held]))
    [held] = await lease(queue)
    assert held.job == before


@pytest.mark.parametrize("host", ["", "a", "1", "0x10", "a'b", '"', "null", "[::1]", "%", "b\u00fc", "A"])
async def test_any_text_may_be_a_host(queue, host):
    await queue.put([job(1, host), job(2, "other", priority=1)], {})
    leased = await queue.lease(10, 0, {host: 1})
    assert ids(leased.leases) == ["1"]
    assert leased.backlog == {host: 1}


async def test_an_empty_body_is_not_no_body(queue):
    await queue.put([job(1, body=b""), job(2, body=None)], {})
    assert [held.job.body for held in await lease(queue)] == [b"", None]


# Order


async def test_order_within_a_host_is_that_of_putting(queue):
    for start in range(0, 30, 3):
        await queue.put(jobs(3, start=start), {})
    taken = []
    while held := await lease(queue, limit=7):
        taken += ids(held)
    assert taken == ids_of(jobs(30))


def ids_of(made):
    return [one.id for one in made]


async def test_the_host_with_the_largest_backlog_goes_first(queue):
    await queue.put([*jobs(1, "small"), *jobs(5, "large"), *jobs(3, "middle")], {})
    leased = await queue.lease(MANY, 2, {})
    assert [held.job.host for held in leased.leases] == ["large", "large", "middle", "middle", "small"]
    assert leased.backlog == {"large": 5, "middle": 3, "small": 1}
    leased = await queue.lease(2, 2, {})
    assert [held.job.host for held in leased.leases] == ["large", "large"]


async def test_priority_goes_before_backlog_and_before_age(queue):
    await queue.put([*jobs(9, "large"), *jobs(2, "small")], {})
    await queue.put([job("late", "small", priority=1), job("last", "large", priority=-1)], {})
    held = await lease(queue)
    assert held[0].job.id == "late"
    assert held[-1].job.id == "last"
    assert [one.job.priority for one in held] == sorted((one.job.priority for one in held), reverse=True)


async def test_what_comes_later_is_ranked_anew(queue):
    await queue.put([*jobs(3, "a"), *jobs(2, "b")], {})
    await lease(queue, limit=2)  # leaves a 1, b 2
    await queue.put(jobs(2, "c", start=5), {})
    await queue.put(jobs(1, "c", start=7), {})
    assert [held.job.host for held in await lease(queue)] == ["c"] * 3 + ["b"] * 2 + ["a"]


# Limit and room


async def test_no_more_than_limit_is_leased(queue):
    await queue.put(jobs(10), {})
    assert await lease(queue, limit=0) == []
    assert len(await lease(queue, limit=3)) == 3
    assert len(await lease(queue, limit=100)) == 7
    assert await lease(queue, limit=1) == []


async def test_room_is_per_host_unless_it_is_named(queue):
    await queue.put([*jobs(9, "a"), *jobs(9, "b"), *jobs(9, "c")], {})
    leased = await queue.lease(MANY, 2, {"a": 0, "b": 5, "unheard of": 3})
    assert Counter(held.job.host for held in leased.leases) == {"b": 5, "c": 2}
    assert leased.backlog == {"b": 9, "c": 9}
    leased = await queue.lease(MANY, 0, {"a": 1})
    assert Counter(held.job.host for held in leased.leases) == {"a": 1}


async def test_a_hosts_room_is_shared_by_its_priorities(queue):
    await queue.put([*jobs(2, priority=9), *jobs(2, start=2, priority=5), *jobs(2, start=4)], {})
    held = await lease(queue, per_host=3)
    assert [one.job.priority for one in held] == [9, 9, 5]
    assert [one.job.priority for one in await lease(queue, per_host=2)] == [5, 0]


async def test_priorities_of_a_host_without_room_hide_nobody(queue):
    await queue.put([job(p, "a", priority=p) for p in range(1, 30)], {})
    await queue.put([job("other", "b")], {})
    held = await lease(queue, limit=2, per_host=1)
    assert ids(held) == ["29", "other"]


async def test_fifty_thousand_jobs_of_a_host_hide_nobody(queue):
    for start in range(0, 50_000, 5_000):
        await queue.put(jobs(5_000, "large", start=start), {})
    await queue.put(jobs(1, "small"), {})
    held = await lease(queue, limit=100, per_host=10)
    assert Counter(one.job.host for one in held) == {"large": 10, "small": 1}
    await queue.put(jobs(1, "small", start=1), {})
    assert Counter(one.job.host for one in await lease(queue, limit=1, large=0)) == {"small": 1}


# Coming back


async def test_a_delayed_job_comes_back_when_due_as_it_then_stood(queue, clock):
    await queue.put(jobs(2), {})
    first, second = await lease(queue)
    first.job.attempts, first.job.first_started_at = 2, 1234.5
    assert await queue.nack([Nack(first, 30.0), Nack(second, 20.0)]) == 0
    leased = await queue.lease(10, 10, {})
    assert leased.leases == []
    assert leased.next_due == pytest.approx(20.0)
    clock.advance(19.9)
    assert (await queue.lease(10, 10, {})).next_due == pytest.approx(0.1)
    clock.advance(0.2)
    leased = await queue.lease(10, 10, {})
    assert ids(leased.leases) == [second.job.id]
    assert leased.backlog == {"a.test": 1}
    assert leased.next_due == pytest.approx(9.9)
    clock.advance(10)
    leased = await queue.lease(10, 10, {})
    [again] = leased.leases
    assert (again.job.id, again.job.attempts, again.job.first_started_at) == (first.job.id, 2, 1234.5)
    assert leased.next_due is None


async def test_more_due_jobs_than_can_be_leased_are_not_lost(queue, clock):
    await queue.put(jobs(50), {})
    await queue.nack(nacks(await lease(queue), 5))
    clock.advance(6)
    seen = []
    while held := await lease(queue, limit=3):
        seen += ids(held)
    assert sorted(seen) == sorted(ids_of(jobs(50)))


async def test_due_jobs_of_a_host_without_room_hide_nobody(queue, clock):
    await queue.put([*jobs(60, "a"), *jobs(1, "b")], {})
    await queue.nack(nacks(await lease(queue), 5))
    clock.advance(6)
    seen = []
    for _ in range(40):
        seen += ids(await lease(queue, limit=1, a=0))
    assert seen == ["b-0"]


async def test_a_lease_lapses_after_its_term_and_not_before(queue, clock):
    await queue.put(jobs(2), {})
    [held] = await lease(queue, limit=1)
    clock.advance(TERM - 0.1)
    [other] = await lease(queue)
    assert other.job.id != held.job.id
    clock.advance(0.2)
    assert ids(await lease(queue)) == [held.job.id]


async def test_an_extended_lease_lasts_another_term(queue, clock):
    await queue.put(jobs(2), {})
    kept, lost = await lease(queue)
    clock.advance(TERM / 2)
    assert await queue.extend([kept]) == 0
    clock.advance(TERM * 0.75)
    assert ids(await lease(queue)) == [lost.job.id]
    assert await queue.ack(acks([kept]), {}) == 0
    clock.advance(TERM * 2)
    assert kept.job.id not in ids(await lease(queue))


@pytest.mark.parametrize("settle", ["ack", "nack", "extend"])
async def test_an_older_lease_is_refused(queue, clock, settle):
    await queue.put(jobs(1), {})
    [old] = await lease(queue)
    clock.advance(TERM + 1)
    [new] = await lease(queue)
    before = await queue.counts()
    refused = {
        "ack": lambda one: queue.ack(acks([one]), {}),
        "nack": lambda one: queue.nack(nacks([one])),
        "extend": lambda one: queue.extend([one]),
    }[settle]
    assert await refused(old) == 1
    assert await queue.counts() == before
    assert await lease(queue) == []
    assert await refused(new) == 0


async def test_a_job_ends_once(queue):
    await queue.put(jobs(3), {})
    first, second, third = await lease(queue)
    assert await queue.ack(acks([first, first]), {}) == 1
    assert await queue.ack(acks([first]), {}) == 1
    assert await queue.nack(nacks([first])) == 1
    assert await queue.extend([first, second]) == 1
    assert await queue.nack(nacks([second, second], 9)) == 1
    assert await queue.ack(acks([second, third]), {}) == 1
    counts = await queue.counts()
    assert counts == Counts(added=3, delayed=1, outcomes={Outcome.OK: 2})


# Keys and marks


async def test_a_key_is_put_once_for_ever(queue):
    assert await queue.put([job(1, key="k"), job(2, key="k"), job(3, key="K"), job(4), job(5)], {}) == 4
    await queue.ack(acks(await lease(queue)), {})
    assert await queue.put([job(6, key="k"), job(7, key="\U0001f600"), job(8, key="")], {}) == 2
    assert await queue.put([job(9, "b", key=""), job(10, "b", key="\U0001f600")], {}) == 0
    counts = await queue.counts()
    assert (counts.added, counts.duplicates) == (6, 4)
    assert balanced(counts)
    assert ids(await lease(queue)) == ["7", "8"]


async def test_a_page_that_was_put_before_is_dropped_and_no_duplicate(queue):
    await queue.put([job(1, key="k"), job(2, key="p", parent="1")], {})
    assert await queue.put([job(3, key="p", parent="1"), job(4, key="q", parent="1"), job(5, key="k")], {}) == 1
    counts = await queue.counts()
    assert (counts.added, counts.duplicates) == (3, 1)
    assert balanced(counts)


async def test_marks_are_kept_and_the_latest_counts(queue):
    await queue.put(jobs(1), {"a": "1", "b": "ü\n"})
    await queue.put([], {"a": "2"})
    await queue.ack(acks(await lease(queue)), {"c": "3"})
    await queue.ack([], {"d": ""})
    assert dict(await again(queue)) == {"a": "2", "b": "ü\n", "c": "3", "d": ""}


async def again(queue):
    """Open a queue anew, as the next run would."""
    if isinstance(queue, MemoryQueue):
        return await queue.open()
    await queue.close()
    reopened = SqliteQueue(queue._path)
    try:
        return await reopened.open()
    finally:
        await reopened.close()


async def test_marks_are_stored_even_if_every_lease_is_refused(queue, clock):
    await queue.put(jobs(1), {})
    [old] = await lease(queue)
    clock.advance(TERM + 1)
    await lease(queue)
    assert await queue.ack(acks([old]), {"m": "kept"}) == 1
    assert (await again(queue))["m"] == "kept"


# Starting over, and the end


async def test_clear_forgets_everything(queue, clock):
    await queue.put([*jobs(5), job("k", key="k"), job("k2", key="k")], {"m": "1"})
    held = await lease(queue, limit=4)
    await queue.nack(nacks(held[:1], 5))
    await queue.ack(acks(held[1:2]), {})
    await queue.clear()
    assert await queue.counts() == Counts()
    assert await queue.ack(acks(held), {}) == 4
    assert await lease(queue) == []
    assert await queue.put([job("new", key="k")], {}) == 1
    clock.advance(100)
    held = await lease(queue)
    assert ids(held) == ["new"]
    assert await queue.ack(acks(held), {}) == 0
    assert dict(await again(queue)) == {}


async def test_close_may_be_called_twice_and_without_open(queue, tmp_path, clock):
    await queue.close()
    await queue.close()
    for make in QUEUES.values():
        (tmp_path / "unopened").mkdir(exist_ok=True)
        await make(tmp_path / "unopened", clock).close()


async def test_calls_may_overlap(queue):
    await asyncio.gather(*(queue.put(jobs(10, f"h{n}"), {f"m{n}": str(n)}) for n in range(10)))
    leased = await asyncio.gather(*(queue.lease(15, 10, {}) for _ in range(10)))
    held = [one for some in leased for one in some.leases]
    assert len({one.job.id for one in held}) == len(held) == 100
    await asyncio.gather(*(queue.ack(acks(held[n::4]), {}) for n in range(4)), queue.counts())
    assert await queue.counts() == Counts(added=100, outcomes={Outcome.OK: 100})


# Any order of calls, against a model of a few lines

HOSTS = st.sampled_from(["a", "b", "c"])
SOME = st.lists(st.integers(0, 30), max_size=6)


class Model:
    """What a queue is, without any thought of speed."""

    def __init__(self):
        self.ready = []
        self.delayed = []
        self.held = {}
        self.keys = set()
        self.added = self.duplicates = 0
        self.outcomes = Counter()


class QueueMachine(RuleBasedStateMachine):
    make = None

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp()
        self.clock = FakeClock()
        self.model = Model()
        self.leases = []  # every one ever handed out, so that old ones are tried again
        self.queue = type(self).make(Path(self.folder), self.clock)
        self.do(self.queue.open())

    def do(self, call):
        return self.loop.run_until_complete(call)

    def teardown(self):
        self.do(self.queue.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def picked(self, numbers):
        chosen = [self.leases[n % len(self.leases)] for n in numbers] if self.leases else []
        return list({id(one): one for one in chosen}.values())

    def is_held(self, held):
        return self.model.held.get(held.job.id) is held

    @rule(rows=st.lists(st.tuples(HOSTS, st.integers(-1, 1), st.sampled_from([None, None, "k", "l"])), max_size=8))
    def put(self, rows):
        model, fresh, made = self.model, 0, []
        for number, (host, priority, key) in enumerate(rows):
            one = job(f"{model.added + model.duplicates + number}", host, priority=priority, key=key)
            made.append(one)
            if key is None or key not in model.keys:
                model.keys |= {key} - {None}
                model.ready.append((one.id, host, priority))
                fresh += 1
        model.added += fresh
        model.duplicates += len(rows) - fresh
        assert self.do(self.queue.put(made, {"n": str(model.added)})) == fresh

    @rule(limit=st.integers(0, 8), per_host=st.integers(0, 3), room=st.dictionaries(HOSTS, st.integers(0, 5)))
    def lease(self, limit, per_host, room):
        model, now = self.model, self.clock()
        due = [entry for entry in model.delayed if entry[0] <= now]
        model.delayed = [entry for entry in model.delayed if entry[0] > now]
        for name, held in list(model.held.items()):
            if held.deadline <= now:
                del model.held[name]
                due.append((now, (name, held.job.host, held.job.priority)))
        model.ready += [entry[1] for entry in due]
        leased = self.do(self.queue.lease(limit, per_host, room))
        self.check_lease(leased, limit, per_host, room)
        for one in leased.leases:
            held = Held(one, now + TERM)
            model.held[one.job.id] = held
            self.leases.append(held)
            model.ready.remove((one.job.id, one.job.host, one.job.priority))

    def check_lease(self, leased, limit, per_host, room):
        ready = Counter(self.model.ready)
        taken = Counter((one.job.id, one.job.host, one.job.priority) for one in leased.leases)
        assert not taken - ready
        hosts = Counter(host for _, host, _ in ready)
        possible = sum(min(count, room.get(host, per_host)) for host, count in hosts.items())
        assert len(leased.leases) == min(limit, possible)
        priorities = [one.job.priority for one in leased.leases]
        assert priorities == sorted(priorities, reverse=True)
        for host, count in Counter(one.job.host for one in leased.leases).items():
            assert count <= room.get(host, per_host)
            assert count <= leased.backlog[host] <= hosts[host]
        if limit:
            self.check_next_due(leased.next_due)

    def check_next_due(self, next_due):
        dues = [entry[0] for entry in self.model.delayed]
        # A queue may bring back what is due bit by bit, and says so.
        if next_due is None or next_due > 0:
            assert next_due == (pytest.approx(min(dues) - self.clock(), abs=1e-3) if dues else None)

    @rule(numbers=SOME, outcome=st.sampled_from(Outcome))
    def ack(self, numbers, outcome):
        chosen = self.picked(numbers)
        good = [held for held in chosen if self.is_held(held)]
        assert self.do(self.queue.ack(acks([held.lease for held in chosen], outcome), {})) == len(chosen) - len(good)
        for held in good:
            del self.model.held[held.job.id]
            self.model.outcomes[outcome] += 1

    @rule(numbers=SOME, delay=st.sampled_from([0.0, 0.5, 10.0, 100.0]))
    def nack(self, numbers, delay):
        chosen = self.picked(numbers)
        good = [held for held in chosen if self.is_held(held)]
        assert self.do(self.queue.nack(nacks([held.lease for held in chosen], delay))) == len(chosen) - len(good)
        for held in good:
            del self.model.held[held.job.id]
            entry = (held.job.id, held.job.host, held.job.priority)
            self.model.delayed.append((self.clock() + delay, entry))

    @rule(numbers=SOME)
    def extend(self, numbers):
        chosen = self.picked(numbers)
        good = [held for held in chosen if self.is_held(held)]
        assert self.do(self.queue.extend([held.lease for held in chosen])) == len(chosen) - len(good)
        for held in good:
            held.deadline = self.clock() + TERM

    @rule(seconds=st.sampled_from([0.3, 1.0, 20.0, TERM + 1]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: isinstance(self.queue, SqliteQueue))
    @rule(clean=st.booleans())
    def reopen(self, clean):
        if clean:
            self.do(self.queue.close())
        else:
            self.abandon()
        for held in self.model.held.values():
            self.model.ready.append((held.job.id, held.job.host, held.job.priority))
        self.model.held.clear()
        self.leases.clear()
        self.queue = type(self).make(Path(self.folder), self.clock)
        marks = self.do(self.queue.open())
        assert marks.get("n", "0") == str(self.model.added)

    def abandon(self):
        """Go on with what the files held at this moment, as after a kill."""
        copy = tempfile.mkdtemp()
        for path in Path(self.folder).iterdir():
            shutil.copy(path, copy)
        self.do(self.queue.close())
        shutil.rmtree(self.folder)
        self.folder = copy

    @invariant()
    def counts_agree(self):
        counts = self.do(self.queue.counts())
        model = self.model
        assert balanced(counts)
        assert (counts.added, counts.duplicates) == (model.added, model.duplicates)
        assert counts.outcomes == dict(model.outcomes)
        assert counts.leased == len(model.held)
        assert counts.ready + counts.delayed == len(model.ready) + len(model.delayed)


class Held:
    """A lease that the model believes in until its deadline."""

    def __init__(self, lease, deadline):
        self.lease, self.deadline, self.job = lease, deadline, lease.job


def machine(name):
    made = type(f"{name.title()}Machine", (QueueMachine,), {"make": staticmethod(QUEUES[name])})
    made.TestCase.settings = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    return made.TestCase


TestMemoryMachine = machine("memory")
TestSqliteMachine = machine("sqlite")


# What only SQLite promises: it survives

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from fetcher.interfaces import Ack, Nack
from fetcher.model import Job, Outcome
from fetcher.queues.sqlite import SqliteQueue

async def main():
    queue = SqliteQueue(Path(sys.argv[1]))
    await queue.open()
    jobs = [Job(id=str(n), url="u", host=f"h{n % 3}", key=str(n)) for n in range(100)]
    await queue.put(jobs, {"source": "100"})
    held = (await queue.lease(60, 100, {})).leases
    await queue.ack([Ack(lease, Outcome.OK) for lease in held[:25]], {"sink": "25"})
    for lease in held[25:35]:
        lease.job.attempts = 1
    await queue.nack([Nack(lease, 0.0) for lease in held[25:30]])
    await queue.nack([Nack(lease, 3600.0) for lease in held[30:35]])
    print(*(lease.job.id for lease in held[:25]), flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


def start(path, mode):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_a_killed_process_loses_and_repeats_nothing(tmp_path):
    path = tmp_path / "queue.db"
    with start(path, "kill") as process:
        out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    acked = set(out.split())
    clock = FakeClock()
    queue = SqliteQueue(path, clock=clock)
    assert dict(await queue.open()) == {"source": "100", "sink": "25"}
    counts = await queue.counts()
    assert counts == Counts(added=100, ready=65, delayed=10, outcomes={Outcome.OK: 25})
    clock.advance(1)
    soon = await lease(queue)
    assert await queue.ack(acks(soon), {}) == 0
    # However long it was to wait, a clock that was set back must not make it much longer.
    clock.advance(601)
    late = await lease(queue)
    assert len(acked) == 25
    assert (len(soon), len(late)) == (70, 5)
    assert sorted(acked | set(ids(soon + late)), key=int) == [str(n) for n in range(100)]
    assert sorted(one.job.attempts for one in soon + late) == [0] * 65 + [1] * 10
    assert await queue.put([job(n, key=str(n)) for n in range(100)], {}) == 0
    assert await queue.ack(acks(late), {}) == 0
    assert (await queue.counts()).left == 0
    await queue.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["queue.db"]


async def test_a_second_process_is_kept_out_and_told_why(tmp_path):
    path = tmp_path / "queue.db"
    with start(path, "stay") as process:
        process.stdout.readline()
        assert process.stdout.readline() == "open\n"
        second = SqliteQueue(path)
        with pytest.raises(StateBusyError) as caught:
            await second.open()
        await second.close()
        process.communicate("")
    assert str(caught.value) == f"{path}: another process is using this queue; wait until it has ended, or name another"
    assert caught.value.exit_code == 75
    third = SqliteQueue(path)
    await third.open()
    assert (await third.counts()).added == 100
    await third.close()


async def test_the_same_process_is_kept_out_too(sqlite, tmp_path):
    second = SqliteQueue(tmp_path / "queue.db")
    with pytest.raises(StateBusyError):
        await second.open()
    await second.close()
    assert await sqlite.put(jobs(1), {}) == 1


async def test_order_is_that_of_putting_after_a_reopening(tmp_path):
    path = tmp_path / "queue.db"
    first = SqliteQueue(path)
    await first.open()
    await first.put(jobs(20), {})
    held = await lease(first, limit=7)
    await first.ack(acks(held[::2]), {})
    await first.close()
    second = SqliteQueue(path)
    await second.open()
    await second.put(jobs(3, start=20), {})
    expected = [f"a.test-{n}" for n in range(23) if n not in {0, 2, 4, 6}]
    assert ids(await lease(second, limit=3)) + ids(await lease(second)) == expected
    await second.close()


def foreign(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs(a)")
    db.execute("INSERT INTO theirs VALUES ('precious')")
    db.commit()
    db.close()


def foreign_and_killed(path):
    """Make a database whose owner died with its latest changes still in the log."""
    source = path.with_name("source.db")
    db = sqlite3.connect(source, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE theirs(a)")
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{path}{suffix}")
    db.close()


def newer(path):
    asyncio.run(create(path))
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 2")
    db.close()


async def create(path):
    queue = SqliteQueue(path)
    await queue.open()
    await queue.put(jobs(3), {})
    await queue.close()


def damaged(path):
    asyncio.run(create(path))
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"x\n" * 255), "is not a readable queue (file is not a database)"),
        (
            lambda path: path.write_bytes(b"x"),
            "is not a readable queue (file is not a database); move it away",
        ),
        (
            lambda path: path.write_bytes(b"precious\n" * 1000),
            "is not a readable queue (file is not a database)",
        ),
        (foreign, "is a database, but not a queue of fetcher; give another path"),
        (foreign_and_killed, "is a database, but not a queue of fetcher; give another path"),
        (newer, "was written by a newer version of fetcher; use that, or give another path"),
        (damaged, "is not a readable queue (database disk image is malformed); move it away to start over"),
    ],
)
def test_what_is_no_queue_of_ours_is_refused_and_not_touched(tmp_path, make, message):
    path = tmp_path / "some.db"
    make(path)
    before = contents(tmp_path)

    async def refused():
        queue = SqliteQueue(path)
        with pytest.raises(StateError) as caught:
            await queue.open()
        with pytest.raises(StateError):
            await queue.counts()
        await queue.close()
        assert str(caught.value).startswith(f"{path}: {message}")
        assert not isinstance(caught.value, StateBusyError)

    asyncio.run(refused())
    assert contents(tmp_path) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


async def test_an_empty_file_is_what_a_kill_in_the_first_moment_leaves_and_is_taken(tmp_path):
    path = tmp_path / "queue.db"
    path.touch()
    await create(path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("path", ["folder", "file/queue.db", "/proc/queue.db", "/proc/no/queue.db"])
async def test_a_path_that_can_not_be_used_is_a_state_error(tmp_path, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    queue = SqliteQueue(tmp_path / path)
    with pytest.raises(StateError):
        await queue.open()
    await queue.close()


async def test_missing_folders_are_made(tmp_path):
    await create(tmp_path / "a" / "b" / "queue?x#y%20.db")
    assert [entry.name for entry in (tmp_path / "a" / "b").iterdir()] == ["queue?x#y%20.db"]


async def test_a_closed_queue_says_so(tmp_path):
    queue = SqliteQueue(tmp_path / "queue.db")
    with pytest.raises(StateError, match="is not open"):
        await queue.counts()
    await queue.open()
    await queue.close()
    with pytest.raises(StateError, match="is closed"):
        await queue.put(jobs(1), {})


async def test_a_failed_call_takes_no_effect_and_the_next_succeeds(sqlite):
    await sqlite.put(jobs(2), {})
    with pytest.raises(UnicodeEncodeError):
        await sqlite.put([job("good"), job("\ud800")], {"m": "1"})
    assert await sqlite.counts() == Counts(added=2, ready=2)
    held = await lease(sqlite)
    held[1].job.meta = {"x": object()}
    with pytest.raises(TypeError):
        await sqlite.nack(nacks(held))
    assert await sqlite.ack(acks(held), {}) == 0
    assert await sqlite.counts() == Counts(added=2, outcomes={Outcome.OK: 2})


async def test_a_cancelled_call_has_taken_effect_before_it_returns(sqlite):
    task = asyncio.ensure_future(sqlite.put(jobs(2000), {}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sqlite.counts()).added == 2000


async def test_a_full_disk_is_a_state_error_and_nothing_is_lost(sqlite):
    await sqlite.put(jobs(5), {})
    sqlite._db.execute("PRAGMA max_page_count = 1")  # no less than what the file has
    with pytest.raises(StateError, match="full"):
        await sqlite.put(jobs(5000, "b"), {"m": "1"})
    assert await sqlite.counts() == Counts(added=5, ready=5)
    sqlite._db.execute("PRAGMA max_page_count = 1000000")
    assert await sqlite.put(jobs(5000, "b"), {}) == 5000
    assert len(await lease(sqlite)) == 5005


async def test_a_clear_that_is_cut_off_has_cleared_nothing(sqlite):
    await sqlite.put([job(1, key="k")], {"m": "1"})
    before = await sqlite.counts()
    sqlite._db.execute("CREATE TRIGGER no BEFORE DELETE ON counts BEGIN SELECT RAISE(ABORT, 'cut off'); END")
    with pytest.raises(StateError, match="cut off"):
        await sqlite.clear()
    assert await sqlite.counts() == before
    assert ids(await lease(sqlite)) == ["1"]


async def steps_of_lease(queue):
    """Count thousands of SQLite's own steps, which unlike time are always the same."""
    steps = 0

    def step():
        nonlocal steps
        steps += 1

    queue._db.set_progress_handler(step, 100)
    held = await lease(queue, limit=200, per_host=8, h1=0)
    queue._db.set_progress_handler(None, 0)
    assert len(held) == 200
    return steps


@pytest.mark.parametrize("order", ["sorted", "mixed"])
async def test_a_lease_costs_the_same_however_many_jobs_wait(sqlite, order):
    hosts = [f"h{n}" for n in range(50)]
    costs = []
    for size in (40, 1000):
        per_host = [jobs(size, host, start=size) for host in hosts]
        made = [one for some in per_host for one in some]
        if order == "mixed":
            made = [some[n] for n in range(size) for some in per_host]
        await sqlite.put(made, {})
        costs.append(await steps_of_lease(sqlite))
        await sqlite.ack(acks(await lease(sqlite, limit=400, per_host=8)), {})
        costs.append(await steps_of_lease(sqlite))
    assert max(costs[2:]) < 1.5 * max(costs[:2])


async def test_no_statement_of_a_lease_scans_the_jobs(sqlite):
    statements = []
    await sqlite.put(jobs(20), {})
    await sqlite.nack(nacks(await lease(sqlite, limit=3)))
    sqlite._db.set_trace_callback(statements.append)
    await lease(sqlite, limit=5)
    sqlite._db.set_trace_callback(None)
    plans = [
        row[3]
        for statement in statements
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
        for row in sqlite._db.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert any("jobs_by_lane" in plan for plan in plans)
    assert any("delayed_by_due" in plan for plan in plans)
    scanned = {plan.split()[1] for plan in plans if plan.startswith("SCAN")} - {"take", "picked", "taken"}
    assert not scanned & {"jobs", "done", "delayed", "lane", "seen"}, plans


def test_the_config_builds_what_it_says(tmp_path):
    from fetcher.queues.sqlite import SqliteQueueConfig  # noqa: PLC0415

    queue = SqliteQueueConfig(path=str(tmp_path / "q.db"), lease="5s", capacity=7, durability="fsync").build()
    assert (queue.term, queue.capacity, queue._synchronous) == (5.0, 7, True)


async def test_fsync_is_what_sqlite_is_told(tmp_path):
    queue = SqliteQueue(tmp_path / "q.db", synchronous=True)
    await queue.open()
    assert queue._db.execute("PRAGMA synchronous").fetchone() == (2,)
    await queue.close()


async def test_the_heap_of_a_queue_in_memory_does_not_grow_with_what_went_through_it():
    queue = MemoryQueue()
    await queue.put(jobs(5, "idle", priority=-1), {})
    for n in range(3000):
        await queue.put(jobs(2, "busy", start=n), {})
        await queue.ack(acks(await lease(queue, limit=2)), {})
    assert len(queue._heap) < 200


def test_no_descriptor_is_left(tmp_path):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  descriptors
    for n in range(3):
        asyncio.run(create(tmp_path / f"{n}.db"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  descriptors
