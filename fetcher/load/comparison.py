"""A report against an older one: ratios new to old, with how far the rounds lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ConfigError

if TYPE_CHECKING:
    from fetcher.load.measurement import Report, Spread
    from fetcher.load.plan import Plan

_P99 = 0.99


class Ratio(msgspec.Struct, frozen=True):
    """New to old: of the medians, and at worst and best over all rounds of both."""

    ratio: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether all rounds of one lie above all rounds of the other."""
        return not self.low <= 1 <= self.high

    @classmethod
    def of(cls, new: Spread, old: Spread) -> Ratio | None:
        """Compare two spreads; None if one of them is of nothing."""
        if min(new.low, old.low) <= 0:
            return None
        return cls(new.median / old.median, new.low / old.high, new.high / old.low)


class Compared(msgspec.Struct, frozen=True):
    """One setting that both reports have."""

    concurrency: int
    throughput: Ratio | None
    p99: Ratio | None


def check_comparable(plan: Plan, old: Report) -> None:
    """Raise ConfigError if what this plan will measure has nothing to do with an older report."""
    if plan.rate != old.plan.rate:
        raise ConfigError(f"can not compare {_kind(plan)} with {_kind(old.plan)}: the figures mean different things")
    known = [setting.concurrency for setting in old.settings]
    if not set(known) & set(plan.concurrencies):
        names = ",".join(map(str, known)) or "none"
        raise ConfigError(f"can not compare: no concurrency is in both; the older report has {names}")


def compare(new: Report, old: Report) -> list[Compared]:
    """Compare the settings that both have."""
    before = {setting.concurrency: setting for setting in old.settings}
    return [
        Compared(
            one.concurrency,
            Ratio.of(one.throughput, before[one.concurrency].throughput),
            Ratio.of(one.quantile_spread(_P99), before[one.concurrency].quantile_spread(_P99)),
        )
        for one in new.settings
        if one.concurrency in before
    ]


def differences(new: Report, old: Report) -> list[str]:
    """Name what else than the target's speed may make up the difference."""
    found = []
    if new.target != old.target:
        found.append(f"the targets differ: {new.target} now, {old.target} then")
    made, then = new.machine, old.machine
    found += [
        f"{key} differs: {made.get(key)} now, {then.get(key)} then"
        for key in sorted(made.keys() | then.keys())
        if made.get(key) != then.get(key)
    ]
    return found


def _kind(plan: Plan) -> str:
    return "a closed loop" if plan.rate is None else f"an open loop at {plan.rate:,.10g}/s"
