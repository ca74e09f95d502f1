"""What the API is given to answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fetcher.service.models import ScheduleList

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from fetcher.service.api.events import Events
    from fetcher.service.keeper import Keeper
    from fetcher.service.models import History, Snapshot
    from fetcher.service.settings import ServiceConfig


@dataclass
class Desk:
    """The parts of the service that the API speaks to."""

    config: ServiceConfig
    """As it is now: it may be replaced, but for where the service listens and keeps its state."""
    keeper: Keeper
    snapshot: Callable[[], Snapshot]
    """The service as it is; asking often costs no more than asking once a second."""
    history: Callable[[], History]
    """The last minutes, for its charts."""
    events: Events
    metrics: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers ``/metrics``."""
    schedules: Callable[[], ScheduleList] = ScheduleList
    """What is submitted again and again."""
