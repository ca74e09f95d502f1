"""What is shown of batches, hosts and sinks: bounded, without secrets, and adding up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fetcher.engine.hosts.breaker import Breaker
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import HostLimits, LimitSettings
from fetcher.model import Outcome
from fetcher.pipeline.outlet import Outlet, Plan, Trouble
from fetcher.pipeline.tally import Kind, Tally
from fetcher.service.observing import views


def batch(tally=None, added=0, **engine):
    """Return what is looked at of a batch."""
    known = {"added": added, "fed": True, "growing": False, "running": {}, "duplicates": 0} | engine
    return SimpleNamespace(engine=SimpleNamespace(delivery=SimpleNamespace(tally=tally or Tally()), **known))


def made(count=1, concurrency=8, **limits):
    """Return so many hosts."""
    hosts = Hosts(LimitSettings(per_host=HostLimits(concurrency=concurrency, **limits)))
    return hosts, [hosts.host(f"h{n}.test") for n in range(count)]


# Progress


def test_jobs_are_always_the_outcomes_and_what_is_left():
    tally = Tally(outcomes={Outcome.OK: 5, Outcome.FAILED: 2})
    found = views.progress(batch(tally, added=20))
    assert (found.jobs, found.left, found.outcomes) == (20, 13, {"ok": 5, "failed": 2})
    # At a moment at which more have been counted than are known to have been added, too.
    found = views.progress(batch(tally, added=3))
    assert found.jobs == sum(found.outcomes.values()) + found.left


@pytest.mark.parametrize(
    ("growing", "rate", "eta"),
    [(False, 2.0, 5.0), (True, 2.0, None), (False, 0.0, None)],
    ids=["told", "reading", "stuck"],
)
def test_the_end_is_told_once_all_is_there_and_something_moves(growing, rate, eta):
    assert views.progress(batch(added=10, growing=growing), rate).eta == eta


def test_the_most_frequent_kinds_are_shown_without_passwords_and_cut():
    kinds = {f"kind_{n}": Kind(n, f"http://user:secret@h.test/{'x' * 5000}", "y" * 5000) for n in range(100)}
    found = views.kinds(Tally(kinds=kinds))
    assert [kind.count for kind in found] == list(range(99, 99 - views.MOST_KINDS, -1))
    assert "secret" not in found[0].example_url
    assert max(len(found[0].example_url), len(found[0].example_message)) <= 600


def test_what_utf_8_can_not_write_keeps_nobody_from_looking():
    tally = Tally(kinds={"bad_redirect": Kind(1, "http://h.test/\ud800", "points to \udce4")})
    [kind] = views.kinds(tally)
    assert (kind.example_url, kind.example_message) == ("http://h.test/?", "points to ?")
    assert kind.model_dump_json()


def test_percentiles_of_several_histograms_are_those_of_all_together():
    fast, slow = {0: 98}, {100: 2}
    together = views.latency(fast, slow)
    assert together == views.latency({0: 98, 100: 2})
    assert together.p50 < together.p99
    assert views.latency({}).p50 is None


# Hosts


def test_of_very_many_hosts_the_busiest_and_those_in_trouble_are_shown():
    _, hosts = made(5000)
    for number, host in enumerate(hosts):
        host.in_flight = 1 + number % 5
    hosts[10].in_flight = 8
    hosts[20].in_flight = 0
    hosts[20].care.breakers[("http", "h20.test", 80)] = Breaker()
    hosts[20].care.paused = True
    hosts[30].in_flight = 0
    hosts[30].free_at = 60.0
    found = views.host_views(hosts, 0.0)
    assert len(found) == views.MOST_HOSTS
    assert found[0].host == "h10.test"
    by_name = {host.host: host for host in found}
    assert by_name["h20.test"].breaker == "paused"
    assert by_name["h30.test"].rests == 60.0


def test_many_hosts_in_trouble_leave_room_for_busy_ones():
    _, hosts = made(200)
    for host in hosts[:100]:
        host.free_at = 60.0
    for host in hosts[100:]:
        host.in_flight = 3
    found = views.host_views(hosts, 0.0)
    assert sum(host.in_flight > 0 for host in found) == sum(host.rests > 0 for host in found) == views.MOST_HOSTS // 2


def test_a_host_that_was_given_up_shows_its_configured_limit():
    hosts, [host] = made()
    host.care.given_up = True
    hosts.adjust(host, 0.0)
    found = views.host_view(host, 0.0)
    assert (found.breaker, found.limit, found.configured) == ("down", 8, 8)


def test_rows_without_a_host_are_no_host():
    hosts, _ = made()
    hosts.host("")
    assert [host.host for host in views.host_views(hosts, 0.0)] == ["h0.test"]


# Sinks


def test_sinks_in_trouble_come_first_and_no_more_than_can_be_looked_at():
    outlets = [(f"b{n}", Outlet(f"sink:{n}", SimpleNamespace(), Plan(title=f"file-{n}"))) for n in range(200)]
    outlets[150][1].trouble = Trouble(10.0, "no space left", 3)
    outlets[70][1].lag = 9
    found = views.sink_views(outlets, 25.0)
    assert len(found) == views.MOST_SINKS
    assert (found[0].sink, found[0].trouble, found[0].trouble_seconds) == ("file-150", "no space left", 15.0)
    assert (found[1].batch, found[1].lag) == ("b70", 9)
