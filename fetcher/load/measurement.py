"""What came of a measurement: rounds, settings of several rounds, and the report of all settings."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import msgspec

from fetcher.errors import ConfigError
from fetcher.histogram import merged, quantile
from fetcher.load.plan import Plan

SCHEMA_VERSION = 1
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_HELD = 0.99
_PACKAGES = ("fetcher", "aiohttp", "uvloop")


class Round(msgspec.Struct, kw_only=True):
    """One round at one setting. Durations in seconds, sizes in bytes.

    ``requests`` are those that were begun (open loop: due) within the window, ``ok`` how many of them went
    well. ``answered`` and ``good`` count what the window had of requests: one that spans an edge of it counts
    with the share of its time that lies within. ``latency`` has every request that got a response, and those
    that ran into a timeout or were cut off at the end, with the time they had waited; to leave these out
    would flatter the target.
    """

    concurrency: int
    seconds: float
    requests: int = 0
    ok: int = 0
    answered: float = 0.0
    good: float = 0.0
    received: float = 0.0
    errors: dict[str, int] = {}
    messages: dict[str, str] = {}
    latency: dict[int, int] = {}
    slowest: float = 0.0
    cpu_seconds: float = 0.0
    cpu_share: float = 0.0
    peak_rss: int = 0
    lag: dict[int, int] = {}
    due: int | None = None
    achieved_rate: float | None = None
    complete: bool = True

    @property
    def throughput(self) -> float:
        """Requests that ended per second, well or not."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    @property
    def goodput(self) -> float:
        """Requests that went well per second."""
        return self.good / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_rate(self) -> float:
        """The share of requests that did not go well."""
        return 1 - self.ok / self.requests if self.requests else 0.0

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the latency; never more than the slowest, which is known exactly."""
        return _capped(quantile(self.latency, q), self.slowest)


class Spread(msgspec.Struct, frozen=True):
    """The median over rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Sum up the values of some rounds."""
        return cls(median(values), min(values), max(values)) if values else cls(0.0, 0.0, 0.0)


class Setting(msgspec.Struct):
    """All rounds of one concurrency."""

    concurrency: int
    rounds: list[Round] = []

    @property
    def throughput(self) -> Spread:
        """Requests per second."""
        return Spread.of([one.throughput for one in self.rounds])

    @property
    def latency(self) -> dict[int, int]:
        """The latencies of all rounds."""
        return merged(one.latency for one in self.rounds)

    @property
    def slowest(self) -> float:
        """The longest latency."""
        return max((one.slowest for one in self.rounds), default=0.0)

    def quantile(self, q: float) -> float | None:
        """Return a quantile of the latency over all rounds."""
        return _capped(quantile(self.latency, q), self.slowest)

    def quantile_spread(self, q: float) -> Spread:
        """Return a quantile of each round, summed up."""
        return Spread.of([value for one in self.rounds if (value := one.quantile(q)) is not None])

    @property
    def requests(self) -> int:
        """How many requests were counted."""
        return sum(one.requests for one in self.rounds)

    @property
    def ok(self) -> int:
        """How many of them went well."""
        return sum(one.ok for one in self.rounds)

    @property
    def errors(self) -> dict[str, int]:
        """How many did not, by kind, the most frequent first."""
        total: dict[str, int] = {}
        for one in self.rounds:
            for kind, count in one.errors.items():
                total[kind] = total.get(kind, 0) + count
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    @property
    def messages(self) -> dict[str, str]:
        """For each kind of error, one message."""
        return {kind: text for one in reversed(self.rounds) for kind, text in one.messages.items()}

    @property
    def bytes_per_second(self) -> float:
        """Bytes of bodies as they travelled."""
        return Spread.of([one.received / one.seconds for one in self.rounds if one.seconds > 0]).median

    @property
    def cpu_per_request(self) -> float | None:
        """CPU seconds of this process for each request."""
        answered = sum(one.answered for one in self.rounds)
        return sum(one.cpu_seconds for one in self.rounds) / answered if answered > 0 else None

    @property
    def cpu_share(self) -> float:
        """How much of one core this process used."""
        return Spread.of([one.cpu_share for one in self.rounds]).median

    @property
    def peak_rss(self) -> int:
        """The most resident memory."""
        return max((one.peak_rss for one in self.rounds), default=0)

    @property
    def lag(self) -> float | None:
        """The 99th percentile of how late the event loop ran."""
        return quantile(merged(one.lag for one in self.rounds), 0.99)

    @property
    def achieved_rate(self) -> float | None:
        """In an open loop, how many requests per second were sent."""
        rates = [one.achieved_rate for one in self.rounds if one.achieved_rate is not None]
        return median(rates) if rates else None

    def summary(self) -> dict[str, Any]:
        """Return the figures of the table, by name, in base units."""
        latency = {name: self.quantile(q) for name, q in QUANTILES.items()}
        return {
            "throughput": msgspec.to_builtins(self.throughput),
            "latency": latency | {"max": self.slowest if self.latency else None},
            "requests": self.requests,
            "ok": self.ok,
            "errors": self.errors,
            "bytes_per_second": self.bytes_per_second,
            "cpu_seconds_per_request": self.cpu_per_request,
            "cpu_share": self.cpu_share,
            "peak_rss": self.peak_rss,
            "loop_lag_p99": self.lag,
            "achieved_rate": self.achieved_rate,
        }


class Report(msgspec.Struct, kw_only=True):
    """A whole measurement, with what it was made with."""

    schema_version: int = SCHEMA_VERSION
    target: str
    date: str
    machine: dict[str, str | int]
    loop: str
    plan: Plan
    settings: list[Setting]
    notes: list[str] = []

    def dump(self) -> bytes:
        """Return everything as JSON, with a summary of each setting."""
        data = msgspec.to_builtins(self, str_keys=True)
        for setting, written in zip(self.settings, data["settings"], strict=True):
            written["summary"] = setting.summary()
        return msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n"

    @classmethod
    def load(cls, content: bytes, name: str) -> Report:
        """Read what ``dump`` wrote. Raises ConfigError if it is something else."""
        try:
            report = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: is no report of fetcher bench --json: {error}") from None
        if report.schema_version != SCHEMA_VERSION:
            raise ConfigError(
                f"{name}: was written by another version of fetcher (schema {report.schema_version}, this "
                f"one reads {SCHEMA_VERSION}); measure anew"
            )
        return report


def held(report: Report, setting: Setting) -> bool:
    """Tell whether the requests of a setting were sent at the rate that was asked for."""
    rate, achieved = report.plan.rate, setting.achieved_rate
    return rate is None or achieved is None or achieved >= rate * _HELD


def machine() -> dict[str, str | int]:
    """Describe what measures, in general terms."""
    found: dict[str, str | int] = {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _capped(value: float | None, most: float) -> float | None:
    return None if value is None else min(value, most)
