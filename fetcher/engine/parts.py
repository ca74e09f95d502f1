"""What an engine is assembled from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from fetcher.answers.expectations import Expectation
from fetcher.budgets import BudgetRule
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.hosts.limiter import LimitSettings
from fetcher.engine.retry import RetrySettings
from fetcher.engine.slots import Share
from fetcher.interfaces import Queue, Sink, Source, Stage, Transport
from fetcher.model import Result
from fetcher.pagination import Paginator
from fetcher.pipeline.outlet import Outlet


class Parts(msgspec.Struct, kw_only=True):
    """What an engine is assembled from.

    ``slots`` and ``hosts``: those that it shares with others, None for its own. The share's weight and priority go for
    hosts as well. ``observe`` is told of results once they are acknowledged; it may not raise. ``expect``: what answers
    are held to, if to anything but their status. ``paginator`` finds the next pages of answers, None if nobody looks.
    ``budgets``: what requests with certain credentials keep to, together with those of all who share its hosts.
    """

    batch: str
    sources: Sequence[Source]
    queue: Queue
    transports: Mapping[str, Transport]
    sinks: Mapping[str, Sink | Outlet]
    limits: LimitSettings
    retry: RetrySettings
    default_method: str = "GET"
    dedupe: bool = False
    shutdown_timeout: float = 10.0
    slots: Share | None = None
    hosts: Hosts | None = None
    observe: Callable[[Sequence[Result]], None] | None = None
    stages: Mapping[str, Stage] = {}
    expect: Expectation | None = None
    paginator: Paginator | None = None
    budgets: Sequence[BudgetRule] = ()
