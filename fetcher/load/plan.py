"""What is to be measured, read from the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from fetcher.engine.hosts.limiter import MAX_CONCURRENCY
from fetcher.errors import PlanError
from fetcher.settings import parse_duration, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_SETTINGS = 50
_MOST_SECONDS = 86_400.0
_MOST_RATE = 10_000_000.0


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """How one round goes: ``concurrency`` workers; a warm-up, then ``duration`` seconds or ``requests``.

    With a ``rate`` (requests a second) it is an open loop, without one a closed loop.
    """

    concurrency: int
    duration: float | None = None
    requests: int | None = None
    rate: float | None = None
    warm_up: float = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Several settings, each measured in several rounds. Durations in seconds, the rate per second."""

    concurrencies: tuple[int, ...]
    duration: float | None = 10.0
    requests: int | None = None
    rate: float | None = None
    rounds: int = 3
    warm_up: float = 1.0

    def order(self) -> Iterator[tuple[int, Spec]]:
        """Yield (round, setting) interleaved, A B C A B C, so that what drifts meets all settings alike."""
        for number in range(1, self.rounds + 1):
            for concurrency in self.concurrencies:
                yield number, self.spec(concurrency)

    def spec(self, concurrency: int) -> Spec:
        """Return how a round of a setting goes."""
        return Spec(
            concurrency=concurrency,
            duration=self.duration,
            requests=self.requests,
            rate=self.rate,
            warm_up=self.warm_up,
        )


def parse_plan(
    *,
    concurrency: str,
    duration: str | None = None,
    requests: int | None = None,
    rate: str | None = None,
    rounds: int = 3,
    warm_up: str = "1s",
) -> Plan:
    """Read the options of ``fetcher bench``. Raises PlanError that names the one that is wrong."""
    if duration is not None and requests is not None:
        raise PlanError("--duration and --requests: give one of them; a round ends by time or by number")
    if requests is not None and not 0 < requests <= 10**9:
        raise PlanError(f"--requests {requests}: should be from 1 to 1,000,000,000")
    if not 0 < rounds <= 1000:  # noqa: PLR2004  more are a mistake
        raise PlanError(f"--rounds {rounds}: should be from 1 to 1,000")
    seconds = parse_seconds("--duration", duration or "10s", positive=True) if requests is None else None
    return Plan(
        concurrencies=parse_concurrencies(concurrency),
        duration=seconds,
        requests=requests,
        rate=None if rate is None else _rate(rate),
        rounds=rounds,
        warm_up=parse_seconds("--warm-up", warm_up),
    )


def parse_concurrencies(text: str) -> tuple[int, ...]:
    """Read ``10,50,100``; one that is named twice is measured once."""
    found: dict[int, None] = {}
    for part in text.split(","):
        word = part.strip()
        if not _NUMBER.fullmatch(word):
            raise PlanError(f"--concurrency {text[:200]!r}: {word[:50]!r} is no whole number; write 10,50,100")
        if not 1 <= int(word) <= MAX_CONCURRENCY:
            raise PlanError(f"--concurrency {text[:200]!r}: {word} should be from 1 to {MAX_CONCURRENCY:,}")
        found[int(word)] = None
    if len(found) > _MOST_SETTINGS:
        raise PlanError(f"--concurrency: {len(found)} settings; give at most {_MOST_SETTINGS}")
    return tuple(found)


def parse_seconds(option: str, text: str, *, positive: bool = False) -> float:
    """Read ``10s``, ``250ms`` or a bare number of seconds."""
    value = _read(parse_duration, option, text)
    if value > _MOST_SECONDS or (positive and not value > 0):
        raise PlanError(f"{option} {text[:50]}: should be {'more than 0' if positive else 'from 0'} to 1d")
    return value


def _rate(text: str) -> float:
    value = _read(parse_rate, "--rate", text)
    if not 0 < value <= _MOST_RATE:
        raise PlanError(f"--rate {text[:50]}: should be more than 0 and at most {_MOST_RATE:,.0f}/s")
    return value


def _read(parse: Callable[[object], object], option: str, text: str) -> float:
    bare = re.fullmatch(r"[0-9]+(\.[0-9]+)?", text.strip())
    try:
        value = parse(float(text) if bare else text)
    except ValueError as error:
        raise PlanError(f"{option} {text[:50]!r}: {error}") from None
    return float(value) if isinstance(value, int | float) else 0.0
