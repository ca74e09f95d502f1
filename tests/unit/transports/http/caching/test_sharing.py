from __future__ import annotations

import pytest
from aiohttp import ClientTimeout

from fetcher.transports.http.caching.sharing import Sharing
from fetcher.transports.http.exchange import Hop, Lane

PRIVATE = frozenset({"authorization", "x-api-key"})


def hop(url: str = "http://a.test/", headers=(), lane: Lane | None = None) -> Hop:
    return Hop("GET", url, list(headers), None, ClientTimeout(), lane)


def test_what_says_nothing_of_its_user_is_shared():
    assert Sharing(PRIVATE).allows(hop(headers=[("Accept", "*/*")]))
    assert Sharing(PRIVATE).allows(hop(lane=Lane(verified=True)))


@pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION", "X-Api-Key"])
def test_a_private_header_is_not(name):
    assert not Sharing(PRIVATE).allows(hop(headers=[("Accept", "*/*"), (name, "x")]))


def test_an_unverified_lane_is_not():
    assert not Sharing(PRIVATE).allows(hop(lane=Lane(verified=False)))


def test_nothing_is_with_cookies():
    assert not Sharing(PRIVATE, cookies=True).allows(hop())


def test_a_certificate_is_shown_over_https_alone():
    sharing = Sharing(PRIVATE, certificate=True)
    assert sharing.allows(hop("http://a.test/"))
    assert not sharing.allows(hop("https://a.test/"))


@pytest.mark.parametrize(
    ("pattern", "url", "shared"),
    [
        ("a.test", "http://a.test/", False),
        ("A.test", "http://a.test./", False),
        ("a.test", "https://a.test:8443/x", False),
        ("a.test", "http://b.test/?a.test", True),
        ("*.test", "http://a.test/", False),
        ("*.test", "http://test.example/", True),
        # A port in a pattern narrows down who gets credentials. Here it counts for all.
        ("a.test:8443", "https://a.test/", False),
        ("::1", "http://[::1]:80/", False),
        ("[::1]", "http://[::1]/", False),
        ("[::1]:80", "http://[::1]/", False),
    ],
)
def test_hosts_with_credentials_are_not(pattern, url, shared):
    assert Sharing(PRIVATE, [pattern]).allows(hop(url)) is shared
