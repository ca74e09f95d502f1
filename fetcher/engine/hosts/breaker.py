"""When to leave an origin alone that is of no use, and when to give it up. Pure: time is passed in, in seconds.

An origin is a scheme, a host and a port (RFC 6454): of two ports of one host, one may be dead and the other well.
A breaker is *closed* while its origin answers. After so many jobs in a row have found nobody there it is *open*: the
origin is paused, and its jobs go back to the queue as they are. After the pause a single request, the probe, decides:
an answer closes the breaker, a failure opens it again for longer (Nygard, "Release It!", 2007). After so many failed
probes the origin is *down*: what is left of its jobs ends as ``skipped``, with kind ``host_down``.

The same goes for one that is there but refuses whatever it is asked, however rarely
(`fetcher.engine.hosts.adaptation`).
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
from pydantic import Field

from fetcher.errors import ErrorKind
from fetcher.model import Rejection
from fetcher.settings import Duration, Settings

# While a probe is under way another may begin after this share of the pause, at least so many seconds: what came of
# a probe may never be known, because a proxy failed, say.
_NEXT_PROBE = 0.25
_SOONEST_PROBE = 1.0


class BreakerSettings(Settings):
    """When an origin (scheme, host, port) that does not answer at all is paused, and when it is given up.

    What counts is that nobody answered: refused connections, timeouts, resets, names without an address, failed TLS.
    An answer of any status proves that the host is there. One that answers everything with 429, however rarely it is
    asked, is treated in the same way.
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
    """What is known of an origin that has failed of late.

    ``name``: its host and port, for people. ``since``: when its troubles or, if that was later, its last pause began.
    ``failures``: how many jobs in a row. ``probes``: how many probes in a row. ``opened_at``: when the last pause
    began, infinite before the first. ``pause``: how long it is. ``probe_at``: when the next probe may begin.
    ``reason``: why the origin was given up, None if it was not.
    """

    name: str = "the host"
    since: float = -math.inf
    failures: int = 0
    probes: int = 0
    opened_at: float = math.inf
    pause: float = 0.0
    probe_at: float = 0.0
    reason: Rejection | None = None

    @property
    def probing(self) -> bool:
        """Tell whether the next request is a probe, or has to wait until it may be one."""
        return self.opened_at < math.inf and self.reason is None

    def failed(
        self,
        settings: BreakerSettings,
        started: float,
        now: float,
        *,
        first: bool,
        kind: ErrorKind | None,
        refusal: str | None = None,
    ) -> float | None:
        """Take a failure into account; return for how many seconds to pause, 0 to give up, None to go on.

        ``first``: it was the first attempt of its job. What is tried again and again is not counted every time, so
        that a handful of URLs is tried as often as the config says and ends with its own error. ``refusal``: the
        answer, of an origin that has been found to refuse everything.
        """
        if self.reason is not None:
            return None
        if self.opened_at < math.inf:
            # What began before the pause is no probe.
            return self._probe_failed(settings, now, kind, refusal) if started >= self.opened_at else None
        self.failures += first
        return self._open(settings, now) if refusal or self.failures >= settings.failures else None

    def verdict(self, now: float) -> Rejection | float | None:
        """Return why a job may not start now: for good, or for so many seconds. None: it may, maybe as the probe."""
        if not self.probing:
            return self.reason
        if now < self.probe_at:
            return self.probe_at - now
        self.probe_at = now + max(_SOONEST_PROBE, _NEXT_PROBE * self.pause)
        return None

    def _open(self, settings: BreakerSettings, now: float) -> float:
        self.pause = min(settings.max_pause, settings.pause * 2.0 ** min(self.probes, 30))
        self.opened_at = self.since = now
        self.probe_at = now + self.pause
        return self.pause

    def _probe_failed(
        self, settings: BreakerSettings, now: float, kind: ErrorKind | None, refusal: str | None
    ) -> float:
        self.probes += 1
        if settings.host_down == "wait" or self.probes < settings.give_up:
            return self._open(settings, now)
        probes = "a probe" if self.probes == 1 else f"{self.probes} probes"
        if refusal:
            why = f"refuses every request ({refusal}), however rarely it is asked, and so it did {probes}"
        else:
            why = (
                f"did not answer: {self.failures} jobs in a row failed, then {probes}, the last one with "
                f"{kind or 'no answer'}"
            )
        message = f"{self.name} {why}; run the batch again when it is back"
        self.reason = Rejection(ErrorKind.HOST_DOWN, message)
        return 0.0
