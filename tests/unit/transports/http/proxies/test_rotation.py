from __future__ import annotations

import pytest
from yarl import URL

from fetcher.transports.http.exchange import USUAL_LANE, Lane
from fetcher.transports.http.proxies.addresses import ProxyAddress
from fetcher.transports.http.proxies.rotation import Proxy, Rotation


def proxies(count: int) -> list[Proxy]:
    return [Proxy(ProxyAddress(URL(f"http://p{number}:80"))) for number in range(count)]


def test_turns_are_taken():
    rotation = Rotation(proxies(3))
    assert [rotation.proxies.index(rotation.next(0.0)) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_the_least_used_is_taken_and_turns_among_equals():
    rotation = Rotation(proxies(3), "least_used")
    for proxy, waiting in zip(rotation.proxies, (2, 1, 1), strict=True):
        proxy.waiting = waiting
    assert [rotation.proxies.index(rotation.next(0.0)) for _ in range(4)] == [1, 2, 1, 2]


def test_one_that_fails_rests_longer_each_time_and_not_for_ever():
    rotation = Rotation(proxies(2), max_rest=5.0)
    first, second = rotation.proxies
    now, rests = 100.0, []
    for _ in range(5):
        rotation.failed(first, now)
        assert rotation.next(now) is second
        rests.append(first.resting_until - now)
        now = first.resting_until
    assert rests == [1.0, 2.0, 4.0, 5.0, 5.0]
    rotation.worked(first)
    rotation.failed(first, now)
    assert first.resting_until - now == 1.0


def test_one_request_finds_out_whether_a_proxy_is_back():
    rotation = Rotation(proxies(2))
    first, second = rotation.proxies
    rotation.failed(first, 100.0)
    assert rotation.next(101.0) is first
    first.waiting = 1
    assert [rotation.next(101.0) for _ in range(2)] == [second, second]
    rotation.worked(first)
    assert rotation.next(101.0) is first
    # Where there is no other, nobody waits for that.
    alone = Rotation([first])
    alone.failed(first, 100.0)
    assert alone.next(101.0) is first


def test_requests_that_fail_together_count_once():
    rotation = Rotation(proxies(1))
    for _ in range(100):
        rotation.failed(rotation.proxies[0], 100.0)
    assert rotation.rest(100.0) == 1.0
    assert rotation.rest(200.0) == 0.0


def test_none_is_left_while_all_rest():
    rotation = Rotation(proxies(2))
    for proxy in rotation.proxies:
        rotation.failed(proxy, 100.0)
    assert rotation.next(100.5) is None
    assert rotation.next(101.0) is not None


def test_a_lane_is_made_once_for_each_way_to_check_certificates():
    proxy = Proxy(ProxyAddress(URL("http://p:80"), "user", "secret"))
    lane = proxy.lane(USUAL_LANE)
    unverified = proxy.lane(Lane(verified=False))
    assert proxy.lane(Lane()) is lane
    assert (lane.verified, unverified.verified) == (True, False)
    assert lane.proxy == URL("http://p:80")
    assert "secret" not in repr(lane)
    assert lane.proxy_headers[0][1] not in repr(lane)
    # The way of a hop that was redirected is no reason for another.
    assert proxy.lane(lane) is lane


@pytest.mark.parametrize(
    ("lane", "direct"), [(Lane(proxy=URL("http://p")), None), (Lane(verified=False), Lane(verified=False))]
)
def test_a_lane_without_its_proxy(lane, direct):
    assert lane.direct() == direct
