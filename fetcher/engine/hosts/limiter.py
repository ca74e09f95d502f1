"""How much a host may be asked for: concurrency, rate, delay. Pure: time is passed in, in seconds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WrapValidator
from pydantic_core import PydanticCustomError

from fetcher.budgets import Budget
from fetcher.engine.growth import MOST_AUTO
from fetcher.engine.hosts.breaker import BreakerSettings
from fetcher.settings import Duration, Rate, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_CONCURRENCY = 100_000
# A start that comes late because the loop was busy may be made up for within this time, so that a rate is held
# on average and not only as an upper bound. A delay is a promise about every single gap: nothing is made up for.
CATCH_UP = 0.05

Slots = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]
_SLOTS: TypeAdapter[int] = TypeAdapter(Slots)


# A word or something else, told apart before it is validated: a plain union would complain about both at once.
def _concurrency(value: Any, _union: object) -> Any:
    if isinstance(value, str) and value != "auto" and not value.strip().isdecimal():
        raise PydanticCustomError("concurrency", "should be a whole number or auto")
    return value if value == "auto" else _SLOTS.validate_python(value)


def _breaker(value: Any, _union: object) -> Any:
    if isinstance(value, bool):
        return BreakerSettings() if value else "off"
    return value if value == "off" else BreakerSettings.model_validate(value)


Concurrency = Annotated[
    int | Literal["auto"], WrapValidator(_concurrency, json_schema_input_type=Slots | Literal["auto"])
]
BreakerOrOff = Annotated[
    BreakerSettings | Literal["off"],
    WrapValidator(_breaker, json_schema_input_type=BreakerSettings | Literal["off"] | bool),
]


class HostLimits(Settings):
    """What one host is asked for at most. A host is a name without its port."""

    concurrency: int = Field(default=8, ge=1, le=MAX_CONCURRENCY)
    """Requests in flight."""
    rate: Rate | None = None
    """Requests started per second, evenly spaced."""
    delay: Duration = 0.0
    """The shortest time between the starts of two requests."""
    budget: Budget = ()
    """How many requests are started at most in any second, minute, hour or day: ``[10/s, 600/m, 50000/d]``. Within a
    second they are evenly spaced; what is longer may be used up at once."""

    @property
    def interval(self) -> float:
        """Seconds between two starts."""
        return max(self.delay, 1 / self.rate if self.rate else 0.0)


class LimitSettings(Settings):
    """How much is asked for at once."""

    concurrency: Concurrency = 100
    """Requests in flight, all hosts together. ``auto`` finds out, from 10 to 1000, how many make the batch faster."""
    per_host: HostLimits = HostLimits()
    """For every host that ``hosts`` does not name."""
    hosts: dict[str, HostLimits] = Field(default={})
    """Limits of hosts by name or pattern (``*.example.org``); a name wins over a pattern, then the first match."""
    adapt: bool = True
    """Ask a host for less while it answers 429 or 503, breaks connections off, or has clearly become slower."""
    breaker: BreakerOrOff = BreakerSettings()
    """When an origin that does not answer at all is paused, and when it is given up. ``off`` tries every job of it."""

    @property
    def most(self) -> int:
        """The most requests that are ever in flight, all hosts together."""
        return MOST_AUTO if self.concurrency == "auto" else self.concurrency

    def lookup(self) -> Callable[[str], HostLimits]:
        """Return the function from a host's name to its limits."""
        return _lookup({name.lower(): limits for name, limits in self.hosts.items()}, self.per_host)


def _lookup(hosts: Mapping[str, HostLimits], default: HostLimits) -> Callable[[str], HostLimits]:
    patterns = [(name, limits) for name, limits in hosts.items() if "*" in name or "?" in name]
    if not patterns:
        return lambda host: hosts.get(host, default)

    @lru_cache(maxsize=10_000)
    def limits_of(host: str) -> HostLimits:
        if host in hosts:
            return hosts[host]
        return next((limits for pattern, limits in patterns if fnmatchcase(host, pattern)), default)

    return limits_of


def strictest(configured: HostLimits, others: Iterable[HostLimits]) -> HostLimits:
    """Return limits that keep to all of these. What ``others`` leave to its default says nothing."""
    concurrency, delay, rate, budget = configured.concurrency, configured.delay, configured.rate, configured.budget
    for limits in others:
        if "concurrency" in limits.model_fields_set:
            concurrency = min(concurrency, limits.concurrency)
        if limits.rate is not None:
            rate = limits.rate if rate is None else min(rate, limits.rate)
        delay = max(delay, limits.delay)
        budget += tuple(allowance for allowance in limits.budget if allowance not in budget)
    found = {"concurrency": concurrency, "delay": delay, "rate": rate, "budget": budget}
    if all(getattr(configured, name) == value for name, value in found.items()):
        return configured
    return configured.model_copy(update=found)


def next_start(previous: float, now: float, limits: HostLimits) -> float:
    """Return when the host may be asked again, if it is asked now and ``previous`` was the answer before.

    This is the generic cell rate algorithm (ITU-T I.371) with a small tolerance for starts that come late. A host
    that was not asked for longer begins anew: it has saved nothing up for a burst.
    """
    interval = limits.interval
    if now - previous > max(CATCH_UP, interval):
        return now + interval
    tolerance = 0.0 if limits.delay else min(CATCH_UP, interval)
    return max(previous, now - tolerance) + interval
