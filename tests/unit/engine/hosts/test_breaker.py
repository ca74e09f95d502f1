"""When a host is left alone and when it is given up: the states, and whole batches with dead hosts, simulated."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from pydantic import ValidationError
from unit.engine.simulated_batch import Simulation, job

from fetcher.engine.hosts.breaker import Breaker, BreakerSettings
from fetcher.engine.hosts.care import Failure
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.engine.hosts.signs import Sign
from fetcher.errors import SKIPPING, ErrorKind
from fetcher.interfaces import Lease, Leased

RULES = BreakerSettings(failures=3, pause=10.0, max_pause=25.0, give_up=4)
REFUSED = ErrorKind.CONNECT_REFUSED


def fail(breaker, now, *, started=None, first=True, rules=RULES):
    return breaker.failed(rules, now if started is None else started, now, first=first, kind=REFUSED)


# The states


def test_it_opens_after_so_many_jobs_in_a_row():
    breaker = Breaker()
    assert [fail(breaker, now) for now in (1.0, 2.0, 3.0)] == [None, None, 10.0]
    assert breaker.probing
    assert breaker.reason is None


def test_what_one_job_tries_again_is_not_counted_again():
    breaker = Breaker()
    assert [fail(breaker, now, first=False) for now in range(50)] == [None] * 50
    assert not breaker.probing


def test_what_began_before_the_pause_decides_nothing():
    breaker = Breaker()
    for now in (1.0, 2.0, 3.0):
        fail(breaker, now)
    assert fail(breaker, 4.0, started=2.5) is None
    assert breaker.probes == 0


def test_pauses_grow_up_to_the_longest_and_then_it_gives_up():
    breaker, now, pauses = Breaker(failures=2), 0.0, []
    while breaker.reason is None:
        pause = fail(breaker, now)
        pauses.append(pause)
        now += pause
    assert pauses == [10.0, 20.0, 25.0, 25.0, 0.0]
    assert breaker.reason.kind is ErrorKind.HOST_DOWN
    assert breaker.reason.kind in SKIPPING
    assert breaker.reason.message == (
        "the host did not answer: 3 jobs in a row failed, then 4 probes, the last one with connect_refused; "
        "run the batch again when it is back"
    )
    assert fail(breaker, now) is None


def test_it_may_be_told_never_to_give_up():
    rules = BreakerSettings(failures=1, pause=1.0, max_pause=60.0, give_up=1, host_down="wait")
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(2000):
        pauses.append(fail(breaker, now, rules=rules))
        now += pauses[-1]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert pauses[-1] == 60
    assert breaker.reason is None


@pytest.mark.parametrize("bad", [{"failures": 0}, {"give_up": 0}, {"pause": 0}, {"host_down": "fail"}, {"off": True}])
def test_rules_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValidationError):
        LimitSettings(breaker=bad)


def test_it_may_be_off():
    assert LimitSettings(breaker="off").breaker == "off"


# Whole batches


class Batch:
    """A batch in which ``answers(host, now)`` says whether a host is there; the others refuse, after ``patience``.

    A host of the kind ``name:port`` is one port of several.
    """

    def __init__(self, jobs, answers, *, breaker=None, attempts=4, patience=0.001, refusal=Sign.DOWN, slots=100):
        self.answers, self.attempts, self.refusal = answers, attempts, refusal
        self.outcome, self.tries, self.ended_at = {}, Counter(), defaultdict(float)
        limits = LimitSettings(concurrency=slots, per_host=HostLimits(concurrency=8), breaker=breaker or {})
        self.simulation = Simulation(
            jobs, limits, lambda one: 0.1 if answers(at(one), self.now) else patience, conclude=self.conclude
        )
        self.took = self.simulation.run()

    @property
    def now(self):
        return self.simulation.now

    def conclude(self, simulation, lease, started):
        one, now = lease.job, simulation.now
        self.tries[one.id] += 1
        self.ended_at[at(one)] = now
        if self.answers(at(one), started):
            simulation.scheduler.well(lease, started, now, 0.1)
            self.outcome[one.id] = "ok"
            return None
        status = 429 if self.refusal is Sign.REFUSED else None
        failure = Failure(self.refusal, REFUSED, self.tries[one.id] == 1, status)
        simulation.give_back(simulation.scheduler.badly(lease, failure, started, now))
        if self.tries[one.id] < self.attempts:
            return 0.5 * 2 ** (self.tries[one.id] - 1)
        self.outcome[one.id] = "failed"
        return None


def some(host, count, start=0):
    name, _, port = host.partition(":")
    return [job(name, start + n, port=port or 80) for n in range(count)]


def at(one):
    return one.url.split("/")[2].removesuffix(":80")


def test_a_dead_host_with_ten_thousand_jobs_ends_soon_and_delays_nobody():
    alive = [one for n in range(20) for one in some(f"h{n}", 200, 100_000 + n * 200)]
    batch = Batch([*some("dead", 10_000), *alive], lambda host, now: host != "dead")
    skipped = batch.simulation.skipped
    assert len(skipped) + len(batch.outcome) == 14_000
    assert Counter(batch.outcome.values())["ok"] == 4000
    assert Counter(batch.outcome.values())["failed"] <= 20
    assert sum(batch.tries[str(n)] for n in range(10_000)) < 60
    assert batch.took < 10 + 20 + 40 + 15
    # As long as these jobs take if there is no other host.
    others = max(batch.ended_at[f"h{n}"] for n in range(20))
    assert others < 1.1 * Batch(alive, lambda host, now: True).took


def test_a_host_that_swallows_connections_ends_soon_too():
    batch = Batch(some("dead", 2000), lambda host, now: False, patience=10.0, refusal=Sign.LOST)
    assert len(batch.simulation.skipped) + len(batch.outcome) == 2000
    assert batch.took < 200


def test_a_host_that_comes_back_loses_no_job():
    batch = Batch(some("a", 3000), lambda host, now: not 5.0 < now < 25.0)
    assert Counter(batch.outcome.values())["ok"] > 2980
    assert not batch.simulation.skipped
    assert batch.took < 3000 * 0.1 / 8 + 60


def test_few_jobs_are_tried_as_often_as_the_config_says():
    batch = Batch(some("dead", 9), lambda host, now: False)
    assert set(batch.tries.values()) == {4}
    assert set(batch.outcome.values()) == {"failed"}
    assert batch.took < 10


def test_one_answer_in_between_keeps_it_closed():
    """Some of the servers behind one address are gone, say."""
    batch = Batch(some("half", 400), lambda host, now: int(now * 1e6) % 2 == 0)
    assert not batch.simulation.skipped


def test_a_dead_port_costs_no_job_of_another_port_of_its_host():
    """In the order of the ports, so that nothing of the host answers for as long as the dead one is in its turn."""
    batch = Batch([*some("x:8999", 1000), *some("x:8931", 100, 1000)], lambda host, now: host == "x:8931")
    assert Counter(batch.outcome.values())["ok"] == 100
    assert len(batch.simulation.skipped) + len(batch.outcome) == 1100
    assert {int(name) < 1000 for name in batch.simulation.skipped} == {True}
    assert all(why.startswith("x:8999 did not answer: ") for why in batch.simulation.skipped.values())
    assert batch.simulation.most_of["x"] <= 8
    assert batch.took < 90


@pytest.mark.parametrize("first", [0, 1])
def test_ports_that_take_turns_are_told_apart_and_the_one_that_is_well_does_not_wait(first):
    dead, well = some("x:8999", 1000), some("x:8931", 1000, 1000)
    jobs = [one for pair in zip(*((dead, well) if first else (well, dead)), strict=True) for one in pair]
    batch = Batch(jobs, lambda host, now: host == "x:8931")
    assert Counter(batch.outcome.values())["ok"] == 1000
    assert len(batch.simulation.skipped) > 950
    assert sum(batch.tries[one.id] for one in dead) < 80
    # 100 ms each, 8 at a time.
    assert batch.ended_at["x:8931"] < 2 * 1000 * 0.1 / 8
    assert batch.took < 10 + 20 + 40 + 30


def test_a_dead_port_of_a_host_with_a_rate_spends_none_of_it_once_it_is_given_up():
    limits = LimitSettings(per_host=HostLimits(rate="2/s"), breaker={"failures": 2, "pause": 1, "give_up": 1})
    dead, well = some("x:8999", 500), some("x:8931", 20, 500)

    def conclude(simulation, lease, started):
        if at(lease.job) == "x:8931":
            simulation.scheduler.well(lease, started, simulation.now, 0.1)
        else:
            simulation.give_back(
                simulation.scheduler.badly(lease, Failure(Sign.DOWN, REFUSED, first=True), started, simulation.now)
            )

    simulation = Simulation([*dead[:250], *well, *dead[250:]], limits, lambda one: 0.1, conclude=conclude)
    assert simulation.run() < 40
    assert len(simulation.skipped) > 490
    starts = [when for when, _ in simulation.starts]
    assert max(sum(begin <= when < begin + 5 for when in starts) for begin in starts) <= 11


def test_it_may_wait_instead_until_the_host_is_back():
    rules = BreakerSettings(host_down="wait", pause=5.0, max_pause=60.0)
    batch = Batch(some("a", 500), lambda host, now: now > 1000.0, breaker=rules)
    outcomes = Counter(batch.outcome.values())
    assert not batch.simulation.skipped
    assert outcomes.total() == 500
    assert outcomes["ok"] > 480
    assert 1000 < batch.took < 1200


def test_a_host_that_refuses_everything_holds_no_batch_for_hours():
    batch = Batch(some("no", 2000), lambda host, now: False, refusal=Sign.REFUSED)
    assert len(batch.simulation.skipped) + len(batch.outcome) == 2000
    assert len(batch.simulation.skipped) > 1950
    assert all(
        why.startswith("no:80 refuses every request (429), however rarely it is asked, and so it did 3 probes; ")
        for why in batch.simulation.skipped.values()
    )
    assert batch.took < 300
    assert sum(batch.tries.values()) < 60


def test_a_host_that_refused_everything_for_two_minutes_loses_no_job():
    batch = Batch(some("no", 2000), lambda host, now: now > 120.0, refusal=Sign.REFUSED)
    assert not batch.simulation.skipped
    assert Counter(batch.outcome.values())["ok"] > 1980


def test_without_it_every_job_is_tried():
    batch = Batch(some("dead", 300), lambda host, now: False, breaker="off")
    assert set(batch.tries.values()) == {4}
    assert len(batch.tries) == 300


def test_many_dead_hosts_are_given_up_side_by_side():
    jobs = [one for n in range(200) for one in some(f"dead{n}", 50, n * 50)]
    batch = Batch(jobs, lambda host, now: False)
    assert len(batch.simulation.skipped) + len(batch.outcome) == 10_000
    assert batch.took < 100


def test_a_host_that_was_given_up_stays_so_though_its_jobs_are_read_much_later():
    batch = Batch(some("dead", 100), lambda host, now: False)
    scheduler = batch.simulation.scheduler
    assert scheduler.demand(batch.now + 1e6).room == {}  # it is no longer in the window
    scheduler.add(Leased([Lease(job("dead", 1), 1, 1)]), batch.now + 1e6)
    assert scheduler.verdict(scheduler.next(batch.now + 1e6), batch.now + 1e6).kind is ErrorKind.HOST_DOWN
