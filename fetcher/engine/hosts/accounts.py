"""Whose budget a request is charged to: that of the credentials which go with it, and that of its host. Pure.

Credentials are known by what shows who is asking, so that batches that use the same ones share a budget. Which go with
a host, its batch says; the budget of a host is one for all.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from fetcher.budgets import BudgetRule
from fetcher.engine.hosts.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetcher.engine.hosts.host import Line

LONG_CLOSED = 2.0
"""Jobs for which there is no budget for more than so many seconds go back to the queue: others need the window."""
# Accounts that nobody uses any more; the oldest are forgotten first.
_MOST_KEPT = 10_000


class _Account(msgspec.Struct, eq=False):
    """A quota, and the rules of those who share it."""

    quota: Quota
    rules: list[BudgetRule]


class Accounts:
    """The quotas of all credentials that are used, or were within the longest window of their budget."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def __iter__(self) -> Iterator[tuple[str, Quota]]:
        """Yield all identities with their quotas."""
        return ((identity, account.quota) for identity, account in self._accounts.items())

    def quota(self, identity: str) -> Quota:
        """Return the quota of credentials, new if nobody has used them of late."""
        if identity not in self._accounts:
            self._accounts[identity] = _Account(Quota(), [])
        return self._accounts[identity].quota

    def join(self, rule: BudgetRule) -> Quota:
        """Return the quota of a rule, which is as strict as all that have joined it."""
        self.quota(rule.identity)
        account = self._accounts[rule.identity]
        account.rules.append(rule)
        account.quota.aim(allowance for one in account.rules for allowance in one.budget)
        return account.quota

    def leave(self, rule: BudgetRule, now: float) -> None:
        """Let a rule go. What has been counted is kept as long as it counts."""
        account = self._accounts[rule.identity]
        account.rules.remove(rule)
        if account.rules:
            account.quota.aim(allowance for one in account.rules for allowance in one.budget)
        self.sweep(now)

    def sweep(self, now: float) -> None:
        """Forget what need not be known any more."""
        unused = [identity for identity, account in self._accounts.items() if not account.rules]
        idle = [identity for identity in unused if self._accounts[identity].quota.is_idle(now)]
        for identity in idle or unused[: max(0, len(unused) - _MOST_KEPT)]:
            del self._accounts[identity]


class Purse:
    """The accounts of one batch: what each of its hosts is charged to. ``close`` it when the batch has ended."""

    def __init__(self, accounts: Accounts, rules: Sequence[BudgetRule]) -> None:
        self._accounts = accounts
        self._rules = rules
        # Those that some host has asked for.
        self._joined: dict[int, Quota] = {}

    def of(self, name: str) -> tuple[Quota, ...]:
        """Return the quotas of the credentials that go with requests to a host.

        There are several if some of them are for certain ports alone: then it has to keep to all of them.
        """
        found: list[Quota] = []
        for index, rule in enumerate(self._rules):
            certain = any(fnmatchcase(name, pattern) for pattern in rule.hosts)
            if certain or any(fnmatchcase(name, pattern) for pattern in rule.some_ports):
                found.append(self._quota(index))
            if certain:
                break
        return tuple(dict.fromkeys(found))

    def close(self, now: float) -> list[Quota]:
        """Let the accounts go; return their quotas, which may have become less strict. May be called twice."""
        left = list(self._joined.values())
        for index in self._joined:
            self._accounts.leave(self._rules[index], now)
        self._joined.clear()
        return left

    def _quota(self, index: int) -> Quota:
        if index not in self._joined:
            self._joined[index] = self._accounts.join(self._rules[index])
        return self._joined[index]


def opens_at(line: Line, now: float) -> float:
    """Return when the host of a line may be asked for its jobs: by its own limits, and by its budgets."""
    host = line.host
    at = host.free_at
    # What is left of a host that was given up is not asked for.
    for quota in () if host.care.given_up else line.quotas:
        at = max(at, quota.opens_at(now))
    return at


def demand(line: Line, now: float, within: float) -> tuple[float, int]:
    """Return when the host of a line with quotas may be asked, and how many jobs to hold: what may start that soon."""
    # When it opens is known, and that one job may start then; how many more there are may not be.
    return opens_at(line, now), min(line.room, *(max(1, quota.room(now, within)) for quota in line.quotas))


def closed(line: Line, now: float) -> float | None:
    """Return for how many seconds in all the budgets of a line have let nothing start, None if it has none."""
    return max((quota.closed(now) for quota in line.quotas), default=None)


def take(line: Line, now: float) -> None:
    """Charge a start to all budgets of a line."""
    for quota in line.quotas:
        quota.take(now)


def charge(line: Line, requests: int, now: float) -> None:
    """Charge requests to all budgets of a line that have been sent although nothing began."""
    for quota in line.quotas:
        for _ in range(requests):
            quota.charge(now)


def give_back(line: Line) -> None:
    """Take it back that a request was sent: it ends without."""
    for quota in line.quotas:
        quota.give_back()


def done(line: Line, now: float) -> list[Quota]:
    """Note that a request of a line has ended; return the quotas that this has opened."""
    return [quota for quota in line.quotas if quota.done(now)]
