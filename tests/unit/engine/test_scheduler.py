"""Who may start when, on a clock that tests move; and how long a whole batch takes, simulated."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.engine.simulated_batch import Simulation, job

from fetcher.engine.hosts import host as hosts_module
from fetcher.engine.hosts.care import Failure
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.engine.hosts.signs import Sign
from fetcher.engine.scheduler import Scheduler
from fetcher.engine.window import HORIZON
from fetcher.interfaces import Lease, Leased
from fetcher.testing import FakeClock


def make(slots=100, hosts=None, **per_host):
    limits = LimitSettings(concurrency=slots, per_host=HostLimits(**per_host), hosts=hosts or {})
    return Scheduler(limits)


def leased(*rows, backlog=None):
    """Return the leases of (host, name) or (host, name, priority)."""
    leases = [Lease(job(*row), f"{row[0]}-{row[1]}", 1) for row in rows]
    return Leased(leases, None, backlog or dict(Counter(lease.job.host for lease in leases)))


def all_at(scheduler, now):
    """Start everything that may be started now."""
    started = []
    while (lease := scheduler.next(now)) is not None:
        started.append(lease)
    return started


def names(leases):
    return [lease.job.id for lease in leases]


def hosts(leases):
    return [lease.job.host for lease in leases]


# Concurrency


def test_an_empty_scheduler_has_nothing_to_do():
    scheduler = make()
    assert scheduler.next(0.0) is None
    assert scheduler.wake_at() is None
    assert not scheduler.has_ready
    demand = scheduler.demand(0.0)
    assert (demand.limit, demand.room, demand.again) == (scheduler.window, {}, None)


def test_a_host_has_no_more_in_flight_than_its_limit():
    scheduler = make(hosts={"b": HostLimits(concurrency=1)}, concurrency=2)
    scheduler.add(leased(*(("a", n) for n in range(5)), *(("b", n) for n in range(5))), 0.0)
    first = all_at(scheduler, 0.0)
    assert Counter(hosts(first)) == {"a": 2, "b": 1}
    assert (scheduler.in_flight, scheduler.waiting) == (3, 7)
    assert scheduler.wake_at() is None  # no passing of time helps
    scheduler.done(first[0], 0.0, 1.0)
    assert hosts(all_at(scheduler, 1.0)) == [first[0].job.host]


# Time


def test_a_delay_is_kept_to_the_moment():
    clock, scheduler = FakeClock(), make(delay=0.05)
    scheduler.add(leased(*(("a", n) for n in range(4))), clock())
    begun, starts = clock(), []
    while len(starts) < 4:
        for _ in all_at(scheduler, clock()):
            starts.append(clock() - begun)  # noqa: PERF401  clearer
        wake_at = scheduler.wake_at()
        if wake_at is not None:
            assert scheduler.next(wake_at - 1e-6) is None
            clock.now = wake_at
    assert starts == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_a_rate_spaces_starts_evenly():
    clock, scheduler = FakeClock(), make(rate="20/s")
    scheduler.add(leased(*(("a", n) for n in range(5))), clock())
    begun, starts = clock(), []
    while len(starts) < 5:
        for lease in all_at(scheduler, clock()):
            starts.append(clock() - begun)
            scheduler.done(lease, clock(), clock())
        clock.now = scheduler.wake_at() or clock()
    assert starts == pytest.approx([n * 0.05 for n in range(5)])


def test_a_slow_answer_does_not_shift_the_next_start():
    scheduler = make(delay=0.1, concurrency=2)
    scheduler.add(leased(("a", 1), ("a", 2), ("a", 3)), 0.0)
    [first] = all_at(scheduler, 0.0)
    [second] = all_at(scheduler, 0.1)
    assert all_at(scheduler, 5.0) == []  # both slots are taken
    scheduler.done(first, 0.0, 5.0)
    assert names(all_at(scheduler, 5.0)) == ["3"]
    scheduler.done(second, 0.1, 5.5)


def test_a_host_at_rest_starts_nothing_until_then():
    scheduler = make()
    scheduler.add(leased(("a", 1), ("a", 2), ("b", 1)), 0.0)
    assert scheduler.rest("a", 0.1, 0.0) == []
    assert hosts(all_at(scheduler, 0.0)) == ["b"]
    assert scheduler.wake_at() == 0.1
    assert all_at(scheduler, 0.09) == []
    assert hosts(all_at(scheduler, 0.1)) == ["a", "a"]


def test_a_rest_is_never_cut_short():
    scheduler = make()
    scheduler.rest("a", 10.0, 0.0)
    scheduler.rest("a", 5.0, 0.0)
    scheduler.add(leased(("a", 1)), 0.0)
    assert all_at(scheduler, 9.9) == []
    assert names(all_at(scheduler, 10.0)) == ["1"]


def test_a_host_at_rest_for_long_gives_its_jobs_back():
    scheduler = make()
    scheduler.add(leased(("a", 1), ("a", 2), ("b", 1)), 0.0)
    running = scheduler.next(0.0)
    assert running.job.host == "a"
    assert names(scheduler.rest("a", 60.0, 0.0)) == ["2"]
    assert scheduler.waiting == 1
    assert hosts(all_at(scheduler, 0.0)) == ["b"]
    demand = scheduler.demand(0.0)
    assert demand.room["a"] == 0
    assert demand.again == pytest.approx(60.0 - HORIZON)
    scheduler.done(running, 0.0, 1.0)
    assert scheduler.demand(59.9).room["a"] > 0


# Order


def test_priority_decides_among_hosts_and_within_one():
    scheduler = make(concurrency=100)
    scheduler.add(
        leased(("a", 1), ("b", 2, 5), ("a", 3, 9), ("b", 4), ("c", 5, -1), backlog={"a": 9, "b": 1, "c": 50}),
        0,
    )
    assert names(all_at(scheduler, 0.0)) == ["3", "2", "1", "4", "5"]


def test_a_job_of_higher_priority_that_comes_later_goes_first_even_on_a_host_that_is_listed():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(3)), backlog={"a": 3}), 0.0)
    scheduler.add(leased(*((f"b{n}", f"b{n}", 5) for n in range(3))), 0.0)
    scheduler.add(leased(("a", "urgent", 9)), 0.0)
    assert names(all_at(scheduler, 0.0)) == ["urgent", "b0", "b1", "b2", "0", "1", "2"]


def test_the_host_with_the_most_to_come_goes_first():
    scheduler = make(concurrency=1)
    scheduler.add(leased(("a", 1), ("b", 2), ("c", 3), backlog={"a": 5, "b": 500, "c": 50}), 0.0)
    assert hosts(all_at(scheduler, 0.0)) == ["b", "c", "a"]


def test_a_backlog_that_grows_counts_at_once():
    scheduler = make()
    scheduler.add(leased(("a", 1), ("b", 2), backlog={"a": 1, "b": 10}), 0.0)
    scheduler.add(leased(("a", 3), backlog={"a": 1000}), 0.0)
    assert hosts(all_at(scheduler, 0.0)) == ["a", "a", "b"]


def test_what_waits_in_the_window_is_part_of_the_backlog():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(20))), 0.0)
    scheduler.add(leased(("a", 20), ("b", 1), backlog={"a": 1, "b": 5}), 0.0)
    assert hosts([scheduler.next(0.0)]) == ["a"]
    assert next(line.backlog for line in scheduler.lines() if line.host.name == "a") == 20


def test_order_within_a_host_and_a_priority_is_that_of_the_leases():
    scheduler = make(concurrency=1)
    scheduler.add(leased(*(("a", n) for n in range(5))), 0.0)
    scheduler.add(leased(*(("a", n) for n in range(5, 9))), 0.0)
    order = []
    while (lease := scheduler.next(0.0)) is not None:
        order.append(lease.job.id)
        scheduler.done(lease, 0.0, 0.0)
    assert order == [str(n) for n in range(9)]


# The window


def test_room_is_what_a_host_can_start_soon():
    scheduler = make(hosts={"slow": HostLimits(delay="10s"), "rated": HostLimits(rate="20/s")})
    demand = scheduler.demand(0.0)
    assert demand.per_host == scheduler.window * 8 // 100
    scheduler.add(leased(("slow", 1), ("rated", 1), ("a", 1), ("a", 2)), 0.0)
    demand = scheduler.demand(0.0)
    assert demand.limit == scheduler.window - 4
    assert demand.room == {"slow": 0, "rated": 4, "a": demand.per_host - 2}


def test_jobs_beyond_the_room_of_a_host_are_given_back():
    scheduler = make(hosts={"*.slow": HostLimits(delay="10s")})
    excess = scheduler.add(leased(*(("a.slow", n) for n in range(50)), ("b", 1)), 0.0)
    assert names(excess) == [str(n) for n in reversed(range(1, 50))]
    assert scheduler.waiting == 2
    assert names(all_at(scheduler, 0.0)) == ["0", "1"]


def test_full_hosts_leave_room_for_others_while_slots_are_free():
    """Whatever is in the window and may not start, jobs of others still fit in."""
    scheduler = make()
    for number in range(12):
        room = scheduler.demand(0.0).per_host
        scheduler.add(leased(*((f"h{number}", n) for n in range(room))), 0.0)
        started = all_at(scheduler, 0.0)
        scheduler.rest(f"h{number}", 100.0, 0.0)
        for lease in started:
            scheduler.done(lease, 0.0, 0.0)
        assert scheduler.demand(0.0).limit == scheduler.window


def test_hosts_forgotten_are_really_gone():
    scheduler = make()
    for number in range(5000):
        scheduler.add(leased((f"h{number}", 1)), float(number))
        scheduler.done(scheduler.next(float(number)), number, number + 0.5)
    assert list(scheduler.hosts()) == []
    assert list(scheduler._shared) == []
    assert len(scheduler._listing) == 0


def test_a_host_is_remembered_while_it_has_a_pause_to_keep():
    scheduler = make(delay=5.0)
    scheduler.add(leased(("a", 1)), 0.0)
    scheduler.done(scheduler.next(0.0), 0.0, 0.1)
    scheduler.add(leased(("a", 2)), 1.0)
    assert scheduler.next(4.9) is None
    assert scheduler.next(5.0) is not None


def test_a_rate_is_kept_even_if_jobs_trickle_in_one_by_one():
    scheduler, started = make(rate="50/s"), 0
    for number in range(1000):
        now = number / 1000
        scheduler.add(leased(("a", number)), now)
        for lease in all_at(scheduler, now):
            started += 1
            scheduler.done(lease, now, now)
        scheduler.demand(now)
    assert started == pytest.approx(50, abs=2)


def test_a_host_without_room_now_is_leased_again_before_it_may_be_asked():
    scheduler = make(delay=10.0)
    scheduler.add(leased(("a", 1)), 0.0)
    scheduler.done(scheduler.next(0.0), 0.0, 0.1)
    demand = scheduler.demand(0.1)
    assert (demand.room, scheduler.wake_at()) == ({"a": 0}, None)
    assert demand.again == pytest.approx(10.0 - HORIZON - 0.1)
    assert scheduler.demand(0.1 + demand.again).room == {"a": 1}


def test_a_closed_scheduler_has_nothing_left_but_the_pauses_of_its_hosts():
    shared = Hosts(LimitSettings(hosts={"b": HostLimits(delay=5.0)}))
    scheduler = Scheduler(LimitSettings(), shared)
    scheduler.add(leased(("a", 1), ("a", 2), ("b", 3), ("b", 4)), 0.0)
    for lease in all_at(scheduler, 0.0):
        scheduler.done(lease, 0.0, 1.0)
    scheduler.add(leased(("a", 5)), 1.0)
    scheduler.close(1.0)
    scheduler.close(1.0)
    assert (scheduler.waiting, all_at(scheduler, 9.0), list(scheduler.hosts())) == (0, [], [])
    assert [host.name for host in shared] == ["b"]
    other = Scheduler(LimitSettings(), shared)
    other.add(leased(("b", 6)), 2.0)
    assert all_at(other, 4.9) == []
    assert names(all_at(other, 5.0)) == ["6"]
    Scheduler(LimitSettings(), shared).close(99.0)
    assert [host.name for host in shared] == ["b"]  # it has a job in flight


def test_entries_that_are_out_of_date_do_not_pile_up():
    scheduler = make(concurrency=1)
    scheduler.add(leased(("idle", 0, -1)), 0.0)
    scheduler.add(leased(("busy", 0)), 0.0)
    for number in range(1, 10_000):
        scheduler.add(leased(("idle", number, -1), ("busy", number)), 0.0)
        scheduler.done(scheduler.next(0.0), 0.0, 0.0)
        scheduler.demand(0.0)
        for line in scheduler.lines():
            while len(line.waiting) > 2:
                line.waiting.pop()
                scheduler.waiting -= 1
    assert len(scheduler._listing) < 3000


# What is learnt about hosts


def failure(sign, first=True):
    return Failure(sign, None, first)


def refuse(scheduler, leases, started, now):
    for lease in leases:
        assert scheduler.badly(lease, failure(Sign.REFUSED), started, now) == []
        scheduler.done(lease, started, now)


def test_a_host_that_refuses_is_asked_for_less_and_the_others_are_not():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(20)), *(("b", n) for n in range(20))), 0.0)
    started = all_at(scheduler, 0.0)
    refuse(scheduler, [lease for lease in started if lease.job.host == "a"], 0.0, 1.0)
    again = Counter(hosts(all_at(scheduler, 1.0)))
    assert again == {"a": 5}  # all slots of b are taken
    for lease in started:
        if lease.job.host == "b":
            scheduler.well(lease, 0.0, 1.0, 0.1)
            scheduler.done(lease, 0.0, 1.0)
    assert Counter(hosts(all_at(scheduler, 1.0))) == {"b": 8}


def test_a_host_that_is_listed_when_its_limit_falls_starts_no_more():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(20))), 0.0)
    started = [scheduler.next(0.0) for _ in range(7)]
    assert scheduler.has_ready
    scheduler.badly(started[0], failure(Sign.REFUSED), 0.0, 1.0)
    assert all_at(scheduler, 1.0) == []


def test_the_room_of_a_host_follows_its_limit():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(8))), 0.0)
    before = scheduler.demand(0.0).room["a"]
    started = all_at(scheduler, 0.0)
    scheduler.badly(started[0], failure(Sign.REFUSED), 0.0, 1.0)
    assert scheduler.demand(1.0).room["a"] == pytest.approx(5 / 8 * (before + 8), abs=1)


def test_a_limit_that_does_not_adapt_stays():
    scheduler = Scheduler(LimitSettings(adapt=False))
    scheduler.add(leased(*(("a", n) for n in range(20))), 0.0)
    refuse(scheduler, all_at(scheduler, 0.0), 0.0, 1.0)
    assert len(all_at(scheduler, 1.0)) == 8


def test_a_host_that_is_paused_gives_its_jobs_back_and_is_probed_with_one_request_after_that():
    scheduler = Scheduler(LimitSettings(breaker={"failures": 3, "pause": "30s"}))
    scheduler.add(leased(*(("a", n) for n in range(20)), ("b", 1)), 0.0)
    started = [lease for lease in all_at(scheduler, 0.0) if lease.job.host == "a"]
    back = [scheduler.badly(lease, failure(Sign.DOWN), 0.0, 1.0) for lease in started[:3]]
    assert [len(some) for some in back] == [0, 0, 12]
    assert scheduler.waiting == 0
    assert scheduler.demand(1.0).room["a"] == 0
    for lease in started:
        scheduler.done(lease, 0.0, 1.0)
    scheduler.add(leased(("a", 30), ("a", 31)), 2.0)
    assert all_at(scheduler, 30.9) == []
    [probe] = all_at(scheduler, 31.0)
    scheduler.well(probe, 31.0, 31.1, None)
    scheduler.done(probe, 31.0, 31.1)
    assert len(all_at(scheduler, 31.1)) == 1


def test_what_was_learnt_is_remembered_while_a_host_has_no_jobs():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(8))), 0.0)
    refuse(scheduler, all_at(scheduler, 0.0), 0.0, 1.0)
    scheduler.demand(1.0)
    assert list(scheduler.hosts()) == []
    scheduler.add(leased(*(("a", n) for n in range(20))), 2.0)
    assert len(all_at(scheduler, 2.0)) == 5


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(hosts_module, "_MOST_REMEMBERED", 10)
    scheduler = make()
    for number in range(50):
        scheduler.add(leased((f"h{number}", 1)), 0.0)
        refuse(scheduler, [scheduler.next(0.0)], 0.0, 1.0)
    assert list(scheduler._shared._remembered) == [f"h{number}" for number in range(40, 50)]


def test_nothing_is_remembered_of_a_host_without_trouble():
    scheduler = make()
    scheduler.add(leased(("a", 1)), 0.0)
    lease = scheduler.next(0.0)
    scheduler.well(lease, 0.0, 1.0, 1.0)
    scheduler.done(lease, 0.0, 1.0)
    assert not scheduler._shared._remembered


def test_a_crawl_delay_holds_from_then_on_and_over_a_break():
    scheduler = make()
    scheduler.add(leased(*(("a", n) for n in range(3))), 0.0)
    first = scheduler.next(0.0)
    scheduler.slow_down("a", 5.0, 1.0)
    scheduler.done(first, 0.0, 1.0)
    assert all_at(scheduler, 5.9) == []
    [second] = all_at(scheduler, 6.0)
    scheduler.done(second, 6.0, 6.1)
    [third] = all_at(scheduler, 11.0)
    scheduler.done(third, 11.0, 11.1)
    scheduler.demand(100.0)
    assert list(scheduler.hosts()) == []
    scheduler.add(leased(("a", 3)), 100.0)
    assert len(all_at(scheduler, 100.0)) == 1
    scheduler.add(leased(("a", 4)), 100.0)
    assert scheduler.wake_at() == 105.0


def test_a_crawl_delay_is_cut_to_a_minute_and_never_shortens_a_delay():
    scheduler = make(hosts={"b": HostLimits(delay="90s")})
    for host in "ab":
        scheduler.slow_down(host, 1e9, 0.0)
    assert {host.name: host.limits.interval for host in scheduler.hosts()} == {"a": 60.0, "b": 90.0}


def test_slow_answers_of_a_strained_process_say_nothing():
    reduced = {}
    for strained in (False, True):
        scheduler, now, reduced[strained] = make(), 0.0, False
        scheduler.add(leased(("a", "held")), now)
        scheduler.next(now)  # so that the host stays in the window
        for number in range(400):
            now += 0.2
            scheduler.strained = strained and number > 100
            scheduler.add(leased(("a", number)), now)
            lease = scheduler.next(now)
            scheduler.well(lease, now, now, 0.1 if number < 100 else 3.0)
            scheduler.done(lease, now, now)
            reduced[strained] |= any(host.limits.concurrency < 8 for host in scheduler.hosts())
    assert reduced == {False: True, True: False}


# Any history at all

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 1)), max_size=6)),
        st.tuples(st.just("next"), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 9)),
        st.tuples(st.just("badly"), st.tuples(st.integers(0, 9), st.sampled_from(Sign))),
        st.tuples(st.just("rest"), st.tuples(st.sampled_from("abcd"), st.floats(0, 2))),
        st.tuples(st.just("wait"), st.floats(0, 1)),
        st.tuples(st.just("demand"), st.just(0)),
    ),
    max_size=80,
)
OWN = {
    "b": HostLimits(concurrency=1),
    "c": HostLimits(concurrency=3, rate="10/s"),
    "d": HostLimits(delay=0.5),
}


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_happens_limits_hold_and_no_job_is_lost(steps):  # noqa: C901  a step of each kind
    scheduler, number = make(concurrency=4, hosts=OWN), 0
    now, waiting, running, last, until = 0.0, {}, [], {}, {}
    for step, value in [*steps, *[("drain", 0)]]:
        if step == "add":
            rows = [(host, number + n, priority) for n, (host, priority) in enumerate(value)]
            number += len(rows)
            some = leased(*rows)
            waiting |= {lease.job.id: lease for lease in some.leases}
            for lease in scheduler.add(some, now):
                del waiting[lease.job.id]
        elif step == "next" and (lease := scheduler.next(now)) is not None:
            check_start(lease, now, running, last, until)
            best = max(one.job.priority for one in waiting.values() if one.job.host == lease.job.host)
            assert lease.job.priority == best
            del waiting[lease.job.id]
            running.append((lease, now))
        elif step == "done" and running:
            lease, started = running.pop(value % len(running))
            scheduler.done(lease, started, now)
        elif step == "badly" and running:
            lease, started = running.pop(value[0] % len(running))
            end_badly(scheduler, lease, value[1], started, now, waiting)
        elif step == "rest":
            until[value[0]] = max(until.get(value[0], 0.0), now + value[1])
            for lease in scheduler.rest(value[0], now + value[1], now):
                del waiting[lease.job.id]
        elif step == "wait":
            now += value
        elif step == "demand":
            demand = scheduler.demand(now)
            assert demand.limit == scheduler.window - len(waiting)
        assert (scheduler.waiting, scheduler.in_flight) == (len(waiting), len(running))
    finish(scheduler, now, waiting, running)


def end_badly(scheduler, lease, sign, started, now, waiting):
    if sign is Sign.ANSWERED:
        scheduler.well(lease, started, now, now - started)
    else:
        for back in scheduler.badly(lease, failure(sign), started, now):
            del waiting[back.job.id]
    scheduler.done(lease, started, now)


def check_start(lease, now, running, last, until):
    host = lease.job.host
    limits = OWN.get(host, HostLimits())
    assert sum(one.job.host == host for one, _ in running) < limits.concurrency
    assert now >= until.get(host, 0.0)
    if limits.delay:
        assert now >= last.get(host, -9.0) + limits.delay - 1e-9
    last[host] = now


def finish(scheduler, now, waiting, running):
    """Let time pass until nothing is left; it must not take more than the limits ask for."""
    while waiting or running:
        while (lease := scheduler.next(now)) is not None:
            del waiting[lease.job.id]
            running.append((lease, now))
        for lease, started in running:
            scheduler.done(lease, started, now)
        running.clear()
        if waiting and not scheduler.has_ready:
            assert scheduler.wake_at() is not None
            now = max(now, scheduler.wake_at())
        assert now < 1000
    scheduler.demand(now + 1000)
    assert list(scheduler.hosts()) == []


# How long a whole batch takes: MemoryQueue and Scheduler together, on a heap of events instead of a loop


def zipf(steepness=1.0, count=10_000, hosts=1000, seed=1):
    """Return jobs in random order, at least one of each host."""
    chance = random.Random(seed)
    weights = [1 / (rank + 1) ** steepness for rank in range(hosts)]
    picked = [*range(hosts), *chance.choices(range(hosts), weights, k=count - hosts)]
    chance.shuffle(picked)
    return [job(f"h{host:04}.test", number) for number, host in enumerate(picked)]


def ordered(jobs, order):
    if order == "random":
        return jobs
    size = Counter(one.host for one in jobs)
    return sorted(jobs, key=lambda one: (size[one.host], one.host), reverse=order == "largest first")


def service(jobs, kind):
    chance = random.Random(2)
    times = {one.id: 0.1 if kind == "constant" else chance.expovariate(10) for one in jobs}
    return lambda one: times[one.id]


LIMITS = LimitSettings(concurrency=100, per_host=HostLimits(concurrency=2))


def ratio(jobs, serve, read_ahead=None):
    """Return the makespan in terms of the shortest that could be: of all work, or of the largest host's."""
    simulation = Simulation(jobs, LIMITS, serve, read_ahead)
    makespan = simulation.run()
    assert len(simulation.starts) == len(jobs)
    assert simulation.most <= LIMITS.concurrency
    assert max(simulation.most_of.values()) <= LIMITS.per_host.concurrency
    work = Counter()
    for one in jobs:
        work[one.host] += serve(one)
    return makespan / max(work.total() / LIMITS.concurrency, max(work.values()) / LIMITS.per_host.concurrency)


@pytest.mark.parametrize("order", ["random", "smallest first", "largest first"])
@pytest.mark.parametrize("kind", ["constant", "random"])
@pytest.mark.parametrize("steepness", [0.6, 0.8, 1.0, 1.3])
def test_a_batch_takes_no_more_than_a_twentieth_longer_than_it_must(order, kind, steepness):
    jobs = ordered(zipf(steepness), order)
    assert ratio(jobs, service(jobs, kind)) <= 1.05


# What holds if only so many jobs are read ahead (Queue.capacity; by default 100,000 in memory, 2,000,000
# in SQLite): nobody can give the largest host a head start before its jobs have been read. In random
# order the first few hundred jobs show already which hosts are large. Sorted, a window shows only so
# many hosts at once; at worst, the largest is read last, and its jobs are done after all the others.
@pytest.mark.parametrize(
    ("order", "read_ahead", "most"),
    [
        ("random", 5000, 1.05),
        ("random", 1000, 1.05),
        ("random", 300, 1.05),
        ("largest first", 5000, 1.05),
        ("largest first", 2000, 1.05),
        ("largest first", 1000, 1.05),
        ("smallest first", 9000, 1.05),
        ("smallest first", 5000, 1.10),
        ("smallest first", 2000, 1.20),
        ("smallest first", 1000, 1.35),
    ],
)
def test_reading_a_bounded_distance_ahead_costs_what_it_must(order, read_ahead, most):
    jobs = ordered(zipf(), order)
    assert ratio(jobs, service(jobs, "random"), read_ahead) <= most


def test_a_rate_limited_host_neither_starves_nor_is_starved():
    """One host has few starts a second, the others need all slots, and all of them fit into the window."""
    limits = LimitSettings(
        concurrency=10,
        per_host=HostLimits(concurrency=10),
        hosts={"slow.test": HostLimits(rate="5/s", concurrency=10)},
    )
    jobs = [job("slow.test", n) for n in range(50)] + [job(f"h{n % 5}.test", 50 + n) for n in range(950)]
    simulation = Simulation(jobs, limits, lambda _: 0.1)
    makespan = simulation.run()
    slow = [when for when, host in simulation.starts if host == "slow.test"]
    assert [b - a for a, b in zip(slow[1:], slow[2:], strict=False)] == pytest.approx(  # noqa: RUF007  not neighbours of the whole
        [0.2] * 48, abs=0.1 + 1e-6
    )
    assert slow[-1] == pytest.approx(49 * 0.2, abs=0.3)
    others = max(when for when, host in simulation.starts if host != "slow.test")
    assert makespan <= 1.05 * max(1000 * 0.1 / 10, 49 * 0.2 + 0.1)
    assert others <= 1000 * 0.1 / 10


def test_many_rate_limited_hosts_leave_the_window_to_others():
    """Jobs that can not start soon are not held, so more hosts than the window has places get a turn."""
    limits = LimitSettings(
        concurrency=100, per_host=HostLimits(delay="10s"), hosts={"fast.test": HostLimits(concurrency=100)}
    )
    slow = [job(f"h{n % 3000}.test", n) for n in range(9000)]
    jobs = [*slow, *(job("fast.test", 9000 + n) for n in range(2000))]
    simulation = Simulation(jobs, limits, lambda _: 0.1)
    assert simulation.run() == pytest.approx(20.0, rel=0.3)
    fast = max(when for when, host in simulation.starts if host == "fast.test")
    assert fast < 20


def test_hosts_told_to_rest_leave_the_window_to_others():
    limits = LimitSettings(concurrency=100)
    jobs = [job(f"large{n % 30}", n) for n in range(9000)] + [job(f"small{n}", 9000 + n) for n in range(1000)]
    simulation = Simulation(jobs, limits, lambda _: 0.1)
    simulation.feed()
    for _ in range(10):
        simulation.lease_at = None
        simulation.lease()
        for lease in all_at(simulation.scheduler, 0.0):
            if lease.job.host.startswith("small"):
                return
            simulation.scheduler.rest(lease.job.host, 60.0, 0.0)
            simulation.scheduler.done(lease, 0.0, 0.0)
    raise AssertionError("no small host was ever asked")
