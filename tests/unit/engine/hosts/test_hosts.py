"""Several schedulers that ask the same hosts: together they keep to the limits, and each has its part."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.engine.simulated_engines import SimulatedEngine, World
from unit.engine.test_scheduler import all_at, failure, leased, names

from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.engine.hosts.signs import Sign
from fetcher.engine.hosts.turns import GRACE, SULK
from fetcher.engine.scheduler import Scheduler

MANY = 10**9


def world(**per_host):
    return World(LimitSettings(concurrency=1000, per_host=HostLimits(**per_host)))


def engines(where, *options, jobs=None, concurrency=100, **common):
    """Return engines that have begun, each with options of its own."""
    made = []
    for own in options:
        limits = LimitSettings(concurrency=own.pop("concurrency", concurrency), **own.pop("limits", {}))
        made.append(SimulatedEngine(where, limits, own.pop("jobs", jobs or {"a": MANY}), **common, **own))
    for engine in made:
        engine.begin()
    return made


def parts(where, engines, host="a", since=0.0):
    counts = [where.started(engine, host, since) for engine in engines]
    return [count / sum(counts) for count in counts]


class Busy:
    """An engine that can start nothing now."""

    def may_start(self):
        return False

    def look_again(self, *, ready):
        pass

    def take_back(self, leases):
        raise AssertionError("no host was told to rest")

    def lease_again(self):
        pass


# Limits


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_all_together_have_no_more_in_flight_than_the_host_bears(concurrency):
    here = world(concurrency=concurrency)
    engines(here, {}, {}, {"weight": 3.0})
    here.run(10.0)
    assert here.most == {"a": concurrency}
    assert len(here.starts) == pytest.approx(100 * concurrency, rel=0.02)  # and no less


@pytest.mark.parametrize("limit", [{"delay": 0.05}, {"rate": "20/s"}])
def test_all_together_start_no_more_often_than_the_host_allows(limit):
    here = world(**limit)
    engines(here, {}, {}, {"priority": 1})
    here.run(10.0)
    starts = [when for when, _, _ in here.starts]
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 0.05 - 1e-9
    assert len(starts) == pytest.approx(200, abs=3)


def test_what_holds_is_the_strictest_of_the_service_and_of_the_batches_that_are_there():
    shared = Hosts(LimitSettings(per_host={"concurrency": 6, "rate": "100/s"}))
    strict = LimitSettings(hosts={"a": {"concurrency": 2}, "b": {"delay": 1.0}})
    one, two = Scheduler(LimitSettings(), shared), Scheduler(strict, shared)
    for name in "abc":
        one.add(leased((name, 1)), 0.0)
    first = all_at(one, 0.0)
    held = {host.name: (host.limits.concurrency, host.limits.interval) for host in shared}
    assert held == {"a": (6, 0.01), "b": (6, 0.01), "c": (6, 0.01)}
    for name in "abc":
        two.add(leased((name, 2)), 0.0)
    held = {host.name: (host.limits.concurrency, host.limits.interval) for host in shared}
    assert held == {"a": (2, 0.01), "b": (6, 1.0), "c": (6, 0.01)}
    assert names(all_at(two, 0.02)) == ["2", "2"]  # a, which has one slot left, and c
    for lease in first:
        one.done(lease, 0.0, 0.1)
    two.close(0.1)
    held = {host.name: (host.limits.concurrency, host.limits.interval) for host in shared}
    assert held.items() >= {"a": (6, 0.01)}.items()


def test_a_batch_can_not_loosen_what_the_service_allows():
    shared = Hosts(LimitSettings(per_host={"concurrency": 2, "delay": 0.5}))
    loose = LimitSettings(per_host={"concurrency": 50, "delay": 0.1, "rate": "9/s"}, adapt=False, breaker="off")
    scheduler = Scheduler(loose, shared)
    scheduler.add(leased(("a", 1)), 0.0)
    [host] = shared
    assert (host.limits.concurrency, host.limits.interval) == (2, 0.5)
    assert host.care.pace is not None
    assert host.care.rules is not None


def test_what_a_batch_leaves_to_its_default_is_not_what_it_asks_for():
    shared = Hosts(LimitSettings(per_host={"concurrency": 50}))
    scheduler = Scheduler(LimitSettings(hosts={"b": {"rate": "1/s"}}), shared)
    scheduler.add(leased(*(("a", n) for n in range(20)), ("b", 0)), 0.0)
    assert Counter(lease.job.host for lease in all_at(scheduler, 0.0)) == {"a": 20, "b": 1}
    assert {host.name: host.limits.concurrency for host in shared} == {"a": 50, "b": 50}


def test_of_a_host_that_is_not_known_no_more_is_leased_than_the_service_lets_start():
    shared = Hosts(LimitSettings(per_host={"delay": 10.0}))
    scheduler = Scheduler(LimitSettings(per_host={"concurrency": 50}), shared)
    assert scheduler.demand(0.0).per_host == 1
    shared.reconfigure(LimitSettings(per_host={"concurrency": 100}), 0.0)
    scheduler.reconfigure(LimitSettings(per_host={"concurrency": 50}), 0.0)
    assert scheduler.demand(0.0).per_host == scheduler.window // 2


# Turns


@pytest.mark.parametrize("limit", [{"concurrency": 1}, {"concurrency": 4}, {"rate": "50/s"}, {"delay": 0.02}])
@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 3, 4), (0.1, 0.3)])
def test_a_host_is_shared_by_weight(limit, weights):
    here = world(**limit)
    made = engines(here, *({"weight": weight} for weight in weights))
    here.run(60.0)
    due = [weight / sum(weights) for weight in weights]
    assert parts(here, made) == pytest.approx(due, abs=0.03)
    pace = 50 if limit.get("concurrency") is None else 10 * limit["concurrency"]
    assert len(here.starts) == pytest.approx(60 * pace, rel=0.02)


def test_a_batch_that_comes_later_has_its_part_from_then_on_and_no_more():
    here = world(concurrency=2)
    [first] = engines(here, {})
    here.run(100.0)
    [second] = engines(here, {})
    here.run(200.0)
    assert parts(here, [first, second], since=100.5) == pytest.approx([0.5, 0.5], abs=0.02)


def test_a_small_batch_waits_for_a_turn_and_not_for_a_large_batch():
    here = world(concurrency=1)
    engines(here, {})
    here.run(10.05)
    [small] = engines(here, {"jobs": {"a": 3}})
    here.run(11.0)
    assert small.ended == {"a": 3}


def test_higher_priority_goes_first_and_leaves_the_rest_to_others():
    here = world(concurrency=2)
    low, high = engines(here, {"weight": 100.0}, {"priority": 1, "jobs": {"a": 50}})
    here.run(3.0)
    assert high.ended == {"a": 50}
    since = here.starts[[engine for _, engine, _ in here.starts].index(high)][0]
    during = [engine for when, engine, _ in here.starts if since <= when < since + 2.0]
    assert during.count(low) <= 4
    here.run(5.0)
    assert low.ended["a"] == pytest.approx(100 - 50, abs=5)


def test_an_engine_that_can_start_nothing_is_not_waited_for():
    here = world(concurrency=1)
    one, two = engines(here, {}, {})
    here.run(1.0)
    two.full = True
    here.run(11.0)
    assert here.started(one, since=1.0) == pytest.approx(100, abs=1)
    two.full = False
    two.look()
    since = here.now
    here.run(21.0)
    assert parts(here, [one, two], since=since + 0.5) == pytest.approx([0.5, 0.5], abs=0.03)


def test_an_engine_that_does_not_take_its_turns_costs_others_little():
    here = World(LimitSettings(concurrency=1000, per_host=HostLimits(concurrency=1)))
    one, two = engines(here, {}, {}, serve=lambda _: 0.005)
    here.run(1.0)
    two.stuck = True
    here.run(21.0)
    starts = [when for when, _, _ in here.starts if when > 1.1]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert max(gaps) <= 0.005 + GRACE + 1e-9
    assert len(starts) >= 0.85 * 20 / 0.005 * (SULK - GRACE) / SULK
    two.stuck = False
    two.look()
    since = here.now
    here.run(31.0)
    assert parts(here, [one, two], since=since + 0.5) == pytest.approx([0.5, 0.5], abs=0.03)


def two_at(concurrency, now=0.0, **options):
    """Return two schedulers with five jobs each of one host, which come ``now``."""
    shared = Hosts(LimitSettings(per_host={"concurrency": concurrency}))
    both = Scheduler(LimitSettings(), shared), Scheduler(LimitSettings(), shared, **options)
    for scheduler in both:
        scheduler.add(leased(*(("a", n) for n in range(5))), now)
    return both


def test_who_is_listed_already_lets_a_higher_priority_go_first():
    low, high = two_at(1, now=100.0, priority=1)
    assert low.has_ready
    assert low.next(100.0) is None
    assert high.next(100.0) is not None


def test_who_is_not_next_waits_for_a_moment_and_not_longer():
    low, high = two_at(1, priority=1)
    assert low.next(GRACE * 0.9) is None
    assert low.wake_at() == pytest.approx(GRACE)
    assert low.next(GRACE) is not None
    assert high.next(GRACE) is None


def test_who_missed_a_turn_and_then_looks_in_vain_is_waited_for_again():
    low, high = two_at(1, priority=1)
    lease, now = low.next(GRACE), GRACE
    low.done(lease, now, now)
    lease = low.next(now)  # at once: nobody waits for who has just missed a turn
    assert lease is not None
    assert high.next(now) is None
    low.done(lease, now, now)
    assert low.next(now) is None
    assert high.next(now) is not None


def test_who_missed_a_turn_is_waited_for_again_after_a_while():
    low, _ = two_at(1, priority=1)
    lease, now = low.next(GRACE), GRACE + SULK
    low.done(lease, GRACE, now)
    assert low.next(now) is None


def test_nobody_lets_others_go_first_where_there_are_slots_for_all():
    low, _ = two_at(6, priority=1)
    assert low.next(0.0) is not None
    assert low.next(0.0) is None  # five are left for the other, which has as many jobs


def test_others_are_told_when_a_host_that_was_paused_answers():
    told = []

    class Told(Busy):
        def look_again(self, *, ready):
            told.append(ready)

    shared = Hosts(LimitSettings(breaker={"failures": 2, "pause": "1s"}))
    one, two = Scheduler(LimitSettings(), shared), Scheduler(LimitSettings(), shared, owner=Told())
    one.add(leased(("a", 1), ("a", 2)), 0.0)
    for lease in all_at(one, 0.0):
        one.badly(lease, failure(Sign.DOWN), 0.0, 0.0)
        one.done(lease, 0.0, 0.0)
    for scheduler in (one, two):
        scheduler.add(leased(*(("a", n) for n in range(9))), 1.0)
    [probe] = all_at(one, 1.0)
    assert all_at(two, 1.0) == []
    told.clear()
    one.well(probe, 1.0, 1.1, None)
    assert told == [True]
    assert two.next(1.1) is not None


def test_a_host_with_slots_for_all_has_nobody_wait():
    here = world(concurrency=8)
    one, two = engines(here, {"concurrency": 3}, {"concurrency": 3}, serve=lambda _: 0.01)
    here.run(5.0)
    assert [here.started(engine) for engine in (one, two)] == pytest.approx([1500, 1500], rel=0.01)


def test_batches_that_end_leave_their_part_to_others():
    here = world(concurrency=4)
    one, two = engines(here, {"jobs": {"a": 400}}, {"jobs": {"a": 40}})
    assert not here.run(440 * 0.1 / 4 + 0.2)
    assert (one.ended["a"], two.ended["a"]) == (400, 40)


def test_engines_that_share_some_hosts_are_as_fast_as_the_hosts_on_all_of_them():
    here = world(concurrency=2)
    jobs = [{"a": 200, "b": 200, "c": 200}, {"b": 200, "c": 200, "d": 200}, {"c": 200, "e": 200}]
    made = engines(here, *({"jobs": one} for one in jobs))
    assert not here.run(600 * 0.1 / 2 * 1.02)
    assert sum((engine.ended for engine in made), Counter()) == {"a": 200, "b": 400, "c": 600, "d": 200, "e": 200}


OWN = {
    "b": HostLimits(concurrency=1),
    "c": HostLimits(concurrency=3, rate="20/s"),
    "d": HostLimits(delay=0.1),
}
ENGINES = st.lists(
    st.fixed_dictionaries(
        {
            "weight": st.sampled_from([0.5, 1.0, 3.0]),
            "priority": st.sampled_from([0, 0, 0, 1]),
            "concurrency": st.integers(1, 12),
            "jobs": st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1),
            "limits": st.sampled_from(
                [{}, {}, {"per_host": {"concurrency": 2}}, {"hosts": {"a": {"rate": "30/s"}, "b": {"delay": 0.2}}}]
            ),
        }
    ),
    min_size=1,
    max_size=4,
)
TROUBLE = st.lists(
    st.tuples(
        st.floats(0.0, 3.0), st.integers(0, 3), st.sampled_from(["stuck", "full", "free", "rest", "badly", "limits"])
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(ENGINES, TROUBLE)
def test_whatever_happens_limits_hold_together_and_every_job_ends(options, trouble):
    here = World(LimitSettings(concurrency=1000, hosts=OWN))
    made = engines(here, *options)
    for when, index, what in sorted(trouble):
        here.run(when)
        disturb(here, made[index % len(made)], what)
    for engine in made:
        disturb(here, engine, "free")
    # A host may have been told to rest, or be asked for less; all of it must end by itself.
    for until in range(int(here.now) + 1, 400):
        check(here)
        if not here.run(float(until)):
            break
    for engine, own in zip(made, options, strict=True):
        assert sum(engine.ended.values()) == sum(engine.total.values()), own
        assert engine.running == 0
        engine.scheduler.close(1e6)
    assert [host.in_flight for host in here.hosts] == []


def disturb(here, engine, what):
    if what in ("stuck", "full"):
        setattr(engine, what, True)
    elif what == "free":
        engine.stuck = engine.full = False
        engine.look()
    elif what == "rest":
        engine.take_back(engine.scheduler.rest("a", here.now + 0.5, here.now))
    elif what == "limits":
        here.hosts.reconfigure(LimitSettings(concurrency=1000, hosts=OWN | {"a": HostLimits(concurrency=3)}), here.now)
    elif engine.on_the_way:
        engine.take_back(engine.scheduler.badly(engine.on_the_way[0], failure(Sign.REFUSED), here.now, here.now))


def check(here):
    assert here.most["b"] <= 1
    assert here.most["c"] <= 3
    assert here.most["a"] <= 8
    delayed = [when for when, _, name in here.starts if name == "d"]
    assert min((b - a for a, b in itertools.pairwise(delayed)), default=9.0) >= 0.1 - 1e-9
    for name in "abcd":
        assert here.in_flight[name] == sum(host.in_flight for host in here.hosts if host.name == name)


# What is learnt


def test_what_one_batch_learns_holds_for_the_others_at_once():
    shared = Hosts(LimitSettings())
    one, two = Scheduler(LimitSettings(), shared), Scheduler(LimitSettings(), shared, owner=Busy())
    one.add(leased(*(("a", n) for n in range(9))), 0.0)
    two.add(leased(*(("a", n) for n in range(9))), 0.0)
    [before] = {line.room for line in one.lines()}
    started = [one.next(0.1) for _ in range(4)]
    for lease in started:
        one.badly(lease, failure(Sign.REFUSED), 0.1, 1.0)
        one.done(lease, 0.1, 1.0)
    [host] = shared
    assert host.limits.concurrency < 8
    assert {line.room for line in host.lines} == {before * host.limits.concurrency // 8}
    assert len(all_at(two, 2.0)) == host.limits.concurrency


def test_a_host_that_was_found_down_is_left_alone_by_all_and_given_back():
    where = World(LimitSettings(breaker={"failures": 3, "pause": "30s"}))
    one, two = engines(where, {}, {}, jobs={"a": 20}, serve=lambda _: MANY)
    where.run(0.1)
    ours = [lease for lease in one.on_the_way if lease.job.host == "a"]
    back = [one.scheduler.badly(lease, failure(Sign.DOWN), 0.0, 1.0) for lease in ours[:3]]
    assert [bool(some) for some in back] == [False, False, True]
    assert two.scheduler.waiting == 0
    assert len(two.returned) > 0
    assert two.scheduler.demand(1.0).room["a"] == 0
    assert two.scheduler.some_in_trouble
    assert where.hosts.some_in_trouble


def test_a_crawl_delay_that_one_batch_was_told_of_is_kept_by_all():
    here = world()
    one, two = engines(here, {}, {}, jobs={"a": 200})
    one.scheduler.slow_down("a", 0.5, 0.0)
    here.run(10.0)
    starts = [when for when, _, _ in here.starts]
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 0.5 - 1e-9
    assert len(starts) == pytest.approx(20, abs=2)
    assert abs(here.started(one) - here.started(two)) <= 2


def test_retries_of_retries_are_counted_for_all_batches_together():
    shared = Hosts(LimitSettings())
    one, two = Scheduler(LimitSettings(), shared), Scheduler(LimitSettings(), shared)
    alone = Scheduler(LimitSettings())
    allowed = 0
    while alone.may_retry("a", 0.0):
        allowed += 1
    together = 0
    for scheduler in itertools.cycle((one, two)):
        if not scheduler.may_retry("a", 0.0):
            break
        together += 1
    assert together == allowed


def test_what_was_learnt_is_there_for_a_batch_that_comes_after_the_others():
    shared = Hosts(LimitSettings())
    one = Scheduler(LimitSettings(), shared)
    one.add(leased(*(("a", n) for n in range(8))), 0.0)
    for lease in all_at(one, 0.0):
        one.badly(lease, failure(Sign.REFUSED), 0.0, 1.0)
        one.done(lease, 0.0, 1.0)
    one.close(1.0)
    assert list(shared) == []
    two = Scheduler(LimitSettings(), shared)
    two.add(leased(*(("a", n) for n in range(20))), 2.0)
    assert 1 <= len(all_at(two, 2.0)) < 8


# Other limits while it runs


def test_new_limits_hold_at_once_and_nothing_is_dropped():
    here = world(concurrency=2)
    one, two = engines(here, {}, {}, jobs={"a": 1000, "b": 1000})
    here.run(1.0)
    here.hosts.reconfigure(LimitSettings(per_host={"concurrency": 6}, hosts={"b": {"rate": "10/s"}}), here.now)
    here.run(1.01)
    assert here.in_flight["a"] == 6
    here.run(3.0)
    late = [when for when, _, name in here.starts if name == "b" and when > 1.3]
    assert len(late) == pytest.approx(17, abs=2)
    here.hosts.reconfigure(LimitSettings(per_host={"concurrency": 1}), here.now)
    here.most.clear()
    here.run(3.3)
    here.most.clear()
    here.run(5.0)
    assert here.most == {"a": 1, "b": 1}
    held = sum(one.ended.values()) + one.running + one.scheduler.waiting + sum(one.left.values())
    assert held == 2000
    new = SimulatedEngine(here, LimitSettings(), {"c": 20})
    new.begin()
    assert here.run(5.01)
    assert here.in_flight["c"] == 1
    assert two.scheduler.in_flight + one.scheduler.in_flight == 2


def test_a_host_that_is_asked_for_less_stays_so_when_its_limits_change():
    shared = Hosts(LimitSettings())
    one = Scheduler(LimitSettings(), shared)
    one.add(leased(*(("a", n) for n in range(8)), *(("b", n) for n in range(8))), 0.0)
    for lease in all_at(one, 0.0):
        if lease.job.host == "a":
            one.badly(lease, failure(Sign.REFUSED), 0.0, 1.0)
    before = {host.name: host.limits.concurrency for host in shared}
    assert before["a"] < before["b"] == 8
    shared.reconfigure(LimitSettings(per_host={"concurrency": 20}), 1.0)
    assert {host.name: host.limits.concurrency for host in shared} == {"a": before["a"], "b": 20}
    shared.reconfigure(LimitSettings(adapt=False, breaker="off"), 1.0)
    assert {host.name: host.limits.concurrency for host in shared} == {"a": 8, "b": 8}
    shared.reconfigure(LimitSettings(per_host={"concurrency": 3}), 1.0)
    assert {host.name: host.limits.concurrency for host in shared} == {"a": 3, "b": 3}


def test_a_batch_may_have_other_limits_of_its_own_while_it_runs():
    shared = Hosts(LimitSettings())
    one, two = Scheduler(LimitSettings(), shared), Scheduler(LimitSettings(), shared, owner=Busy())
    for scheduler in (one, two):
        scheduler.add(leased(*(("a", n) for n in range(50))), 0.0)
    two.reconfigure(LimitSettings(per_host={"concurrency": 2}), 0.0)
    assert len(all_at(one, 0.1)) == 2
    two.reconfigure(LimitSettings(), 0.1)
    assert len(all_at(one, 0.2)) == 6
    alone = Scheduler(LimitSettings())
    alone.add(leased(*(("a", n) for n in range(50))), 0.0)
    alone.reconfigure(LimitSettings(concurrency=400, per_host={"concurrency": 20}), 0.0)
    assert (len(all_at(alone, 0.0)), alone.window) == (20, 3200)
    assert alone.demand(0.0).per_host == 3200 * 20 // 400
