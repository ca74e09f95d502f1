"""When to leave a host alone that does not answer at all, and when to give it up. Pure: time is passed in, in seconds.

A breaker is *closed* while its host answers. After so many jobs in a row have found nobody there it is *open*: the
host is paused, and its jobs go back to the queue as they are. After the pause a single request, the probe, decides:
an answer closes the breaker, a failure opens it again for longer (Nygard, "Release It!", 2007). After so many failed
probes the host is *down*: what is left of its jobs ends as ``skipped``, with kind ``host_down``.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
from pydantic import Field

from fetcher.errors import ErrorKind
from fetcher.model import Rejection
from fetcher.settings import Duration, Settings


class BreakerSettings(Settings):
    """When a host that does not answer at all is paused, and when it is given up.

    What counts is that nobody answered: refused connections, timeouts, resets, names without an address, failed TLS.
    An answer of any status proves that the host is there.
    """

    failures: int = Field(default=10, ge=1)
    """So many jobs of a host whose first attempts fail, with no answer in between, pause it."""
    pause: Duration = Field(default=10.0, gt=0)
    """How long the first pause lasts; each further one lasts twice as long."""
    max_pause: Duration = Field(default=300.0, gt=0)
    """No pause is longer."""
    give_up: int = Field(default=3, ge=1)
    """So many probes in a row that fail, one after each pause, mean that the host is down."""
    host_down: Literal["skip", "wait"] = "skip"
    """``skip`` ends the jobs that are left as `skipped`; ``wait`` goes on with probes until the run's own deadline."""


class Breaker(msgspec.Struct, eq=False):
    """What is known of a host that has failed of late.

    ``failures``: how many jobs in a row. ``probes``: how many probes in a row. ``opened_at``: when the last pause
    began, infinite before the first. ``reason``: why the host was given up, None if it was not.
    """

    failures: int = 0
    probes: int = 0
    opened_at: float = math.inf
    reason: Rejection | None = None

    @property
    def probing(self) -> bool:
        """Tell whether the next request is a probe, or has to wait until it may be one."""
        return self.opened_at < math.inf and self.reason is None

    def failed(
        self, settings: BreakerSettings, started: float, now: float, *, first: bool, kind: ErrorKind | None
    ) -> float | None:
        """Take a failure into account; return for how many seconds to pause, 0 to give up, None to go on.

        ``first``: it was the first attempt of its job. What is tried again and again is not counted every time, so
        that a handful of URLs is tried as often as the config says and ends with its own error.
        """
        if self.reason is not None:
            return None
        if self.opened_at < math.inf:
            # What began before the pause is no probe.
            return self._probe_failed(settings, now, kind) if started >= self.opened_at else None
        self.failures += first
        return self._open(settings, now) if self.failures >= settings.failures else None

    def _open(self, settings: BreakerSettings, now: float) -> float:
        self.opened_at = now
        return min(settings.max_pause, settings.pause * 2.0 ** min(self.probes, 30))

    def _probe_failed(self, settings: BreakerSettings, now: float, kind: ErrorKind | None) -> float:
        self.probes += 1
        if settings.host_down == "skip" and self.probes >= settings.give_up:
            probes = "a probe" if self.probes == 1 else f"{self.probes} probes"
            self.reason = Rejection(
                ErrorKind.HOST_DOWN,
                f"the host did not answer: {self.failures} jobs in a row failed, then {probes}, the last one with "
                f"{kind or 'no answer'}; run the batch again when it is back",
            )
            return 0.0
        return self._open(settings, now)
