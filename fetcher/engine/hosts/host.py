"""The hosts of a process: what holds for each and what has been learnt about it, for every scheduler that asks it.

Pure: time is passed in, in seconds. Several batches that ask the same host are one client to it. So its limits, its
slots, its next start, its budget and its care belong to a `Host`, and what waits for it to the `Line` of each
scheduler. One run has one scheduler, and every host one line.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from fetcher.engine.hosts.accounts import Accounts
from fetcher.engine.hosts.care import UNLIMITED, Care
from fetcher.engine.hosts.limiter import CATCH_UP, HostLimits, strictest
from fetcher.engine.hosts.quota import Quota, Rest
from fetcher.interfaces import Lease

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fetcher.engine.hosts.limiter import LimitSettings

# Hosts without jobs of which something is remembered; the oldest are forgotten first.
_MOST_REMEMBERED = 10_000
_MOST_QUOTAS = 100_000
# What budgets are called outside of the process.
_KEY, _HOST = "key ", "host "


class Asker(Protocol):
    """A scheduler, as others that ask the same hosts see it."""

    weight: float
    priority: int

    def may_start(self) -> bool:
        """Tell whether a job could be started now if a host were free."""

    def refit(self, line: Line) -> None:
        """Hold as many jobs as the limits of a host ask for now."""

    def reconsider(self, line: Line, now: float) -> None:
        """Take into account that it may have changed when a job of a line may start."""

    def surrender(self, line: Line) -> None:
        """Give back what waits for a host that is to be left alone."""

    def miss(self, line: Line) -> None:
        """Take into account that another scheduler has taken the turn of a line."""


class Owner(Protocol):
    """Who starts the jobs of a scheduler. Called in the middle of what this one does, or another that shares hosts."""

    def may_start(self) -> bool:
        """Tell whether a job could be started now if a host were free."""

    def look_again(self, *, ready: bool) -> None:
        """Have ``next`` called soon if ``ready``, else at `Scheduler.wake_at`, which may have changed."""

    def take_back(self, leases: Sequence[Lease]) -> None:
        """Give leases back to the queue: their host is to be left alone for a while."""

    def lease_again(self) -> None:
        """Have ``demand`` asked soon: a host has got room for jobs although none of those in flight has ended."""


class Host(msgspec.Struct, eq=False):
    """One host that somebody has jobs of, or may not ask yet.

    ``given``: what the config of the process says; ``configured``: that and what its lines ask for; ``limits``: what
    holds now, after what has been learnt. ``latency``: of late, in seconds, for display. ``free_at``: when it may be
    asked next; ``was_free_at``: the same before the last start. ``quota``: its budget, None as long as there is none.
    ``turn_at``, ``virtual``: see `fetcher.engine.hosts.turns`.
    """

    name: str
    given: HostLimits
    configured: HostLimits
    care: Care
    limits: HostLimits
    lines: list[Line] = []
    in_flight: int = 0
    latency: float = 0.0
    free_at: float = 0.0
    was_free_at: float = 0.0
    quota: Quota | None = None
    turn_at: float = 0.0
    virtual: dict[int, float] | None = None

    @property
    def waiting(self) -> int:
        """How many jobs wait for it, in all windows together."""
        return sum(len(line.waiting) for line in self.lines)

    def is_needed(self, now: float) -> bool:
        """Tell whether there is a pause to keep, or a request under way."""
        # What a rate may catch up with counts, too: a host must not earn it anew by being forgotten.
        pause = CATCH_UP if self.limits.interval else 0.0
        return self.in_flight > 0 or self.free_at + pause > now


class Line(msgspec.Struct, eq=False):
    """What waits for a host in one scheduler, the ``asker``.

    ``backlog``: how many jobs there are to come, here and in the queue, as far as known. ``room``: how many to hold.
    ``entry``: the order of its entry in one of the scheduler's heaps, 0 if it has none; any other entry is out of date.
    ``own``: limits of its batch alone. ``credentials``: the budgets of what its batch shows the host; ``quotas``: all
    that a start is charged to. ``rest``: there if nothing of its batch may start for a while. ``passed``,
    ``missed_until``: see `fetcher.engine.hosts.turns`.
    """

    host: Host
    asker: Asker
    waiting: deque[tuple[int, int, Lease]]
    room: int = 0
    backlog: int = 0
    in_flight: int = 0
    entry: int = 0
    own: HostLimits | None = None
    credentials: tuple[Quota, ...] = ()
    quotas: tuple[Quota, ...] = ()
    rest: Rest | None = None
    passed: float = 0.0
    missed_until: float = 0.0


class Hosts:
    """All hosts that are asked, or were, within the limits of the process.

    ``some_in_trouble``: so that nobody asks for a verdict before there may be one. Adaptation and the breaker are those
    of these limits, for all schedulers.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._limits_of = settings.lookup()
        self._hosts: dict[str, Host] = {}
        self._remembered: OrderedDict[str, Care] = OrderedDict()
        self._quotas: OrderedDict[str, Quota] = OrderedDict()
        self.accounts = Accounts()
        self._some_last = False
        self.some_in_trouble = False

    def __iter__(self) -> Iterator[Host]:
        """Yield all hosts, for display."""
        return iter(self._hosts.values())

    def join(self, line: Line, now: float) -> None:
        """Take a line in, which may make the limits of its host stricter."""
        host = line.host
        host.lines.append(line)
        line.quotas = _charged(line)
        if line.own is not None:
            free_at, alone = host.free_at, len(host.lines) == 1
            self.refit(host, now)
            if alone and free_at <= now:
                # Nobody has asked it of late.
                host.free_at = free_at

    def leave(self, line: Line, now: float) -> None:
        """Let a line go that has nothing any more."""
        host = line.host
        host.lines.remove(line)
        if line.own is not None:
            self.refit(host, now)
        if not host.lines and not host.is_needed(now):
            self._forget(host, now)

    def sweep(self, now: float) -> None:
        """Forget hosts that were kept although they had no line, and need not be any more."""
        for host in list(self._hosts.values()):
            if not host.lines and not host.is_needed(now):
                self._forget(host, now)

    def host(self, name: str) -> Host:
        """Return a host by its name, new if it is not there."""
        host = self._hosts.get(name)
        if host is None:
            given = self._given(name)
            limits, care = given, self._remembered.pop(name, None)
            if care is None:
                care = Care.begin(self._settings, given)
            else:
                care.follow(self._settings, given)
                limits = care.limits(given)
            host = self._hosts[name] = Host(name, given, given, care, limits, quota=self._quotas.pop(name, None))
            if given.budget or host.quota is not None:
                self._aim(host, given)
        return host

    def lasting(self) -> Iterator[tuple[str, Quota]]:
        """Yield the budgets that have windows to be kept beyond the process, by the names that ``recall`` takes."""
        yield from ((f"{_KEY}{identity}", quota) for identity, quota in self.accounts if quota.is_lasting)
        if self._some_last:
            yield from ((f"{_HOST}{name}", quota) for name, quota in self._quotas.items() if quota.is_lasting)
            quotas = ((f"{_HOST}{host.name}", host.quota) for host in self._hosts.values())
            yield from ((name, quota) for name, quota in quotas if quota is not None and quota.is_lasting)

    def recall(self, name: str, period: float, starts: Iterable[tuple[float, int]], now: float) -> None:
        """Count what was used of a budget by an earlier process. To be called before anybody asks for hosts."""
        if name.startswith(_KEY):
            self.accounts.quota(name.removeprefix(_KEY)).recall(period, starts, now)
        elif name.startswith(_HOST):
            self._quotas.setdefault(name.removeprefix(_HOST), Quota()).recall(period, starts, now)
            self._some_last = True

    def _aim(self, host: Host, limits: HostLimits) -> None:
        quota = self.quota(host)
        quota.aim(limits.budget)
        self._some_last = self._some_last or quota.is_lasting

    def quota(self, host: Host) -> Quota:
        """Return the budget of a host, from now on one of its own if it had none."""
        if host.quota is None:
            host.quota = Quota(in_flight=host.in_flight)
            for line in host.lines:
                line.quotas = _charged(line)
        return host.quota

    def put_off(self, line: Line, until: float) -> None:
        """Start nothing of a line before a time; the others of its host go on."""
        if line.rest is None:
            line.rest = Rest()
            line.quotas = _charged(line)
        line.rest.until = max(line.rest.until, until)

    def wake(self, line: Line, now: float) -> None:
        """Forget that a line had to rest, once it has."""
        if line.rest is not None and line.rest.until <= now:
            line.rest = None
            line.quotas = _charged(line)

    def reopen(self, quota: Quota, now: float) -> None:
        """Have everybody look again who waits for a budget."""
        for host in list(self._hosts.values()):
            for line in host.lines:
                if quota in line.quotas:
                    line.asker.reconsider(line, now)

    def least(self, per_host: HostLimits) -> HostLimits:
        """Return what holds for a host of which nothing is known, if a batch asks for so much per host."""
        return strictest(self._settings.per_host, [per_host])

    def adjust(self, host: Host, now: float) -> None:
        """Have the limits follow what has been learnt about a host, or what was configured anew."""
        before, host.limits = host.limits, host.care.limits(host.configured)
        if host.limits.interval > before.interval:
            host.free_at = max(host.free_at, now + host.limits.interval)
        for line in host.lines:
            line.asker.refit(line)

    def refit(self, host: Host, now: float) -> None:
        """Have the limits follow what the config and the lines of a host ask for."""
        host.configured = strictest(host.given, (line.own for line in host.lines if line.own is not None))
        if host.configured.budget or host.quota is not None:
            self._aim(host, host.configured)
        self.adjust(host, now)
        for line in host.lines:
            line.asker.reconsider(line, now)

    def reconfigure(self, settings: LimitSettings, now: float) -> None:
        """Have other limits from now on. What has been learnt stays as far as it fits."""
        self._settings = settings
        self._limits_of = settings.lookup()
        for host in list(self._hosts.values()):
            host.given = self._given(host.name)
            host.care.follow(settings, host.given)
            self.refit(host, now)

    def _given(self, name: str) -> HostLimits:
        # Rows that can not be fetched have no host, and nothing to be polite to.
        return self._limits_of(name) if name else UNLIMITED

    def _forget(self, host: Host, now: float) -> None:
        del self._hosts[host.name]
        if host.quota is not None and not host.quota.is_idle(now):
            self._quotas[host.name] = host.quota
            if len(self._quotas) > _MOST_QUOTAS:
                self._quotas.popitem(last=False)
        if host.care.notable:
            self._remembered[host.name] = host.care
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)


def _charged(line: Line) -> tuple[Quota, ...]:
    """Return all that a start of a line is charged to."""
    own = line.host.quota
    quotas = line.credentials if own is None else (*line.credentials, own)
    return quotas if line.rest is None else (*quotas, line.rest)
