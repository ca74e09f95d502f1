"""Which of several proxies is next, and which rest. Pure: the time is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fetcher.transports.http.exchange import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.transports.http.proxies.addresses import ProxyAddress

_FIRST_REST = 1.0


class Proxy:
    """One proxy and how it does. ``waiting`` requests wait for an answer by it; it rests until ``resting_until``."""

    __slots__ = ("_lanes", "address", "failures", "resting_until", "waiting")

    def __init__(self, address: ProxyAddress) -> None:
        self.address = address
        self.waiting = 0
        self.failures = 0
        self.resting_until = 0.0
        self._lanes: dict[tuple[object, bool], Lane] = {}

    def lane(self, given: Lane) -> Lane:
        """Return the lane that is as the given one, but by this proxy; always the same, as it is a pool's key."""
        key = given.tls, given.verified
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(given.tls, given.verified, self.address.url, self.address.headers)
        return lane


class Rotation:
    """Takes proxies in turns, or the one with the fewest requests under way; passes over those that rest."""

    def __init__(
        self,
        proxies: Sequence[Proxy],
        order: Literal["round_robin", "least_used"] = "round_robin",
        max_rest: float = 60.0,
    ) -> None:
        self.proxies = proxies
        self._by_use = order == "least_used"
        self._max_rest = max_rest
        self._turn = 0
        self.failure = ""

    def next(self, now: float) -> Proxy | None:
        """Return the proxy to use; None if all of them rest."""
        count = len(self.proxies)
        turns = [self.proxies[(self._turn + step) % count] for step in range(count)]
        awake = [proxy for proxy in turns if proxy.resting_until <= now]
        # After a rest, one request finds out for all whether a proxy can be reached.
        awake = [proxy for proxy in awake if not (proxy.failures and proxy.waiting)] or awake
        if not awake:
            return None
        chosen = min(awake, key=lambda proxy: proxy.waiting) if self._by_use else awake[0]
        self._turn = (self.proxies.index(chosen) + 1) % count
        return chosen

    def failed(self, proxy: Proxy, now: float, failure: str = "") -> None:
        """Let a proxy rest that could not be reached, longer each time."""
        self.failure = failure
        if proxy.resting_until > now:
            return  # of the requests that were under way by it, the first to fail has said so
        # 2**n with a large n would overflow a float long before it matters.
        proxy.resting_until = now + min(self._max_rest, _FIRST_REST * 2 ** min(proxy.failures, 30))
        proxy.failures += 1

    def worked(self, proxy: Proxy) -> None:
        """Forget the failures of a proxy that answers."""
        proxy.failures = 0

    def rest(self, now: float) -> float:
        """Return in how many seconds the first of them can be used again."""
        return max(0.0, min(proxy.resting_until for proxy in self.proxies) - now)
