"""How many leased jobs a scheduler holds, in all and of one host. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from fetcher.engine.hosts.limiter import HostLimits

HORIZON = 0.25
"""A host with a rate is given what it will start within so many seconds, and nothing while it may not be asked for
longer: jobs that can not start soon would keep those out that can. It is many times what a lease takes."""

# Leased jobs for each one in flight: enough that a host never waits for the next lease, which takes milliseconds.
_AHEAD = 8
_SMALLEST = 1024


class Demand(msgspec.Struct):
    """What to lease: ``limit`` jobs in all, and of each host ``room``, or ``per_host`` if it is not named.

    ``again``: in how many seconds some host that has no room now will have some, None if none will by time alone.
    """

    limit: int
    per_host: int
    room: dict[str, int]
    again: float | None = None


class Window(msgspec.Struct, frozen=True):
    """The jobs held for ``concurrency`` requests in flight."""

    concurrency: int

    @property
    def size(self) -> int:
        """How many, all hosts together."""
        return max(_SMALLEST, self.concurrency * _AHEAD)

    def room(self, limits: HostLimits) -> int:
        """Return how many of a host with such limits: its share if every slot were taken."""
        share = max(1, self.size * min(limits.concurrency, self.concurrency) // self.concurrency)
        if limits.interval:
            share = min(share, max(1, math.ceil(HORIZON / limits.interval)))
        return share
