"""The service as a whole: opens everything in the order in which it is needed, and ends it along the data path.

    session -> hosts, slots -> keeper -> what looks at it -> API -> what submits by itself

Everything that goes on in the background is supervised: what dies ends the service, with its reason.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import structlog

from fetcher import __version__
from fetcher.assembly import Shared
from fetcher.service.api.app import create_app, listen
from fetcher.service.api.desk import Desk
from fetcher.service.api.events import Events
from fetcher.service.arrivals.folder import Folder
from fetcher.service.arrivals.schedules import Schedules, check_schedules
from fetcher.service.batches.territory import Territory
from fetcher.service.keeper import Keeper
from fetcher.service.observing.metrics import Metrics
from fetcher.service.observing.snapshots import Snapshots
from fetcher.service.observing.telemetry import Telemetry
from fetcher.service.observing.why import Reasons
from fetcher.service.reload import Reload, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from fetcher.assembly import Batch
    from fetcher.engine.engine import Engine
    from fetcher.engine.hosts.host import Hosts
    from fetcher.engine.why.advice import Bound
    from fetcher.model import Result
    from fetcher.service.models import BatchView, Why
    from fetcher.service.settings import ServiceConfig

_ANSWERS = 2.0  # seconds that answers have which are under way when everything else has ended


class Service:
    """``run`` serves until ``drain`` is called. Also what the page and the metrics ask about the service as a whole.

    ``path`` and ``overrides`` are those that the config was loaded from, so that it can be loaded again.
    """

    def __init__(self, config: ServiceConfig, path: str | None = None, overrides: Sequence[str] = ()) -> None:
        self.config = config
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self.url: str | None = None
        self._draining = asyncio.Event()
        self._observers: list[Callable[[Sequence[Result]], None]] = []
        self._shared = Shared(config.limits, config.http, self._observe, Path(config.service.state_dir))
        self.keeper = Keeper(config, self._shared)
        self._troubles: dict[str, str] = {}
        self._schedules = Schedules(config, self.keeper, self.trouble)
        watch = config.service.watch
        self._folder = None if watch is None else Folder(Path(watch), config, self.keeper, self.trouble)
        self._reload = Reload(path, overrides, self.reconfigure, self.trouble)
        telemetry = config.service.telemetry
        self._telemetry = None if telemetry is None else Telemetry(telemetry)

    # What is asked about it

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight now."""
        return self._shared.slots.limit

    @property
    def troubles(self) -> Sequence[str]:
        """Why the service is not as it should be."""
        return list(self._troubles.values())

    @property
    def hosts(self) -> Hosts:
        """The hosts that are being fetched from."""
        return self._shared.hosts

    @property
    def why(self) -> Why:
        """What bounds the throughput."""
        return self._reasons.get()

    @property
    def running(self) -> Mapping[str, Batch]:
        """The batches that are open, by id."""
        return self.keeper.running

    def shown(self, most: int) -> Sequence[BatchView]:
        """Return those that have not ended, and the latest of those that have."""
        return self.keeper.shown(most)

    def states(self) -> Mapping[str, int]:
        """Return how many batches there are by state."""
        return self.keeper.counts()

    def bounds(self) -> Mapping[Bound, float]:
        """Return what bounds the throughput, with shares from 0 to 1."""
        return self._reasons.bounds()

    @property
    def is_config_loaded(self) -> bool:
        """Whether the config could be loaded when it was last changed."""
        return self._reload.success

    # Running

    def drain(self) -> None:
        """Take no more, let what is in flight end within the shutdown timeout, and have ``run`` return."""
        self._draining.set()

    def reconfigure(self, config: ServiceConfig) -> list[str]:
        """Keep to another config from now on, dropping no work: to its limits, and to what batches may do.

        Return what takes a restart, as where the service listens and how it connects. That stays as it was.
        Raises ConfigProblems if the rest does not go with that, and then nothing has changed.
        """
        before = self.config
        self.config, later = merged(before, config)
        self._shared.reconfigure(self.config.limits)
        self.keeper.reconfigure(self.config)
        self._schedules.reconfigure(self.config)
        if self._folder is not None:
            self._folder.reconfigure(self.config)
        self._desk.config = self.config
        self._listening.runner.resize(self.config.service.max_connections)
        if self.config.service.tokens != before.service.tokens:
            self._events.let_go()  # whoever still may comes back
        return later

    def trouble(self, about: str, words: str | None) -> None:
        """Tell people what is not as it should be, or with None that it is again."""
        if words is None:
            self._troubles.pop(about, None)
        else:
            self._troubles[about] = words

    async def run(self) -> bool:
        """Serve until drained; return whether nothing is left to be resumed. Raises what went wrong."""
        started = time.monotonic()
        await asyncio.to_thread(Territory(self.config).make)
        await asyncio.to_thread(check_schedules, self.config)
        async with AsyncExitStack() as opened:
            if self._telemetry is not None:
                opened.push_async_callback(self._telemetry.close)
            opened.push_async_callback(self._shared.close)
            await self._shared.open()
            self._watch()
            await self.keeper.open()
            opened.push_async_callback(self.keeper.close)
            await self._open_submitting(opened)
            listening = self._listening = await listen(self._app(), self.config.service, shutdown_timeout=_ANSWERS)
            opened.push_async_callback(listening.stop)
            self.url = listening.url
            self.state = "ready"
            log = structlog.get_logger()
            log.info("service_started", url=listening.url, version=__version__)
            failure = await self._serve()
            self._events.end()
            await listening.stop()
            done = await self.keeper.close()
            log.info("service_ended", left=not done, seconds=round(time.monotonic() - started, 3))
        if failure is not None:
            raise failure
        return done

    async def _open_submitting(self, opened: AsyncExitStack) -> None:
        """Open what submits by itself. Raises ConfigError if it can not do what the config has."""
        await self._schedules.open()
        if self._folder is not None:
            opened.push_async_callback(self._folder.close)
            await self._folder.open()

    def _time_left(self) -> float:
        return max(0.0, self.config.service.shutdown_timeout - _ANSWERS)

    def _watch(self) -> None:
        """Make what looks at the batches."""
        self._reasons = Reasons(self._engines, self._on_late)
        self._snapshots = Snapshots(self.keeper, self)
        self._metrics = Metrics(self)
        self._events = Events()
        self._observers += [self._snapshots.observe, self._metrics.observe]
        if self._telemetry is not None:
            self._observers.append(self._telemetry.observe)
        self.keeper.progress_of = self._snapshots.progress
        self.keeper.on_open = lambda batch: self._metrics.follow(batch.engine)

    def _app(self) -> Any:
        self._desk = Desk(
            config=self.config,
            keeper=self.keeper,
            snapshot=self._snapshots.get,
            history=self._snapshots.history,
            events=self._events,
            metrics=self._metrics.handle,
            schedules=self._schedules.views,
        )
        return create_app(self._desk)

    async def _serve(self) -> Exception | None:
        """Let everything go on until the service is to end, and drain; return what is to blame, None if it was told.

        What submits ends first, what looks at the batches last.
        """
        watching = _started(self._watching())
        submitting = _started(self._submitting())
        told = asyncio.create_task(self._draining.wait(), name="drain")
        await asyncio.wait([told, *submitting, *watching], return_when=asyncio.FIRST_COMPLETED)
        failure = _first_failure([*watching, *submitting])
        await _cancel([told, *submitting])
        self.state = "draining"
        self._snapshots.tick()  # what was looked at a moment ago is out of date
        reason = "it was told to" if failure is None else f"{type(failure).__name__}: {failure}"
        structlog.get_logger().info("service_draining", reason=reason)
        await self.keeper.drain(self._time_left())
        await _cancel(watching)
        return failure

    def _watching(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what looks at the batches."""
        watching = {
            "keeper": self.keeper.supervise(),
            "snapshots": self._snapshots.run(self._events.publish),
            "why": self._reasons.run(),
        }
        return watching if self._telemetry is None else watching | {"telemetry": self._telemetry.run()}

    def _submitting(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what has batches taken, or changes what they may do."""
        submitting = {"reload": self._reload.run(), "schedules": self._schedules.run()}
        return submitting if self._folder is None else submitting | {"folder": self._folder.run()}

    def _engines(self) -> Iterator[Engine]:
        return (batch.engine for batch in self.keeper.running.values())

    def _on_late(self, seconds: float) -> None:
        self._metrics.observe_lag(seconds)

    def _observe(self, results: Sequence[Result]) -> None:
        for observe in self._observers:
            observe(results)


def _started(work: Mapping[str, Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(one, name=name) for name, one in work.items()]


def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> Exception | None:
    """Return why one of the tasks has ended: that it did is a fault, whatever it says."""
    for task in tasks:
        if task.done() and not task.cancelled():
            failure = task.exception()
            if isinstance(failure, Exception):
                return failure
            return RuntimeError(f"{task.get_name()} has ended by itself")
    return None


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
