"""What the API is given to answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from fetcher.service.events import Events
    from fetcher.service.keeper import Keeper
    from fetcher.service.models import History, Snapshot
    from fetcher.service.settings import ServiceConfig


@dataclass(frozen=True)
class Desk:
    """The parts of the service that the API speaks to."""

    config: ServiceConfig
    keeper: Keeper
    snapshot: Callable[[], Snapshot]
    """The service as it is; asking often costs no more than asking once a second."""
    history: Callable[[], History]
    """The last minutes, for its charts."""
    events: Events
    metrics: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers ``/metrics``."""
