"""What answers say is left of a budget, and what they took of it, brought to the scheduler that is charged for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.engine.scheduler import Scheduler
    from fetcher.model import Job, Response


def teller(scheduler: Scheduler) -> Callable[[Job, Response, float], None]:
    """Return what tells a scheduler of answers with a ``rate_limit``, to requests that began so many seconds ago.

    And of those that took ``more`` requests than the one that was charged when the job began.
    """

    def tell(job: Job, response: Response, took: float) -> None:
        now = asyncio.get_running_loop().time()
        if response.more:
            scheduler.charge(job.host, response.more, now)
        # After redirects it is the last host that says so.
        host = (urlsplit(response.final_url).hostname or job.host) if response.redirects else job.host
        if response.rate_limit is not None:
            scheduler.told(host, response.rate_limit, now - took, now, own=host == job.host)

    return tell
