"""How many retries a host is asked for on top of its requests. Pure: time is passed in, in seconds.

A storm is load that grows because the host fails: every request becomes as many as there are attempts. Retrying once
at most doubles the load, full jitter spreads it, and it is what mends most failures, so first retries are free. Those
of retries take a token each from a bucket that fills up with what goes well (as in Finagle and gRPC) and, slowly, with
time. Without a token a retry is not dropped, but drawn from a longer backoff: spread out, and given up no earlier.
"""

from __future__ import annotations

import msgspec

BURST = 100.0
"""Tokens that a host begins with, and the most that it has."""
RATIO = 0.2
"""Tokens for each answer."""
PER_SECOND = 10.0
"""Tokens that come by time alone."""


class Budget(msgspec.Struct, eq=False):
    """The bucket of one host."""

    at: float
    tokens: float = BURST

    def earn(self) -> None:
        """Take an answer into account."""
        self.tokens = min(BURST, self.tokens + RATIO)

    def spend(self, now: float) -> bool:
        """Take a token for a retry and tell whether there was one."""
        self.tokens = min(BURST, self.tokens + (now - self.at) * PER_SECOND)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
