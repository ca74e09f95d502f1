"""What bounds the throughput of the service right now, as people are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.engine.why.bounds import verdict
from fetcher.engine.why.lookout import Lookout
from fetcher.service.models import Bound, Why

if TYPE_CHECKING:
    from fetcher.engine.why.bounds import Finding


class Reasons(Lookout):
    """``run`` looks at all running batches; ``get`` tells."""

    def get(self) -> Why:
        """Return what bounds the throughput, over the last seconds."""
        found = self.findings()
        return Why(
            seconds=round(self.seconds, 1),
            verdict=verdict(found, self.engines),
            bounds=[_bound(one) for one in found],
        )


def _bound(finding: Finding) -> Bound:
    return Bound(
        name=finding.bound.value,
        share=round(finding.share, 4),
        explanation=finding.explanation,
        advice=finding.advice,
        details=finding.details,
    )
