from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.exchange import Hop, Lane
from fetcher.transports.http.redirects import RedirectPolicy
from fetcher.transports.http.robots import obeying as robots
from fetcher.transports.http.robots.obeying import UNREACHABLE_FOR, Memory, RobotsExchange, Verdict
from fetcher.transports.http.robots.rules import ALL_ALLOWED, Rules
from fetcher.transports.http.tracing import HopTrace

DAY = 86_400.0
FORBIDDEN = b"User-agent: *\nDisallow: /\n"


class Clock:
    """Time that stands still unless it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """A response that has arrived."""

    def __init__(self, status: int, body: bytes, fields: dict[str, str]) -> None:
        self.status = status
        self.fields = CIMultiDict(fields)
        self.headers = list(fields.items())
        self._body = body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        pass


class Web:
    """The inner exchange: ``robots`` is what every robots.txt is answered with."""

    def __init__(self) -> None:
        self.robots: Any = (200, b"", {})
        self.hops: list[Hop] = []

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        self.hops.append(hop)
        if not hop.url.endswith("/robots.txt"):
            return Answer(200, b"ok", {})
        if isinstance(self.robots, Exception):
            raise self.robots
        return Answer(*self.robots)

    @property
    def asked(self) -> int:
        return sum(hop.url.endswith("/robots.txt") for hop in self.hops)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def web():
    return Web()


@pytest.fixture
def obeying(web, clock, monkeypatch):
    monkeypatch.setattr(robots, "_PAUSES", (0.0, 0.0))
    return RobotsExchange(web, "fetcher/0.1", RedirectPolicy(), 10.0, clock)


def hop(url: str = "http://a.test/x", lane: Lane | None = None) -> Hop:
    return Hop("GET", url, [], None, aiohttp.ClientTimeout(), lane)


async def kind(exchange: RobotsExchange, **fields: Any) -> ErrorKind | None:
    try:
        await exchange.send(hop(**fields), HopTrace())
    except FetchError as error:
        return error.kind
    return None


@pytest.mark.parametrize(
    ("fields", "seconds"), [({}, DAY), ({"Cache-Control": "max-age=600"}, 600.0), ({"cache-control": "no-store"}, 60.0)]
)
async def test_it_is_asked_for_again_when_it_is_out_of_date(obeying, web, clock, fields, seconds):
    web.robots = (200, FORBIDDEN, fields)
    assert await kind(obeying) is ErrorKind.ROBOTS_DISALLOWED
    clock.now += seconds - 1
    web.robots = (404, b"", fields)
    assert await kind(obeying) is ErrorKind.ROBOTS_DISALLOWED
    clock.now += 1
    assert await kind(obeying) is None
    assert web.asked == 2


async def test_a_failure_is_remembered_for_a_while(obeying, web, clock):
    web.robots = (503, b"", {})
    assert await kind(obeying) is ErrorKind.ROBOTS_UNREACHABLE
    clock.now += UNREACHABLE_FOR - 1
    assert await kind(obeying) is ErrorKind.ROBOTS_UNREACHABLE
    assert web.asked == 3
    clock.now += 1
    web.robots = (200, b"", {})
    assert await kind(obeying) is None
    assert web.asked == 4


async def test_what_was_known_holds_while_it_can_not_be_had(obeying, web, clock):
    web.robots = (200, b"User-agent: *\nDisallow: /y", {})
    assert await kind(obeying) is None
    clock.now += DAY
    web.robots = FetchError(ErrorKind.CONNECT_REFUSED, "refused")
    assert await kind(obeying) is None
    assert await kind(obeying, url="http://a.test/y") is ErrorKind.ROBOTS_DISALLOWED
    assert await kind(obeying, url="http://b.test/") is ErrorKind.ROBOTS_UNREACHABLE
    clock.now += UNREACHABLE_FOR
    web.robots = (200, FORBIDDEN, {})
    assert await kind(obeying) is ErrorKind.ROBOTS_DISALLOWED


@pytest.mark.parametrize("ours", [ErrorKind.BLOCKED, ErrorKind.PROXY_UNREACHABLE, ErrorKind.AUTH_FAILED])
async def test_a_failure_of_ours_is_passed_on_and_not_remembered(obeying, web, ours):
    web.robots = FetchError(ours, "because")
    with pytest.raises(FetchError, match="because") as caught:
        await obeying.send(hop(), HopTrace())
    assert (caught.value.kind, caught.value.sent, web.asked) == (ours, False, 1)
    web.robots = (200, b"", {})
    assert await kind(obeying) is None


async def test_it_is_asked_for_by_the_way_of_the_request(obeying, web):
    unverified = Lane(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), verified=False)
    assert await kind(obeying, lane=unverified) is None
    assert await kind(obeying, lane=None) is None
    assert [one.lane for one in web.hops] == [unverified, unverified, None, None]


async def test_it_is_asked_for_once_whatever_the_proxy(obeying, web):
    web.robots = (200, b"User-agent: *\nCrawl-delay: 3\n", {})
    asking = hop(lane=Lane(proxy=URL("http://one.test:3128")))
    assert await kind(obeying) is None
    await obeying.send(asking, HopTrace())
    assert web.asked == 1
    # A layer below sets it anew for each hop.
    asking.lane = Lane(proxy=URL("http://two.test:3128"))
    assert obeying.crawl_delay(asking) == 3.0


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.test/x", "http://a.test"),
        ("http://A.Test:80?x", "http://a.test"),
        ("https://a.test:443/", "https://a.test"),
        ("https://a.test:80/", "https://a.test:80"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
    ],
)
async def test_where_it_is(obeying, web, url, origin):
    assert await kind(obeying, url=url) is None
    assert web.hops[0].url == f"{origin}/robots.txt"


async def test_the_wait_for_it_is_no_time_of_the_request(obeying):
    waited, known = HopTrace(), HopTrace()
    await obeying.send(hop(), waited)
    await obeying.send(hop(), known)
    assert waited.held > 0
    assert known.held == 0


def test_memory_is_bounded_by_number(clock, monkeypatch):
    monkeypatch.setattr(robots, "_MOST_ORIGINS", 3)
    memory = Memory(clock)
    for name in ("a", "b", "c"):
        memory.put(name, Verdict(ALL_ALLOWED, DAY))
    assert memory.get("a") is not None
    memory.put("d", Verdict(ALL_ALLOWED, DAY))
    assert [name for name in "abcd" if memory.get(name)] == ["a", "c", "d"]


def test_memory_is_bounded_by_text(clock, monkeypatch):
    rules = Rules("User-agent: *\nDisallow: /a", "")
    monkeypatch.setattr(robots, "_MOST_TEXT", 2 * rules.size)
    memory = Memory(clock)
    for name in ("a", "b", "a", "a", "c"):
        memory.put(name, Verdict(rules, DAY))
    assert [name for name in "abc" if memory.get(name)] == ["a", "c"]
    monkeypatch.setattr(robots, "_MOST_TEXT", 1)
    memory.put("d", Verdict(rules, DAY))
    assert len(memory) == 1
    assert memory.get("d") is not None
