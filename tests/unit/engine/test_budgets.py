"""Budgets in the scheduler: whose they are, and that who waits for one keeps nobody else waiting. Simulated."""

from __future__ import annotations

from heapq import heappop
from typing import Any

import pytest
from unit.engine.hosts.test_quota import most
from unit.engine.simulated_batch import Simulation, job
from unit.engine.simulated_engines import SimulatedEngine, World
from unit.engine.test_scheduler import all_at, failure, hosts, leased

from fetcher.budgets import Allowance, BudgetRule
from fetcher.engine.hosts.accounts import Accounts, Purse
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings, strictest
from fetcher.engine.hosts.quota import Window
from fetcher.engine.hosts.signs import Sign
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.window import HORIZON
from fetcher.model import RateLimit

KEY = BudgetRule("key", ["a", "b", "*.api"], budget=(Allowance(100, 3600), Allowance(2, 1)))


def simulation(jobs, limits=None, budgets=(KEY,), serve=lambda _: 0.2) -> Simulation:
    return Simulation(jobs, limits or LimitSettings(adapt=False), serve, budgets=budgets)


def test_hours_of_a_budget_over_all_hosts_of_a_key():
    names = ("a", "b", "x.api", "y.api")
    simulated = simulation([job(names[number % 4], number) for number in range(350)])
    took = simulated.run()
    starts = [at for at, _ in simulated.starts]
    assert len(starts) == 350
    assert most(starts, 3600.0) == 100
    assert most(starts, 1.0) == 2
    # All of it is used: the fourth hundred begins three hours after the first, and as many parts of an hour.
    assert 3 * 3600 < took < 3 * 3600 + 4 * 31
    assert simulated.returned < 350 * 2


def test_who_waits_for_a_budget_keeps_no_other_host_out_of_the_window():
    used_up = [job(f"{number % 40}.api", f"x{number}") for number in range(4000)]
    free = [job(f"free{number % 20}", number) for number in range(2000)]
    mixed = [one for pair in zip(used_up, used_up[2000:], free, strict=False) for one in pair]
    simulated = simulation(mixed, LimitSettings(concurrency=50, adapt=False))
    simulated.feed()
    simulated.lease()
    while simulated.now < 60 and sum(host.startswith("free") for _, host in simulated.starts) < 2000:
        simulated.start()
        simulated.now, _, event = heappop(simulated.events)
        event()
    # 2000 jobs of 0.2 s in 50 slots take 8 s.
    assert simulated.now < 10
    assert sum(host.endswith("api") for _, host in simulated.starts) >= 10


PACES = {
    "budget": {"per_host": {"concurrency": 100, "budget": ["20/s"]}},
    "rate": {"per_host": {"concurrency": 100, "rate": "20/s"}},
    "delay": {"per_host": {"concurrency": 100, "delay": "50ms"}},
    "both": {"per_host": {"concurrency": 100, "rate": "20/s", "budget": ["1000/m"]}},
    "slow": {"per_host": {"concurrency": 100, "rate": "2/s"}},
}


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("read_ahead", [None, 10])
def test_a_pace_is_kept_up_while_no_answer_has_come(pace: str, read_ahead: int | None):
    limits = LimitSettings.model_validate(PACES[pace] | {"adapt": False})
    simulated = Simulation([job("a", number) for number in range(60)], limits, lambda _: 100.0)
    simulated.read_ahead = read_ahead or 60
    if read_ahead:
        # More is read now and then, and not when the queue runs dry.
        simulated.at(1.0, lambda: widen(simulated))
    simulated.run()
    interval = 0.5 if pace == "slow" else 0.05
    late = 1.0 if read_ahead and pace != "slow" else 0.0
    last = simulated.starts[-1][0]
    assert 59 * interval - 0.06 <= last <= 59 * interval + late + 0.1


def widen(simulated: Simulation) -> None:
    simulated.read_ahead = 60
    simulated.feed()
    simulated.lease_again()


@pytest.mark.parametrize("pace", [{"rate": "5/s"}, {"budget": ["5/s"]}])
def test_answers_that_take_long_do_not_hold_up_the_others_of_their_host(pace: dict[str, Any]):
    jobs = [job("a", f"slow{number}", priority=1) for number in range(2)] + [job("a", number) for number in range(60)]
    limits = LimitSettings(adapt=False, per_host=HostLimits.model_validate(pace))
    simulated = Simulation(jobs, limits, lambda one: 100.0 if one.id.startswith("slow") else 0.01)
    simulated.run()
    assert simulated.starts[-1][0] == pytest.approx(61 * 0.2, abs=0.1)


def test_the_budget_of_a_key_is_kept_up_over_many_hosts_while_no_answer_has_come():
    rule = BudgetRule("key", ["*"], budget=(Allowance(20, 1),))
    jobs = [job(f"h{number % 10}", number) for number in range(60)]
    simulated = simulation(jobs, budgets=[rule], serve=lambda _: 100.0)
    simulated.run()
    assert simulated.starts[-1][0] == pytest.approx(59 * 0.05, abs=0.1)


def test_the_budget_of_a_host_holds_beside_its_other_limits():
    limits = LimitSettings(adapt=False, per_host=HostLimits(concurrency=4, budget=["30/m"]))
    simulated = simulation([job("one", number) for number in range(70)], limits, budgets=(), serve=lambda _: 0.5)
    took = simulated.run()
    assert most([at for at, _ in simulated.starts], 60.0) == 30
    assert simulated.most_of["one"] == 4
    assert 120 < took < 130


def test_a_budget_is_remembered_for_a_host_that_had_no_jobs_for_a_while():
    scheduler = Scheduler(LimitSettings(per_host=HostLimits(budget=["2/h"])))
    for number in range(2):
        scheduler.add(leased(("a", number)), float(number))
        (lease,) = all_at(scheduler, float(number))
        scheduler.done(lease, float(number), number + 0.1)
        scheduler.demand(number + 0.5)
    scheduler.add(leased(("a", 3)), 100.0)
    assert all_at(scheduler, 100.0) == []
    assert 3600 <= scheduler.wake_at() <= 3640
    assert len(all_at(scheduler, 3640.0)) == 1


def test_a_host_is_given_what_it_can_start_soon_and_nothing_while_its_budget_is_used_up():
    scheduler = Scheduler(LimitSettings(per_host=HostLimits(concurrency=8, budget=["8/s", "5/m"])))
    scheduler.owner = Taker()
    scheduler.add(leased(("a", 0)), 0.0)
    all_at(scheduler, 0.0)
    assert scheduler.demand(0.0).room["a"] == 1
    for number in range(1, 5):
        scheduler.add(leased(("a", number), ("a", number + 10), ("a", number + 20)), float(number))
        assert len(all_at(scheduler, float(number))) == 1
    demand = scheduler.demand(4.0)
    assert demand.room == {"a": 0}
    assert demand.again == pytest.approx(60.5 - HORIZON - 4.0)
    # Nothing waits here that could not have started.
    assert (scheduler.waiting, scheduler.owner.taken) == (0, [])


@pytest.mark.parametrize(("reset", "returned"), [(1.0, 0), (60.0, 2)])
def test_what_waits_when_a_budget_turns_out_to_be_used_up_for_long_goes_back_to_the_queue(reset: float, returned: int):
    scheduler = Scheduler(LimitSettings(per_host=HostLimits(concurrency=1)))
    scheduler.owner = Taker()
    scheduler.add(leased(("a", 0), ("a", 1), ("a", 2)), 0.0)
    all_at(scheduler, 0.0)
    scheduler.told("a", RateLimit(0, reset), 0.0, 1.0, own=True)
    assert scheduler.demand(1.0).room == {"a": 0}
    assert (len(scheduler.owner.taken), scheduler.waiting) == (returned, 2 - returned)


class Taker:
    def __init__(self) -> None:
        self.taken = []

    def may_start(self) -> bool:
        return True

    def look_again(self, *, ready: bool) -> None:
        pass

    def take_back(self, leases) -> None:
        self.taken += leases

    def lease_again(self) -> None:
        pass


def test_a_start_that_a_verdict_stops_is_not_charged():
    limits = LimitSettings(per_host=HostLimits(budget=["30/h"]), breaker={"failures": 1, "pause": 10})
    scheduler = Scheduler(limits, budgets=[KEY])
    scheduler.add(leased(("a", 0)), 0.0)
    (first,) = all_at(scheduler, 0.0)
    scheduler.add(leased(("a", 1)), 0.5)
    (second,) = all_at(scheduler, 0.5)
    scheduler.badly(first, failure(Sign.DOWN), 0.0, 1.0)
    for lease in (first, second):
        scheduler.done(lease, 0.0, 1.0)
    scheduler.add(leased(("a", 2), ("a", 3)), 20.0)
    (line,) = scheduler.lines()

    def used() -> list[int]:
        return [bound.used for quota in line.quotas for bound in quota.bounds if isinstance(bound, Window)]

    assert used() == [2, 2]
    probe = scheduler.next(20.0)
    assert scheduler.verdict(probe, 20.0) is None
    assert used() == [3, 3]
    scheduler.done(probe, 20.0, 20.0)
    scheduler.add(leased(("a", 4)), 20.6)
    early = scheduler.next(20.6)
    assert used() == [4, 4]
    assert isinstance(scheduler.verdict(early, 20.6), float)
    scheduler.done(early, 20.6, 20.6)
    assert used() == [3, 3]


# Several batches


def test_batches_share_the_budget_of_a_host_by_weight():
    world = World(LimitSettings(adapt=False, per_host=HostLimits(concurrency=50, budget=["10/s"])))
    engines = [
        SimulatedEngine(world, LimitSettings(concurrency=50), {"a": 1000}, weight=weight) for weight in (1.0, 3.0)
    ]
    for engine in engines:
        engine.begin()
    world.run(40.0)
    light, heavy = (world.started(engine, since=5.0) for engine in engines)
    assert light + heavy == pytest.approx(350, abs=5)
    assert heavy / light == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("pace", ["budget", "rate"])
def test_batches_keep_the_pace_of_a_host_up_while_no_answer_has_come(pace: str):
    limits = LimitSettings.model_validate(PACES[pace] | {"adapt": False})
    world = World(limits)
    engines = [
        SimulatedEngine(world, LimitSettings(concurrency=100), {"a": 30}, serve=lambda _: 100.0) for _ in range(2)
    ]
    for engine in engines:
        engine.begin()
    world.run(10.0)
    assert [world.started(engine) for engine in engines] == [30, 30]
    assert world.starts[-1][0] == pytest.approx(59 * 0.05, abs=0.15)


def test_batches_with_one_key_share_its_budget_and_those_with_another_do_not():
    world = World(LimitSettings(adapt=False))
    other = BudgetRule("other", ["*"], budget=(Allowance(40, 60),))
    one = BudgetRule("key", ["*"], budget=(Allowance(30, 60),))
    engines = [
        SimulatedEngine(world, LimitSettings(concurrency=50), {host: 1000}, budgets=[rule])
        for host, rule in (("a", one), ("b", one), ("a", other))
    ]
    for engine in engines:
        engine.begin()
    world.run(50.0)
    first, second, third = (world.started(engine) for engine in engines)
    assert (first + second, third) == (30, 40)


def test_who_waits_for_a_key_is_woken_when_the_batch_has_ended_that_was_strict_with_it():
    world = World(LimitSettings(adapt=False))
    rules = [BudgetRule("key", ["*"], budget=(Allowance(count, 3600),)) for count in (5, 1000)]
    strict, other = (
        SimulatedEngine(world, LimitSettings(concurrency=10), {host: 20}, budgets=[rule])
        for host, rule in zip("ab", rules, strict=True)
    )
    strict.begin()
    world.run(5.0)
    other.begin()
    world.run(6.0)
    other.feed()
    world.run(10.0)
    assert (world.started(strict), world.started(other), other.scheduler.waiting) == (5, 0, 0)
    strict.scheduler.close(world.now)
    world.run(30.0)
    assert world.started(other) == 20


def test_a_key_is_as_strict_as_all_who_use_it_now():
    accounts = Accounts()
    purses = [Purse(accounts, [BudgetRule("key", ["a"], budget=(Allowance(count, 60),))]) for count in (5, 3)]
    (quota,), (same,) = (purse.of("a") for purse in purses)
    assert quota is same
    assert quota.bounds[0].count == 3
    quota.take(0.0)
    quota.done(0.0)
    purses[1].close(0.0)
    assert quota.bounds[0].count == 5
    purses[0].close(1.0)
    purses[0].close(1.0)
    assert [identity for identity, _ in accounts] == ["key"]  # it still counts
    accounts.sweep(100.0)
    assert list(accounts) == []


def test_the_first_entry_that_is_for_a_host_is_the_one_and_before_it_those_for_some_of_its_ports():
    rules = [
        BudgetRule("port", [], some_ports=["a"]),
        BudgetRule("any", ["a", "*.x"]),
        BudgetRule("all", ["*"]),
    ]
    accounts = Accounts()
    purse = Purse(accounts, rules)
    assert len(purse.of("a")) == 2
    assert len(purse.of("b.x")) == 1
    assert [purse.of("b.x")[0] is quota for quota in purse.of("a")] == [False, True]
    assert purse.of("c") != purse.of("b.x")
    assert Purse(accounts, []).of("a") == ()


def test_limits_of_several_batches_have_all_of_their_budgets():
    given, own = HostLimits(budget=["10/s"]), HostLimits(budget=["10/s", "5/m"])
    assert strictest(given, [own]).budget == (Allowance(10, 1), Allowance(5, 60))
    assert strictest(given, [given]) is given


def test_limits_that_change_while_a_host_is_asked_count_what_is_in_flight():
    shared = Hosts(LimitSettings())
    scheduler = Scheduler(LimitSettings(), shared)
    scheduler.add(leased(("a", 0), ("a", 1), ("a", 2)), 0.0)
    running = all_at(scheduler, 0.0)
    shared.reconfigure(LimitSettings(per_host=HostLimits(budget=["2/m"])), 1.0)
    for lease in running:
        scheduler.done(lease, 0.0, 2.0)
    scheduler.add(leased(*(("a", number) for number in range(3, 8))), 2.0)
    assert len(all_at(scheduler, 2.0)) == 2
    assert next(iter(shared)).quota.in_flight == 2
    shared.reconfigure(LimitSettings(), 3.0)
    scheduler.add(leased(*(("a", number) for number in range(10, 13))), 3.0)
    assert len(all_at(scheduler, 3.0)) == 3


# What is told


def test_what_a_host_says_is_left_holds_for_all_who_ask_it():
    world = World(LimitSettings(adapt=False))
    engines = [SimulatedEngine(world, LimitSettings(concurrency=4), {"a": 100}) for _ in range(2)]
    for engine in engines:
        engine.begin()
    world.run(0.05)
    before = len(world.starts)
    engines[0].scheduler.told("a", RateLimit(before + 5, 30.0), 0.0, world.now, own=True)
    world.run(29.0)
    assert len(world.starts) - before <= 6
    world.run(31.0)
    assert len(world.starts) - before >= 7


def test_a_new_answer_wakes_all_who_wait_for_a_key():
    world = World(LimitSettings(adapt=False))
    rule = BudgetRule("key", ["*"])
    engines = [
        SimulatedEngine(world, LimitSettings(concurrency=1), {host: 3}, serve=lambda _: 1.0, budgets=[rule])
        for host in "ab"
    ]
    engines[0].begin()
    world.run(0.5)
    engines[0].scheduler.told("a", RateLimit(0, 10.0), 0.0, world.now, own=True)
    engines[1].begin()
    world.run(11.0)
    # After the reset one asks for both.
    assert len(world.starts) == 2
    engine = next(engine for engine in engines if engine.running)
    host = world.starts[-1][2]
    engine.scheduler.told(host, RateLimit(50, 10.0), world.starts[-1][0], world.now, own=True)
    world.run(13.0)
    assert {name for _, _, name in world.starts} == {"a", "b"}


def test_a_new_answer_wakes_who_has_given_back_what_waited_for_a_key():
    world = World(LimitSettings(adapt=False))
    rule = BudgetRule("key", ["*"])
    one, other = (
        SimulatedEngine(world, LimitSettings(concurrency=1), {host: 5}, serve=lambda _: 1.0, budgets=[rule])
        for host in "ab"
    )
    one.begin()
    world.run(0.5)
    one.scheduler.told("a", RateLimit(0, 1000.0), 0.0, world.now, own=True)
    other.begin()
    world.run(1.0)
    other.feed()
    world.run(10.0)
    assert (other.scheduler.waiting, len(world.starts)) == (0, 1)
    one.scheduler.told("a", RateLimit(50, 1000.0), 9.0, world.now, own=False)
    world.run(20.0)
    assert {name for _, _, name in world.starts} == {"a", "b"}


def test_hosts_without_a_budget_have_no_quota():
    scheduler = Scheduler(LimitSettings(), budgets=[KEY])
    scheduler.add(leased(("free", 0), ("a", 0)), 0.0)
    assert sorted(hosts(all_at(scheduler, 0.0))) == ["a", "free"]
    assert {line.host.name: len(line.quotas) for line in scheduler.lines()} == {"free": 0, "a": 1}
