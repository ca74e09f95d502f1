"""Takes over a config that was changed, on SIGHUP or when its file has changed. A bad one changes nothing.

The file is looked at now and then rather than watched: what mounts configs into containers replaces links somewhere
above them, which not every watcher sees, and a look costs one call of the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import structlog

from fetcher.config import ConfigProblems
from fetcher.service.arrivals.schedules import check_schedules
from fetcher.service.batches.territory import Territory
from fetcher.service.loading import load_service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.service.settings import ServiceConfig

FIXED = ("host", "port", "state_dir", "watch", "telemetry")
"""What of ``service`` holds for as long as it runs."""
PERIOD = 2.0
"""Seconds between two looks at the file."""
_SUBJECT = "config"

_Signature = tuple[int, int, int] | None


class Reload:
    """Has a service keep to its config as it is now.

    ``take`` is given a config that is good, and returns what of it takes a restart. ``trouble`` is told what is wrong
    with one that is not, under a name of its own, and with None that it is good again. ``success`` tells whether the
    last one was good.
    """

    def __init__(
        self,
        path: str | None,
        overrides: Sequence[str],
        take: Callable[[ServiceConfig], Sequence[str]],
        trouble: Callable[[str, str | None], None],
    ) -> None:
        self._path = path
        self._overrides = overrides
        self._take = take
        self._trouble = trouble
        self._asked = asyncio.Event()
        self.success = True
        self._seen: _Signature = _signature(path)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        number = getattr(signal, "SIGHUP", None)
        with contextlib.ExitStack() as handling:
            if number is not None:
                with contextlib.suppress(RuntimeError, ValueError):  # not on the main thread
                    before = signal.getsignal(number)
                    loop.add_signal_handler(number, self._asked.set)
                    # One that comes at the end, or at the start, is not to end it at once.
                    handling.callback(signal.signal, number, before)
                    handling.callback(loop.remove_signal_handler, number)
            while True:
                if await self._is_due():
                    await self.load()

    async def _is_due(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        before, self._seen = self._seen, await asyncio.to_thread(_signature, self._path)
        # While the file is being replaced there is none for a moment.
        return asked or (self._seen is not None and self._seen != before)

    def _checked(self) -> ServiceConfig:
        config = load_service(self._path, self._overrides)
        Territory(config).make()
        check_schedules(config)
        return config

    async def load(self) -> None:
        """Take over the config as it is now, or say what is wrong with it."""
        log = structlog.get_logger()
        try:
            config = await asyncio.to_thread(self._checked)
            later = list(self._take(config))
        except ConfigProblems as error:
            self.success = False
            log.warning("config_refused", problems=error.problems)
            first = error.problems[0] + (f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else "")
            self._trouble(_SUBJECT, f"the changed config can not be used, so the one before holds on: {first}")
            return
        self.success = True
        log.info("config_loaded", takes_restart=later)
        words = f"the config was changed in what takes a restart: {', '.join(later)}" if later else None
        self._trouble(_SUBJECT, words)


def merged(before: ServiceConfig, config: ServiceConfig) -> tuple[ServiceConfig, list[str]]:
    """Return what can be had of a config by a service that was started with another one, and what can not.

    Raises ConfigProblems if there is no having the one without the other.
    """
    now, then = before.service, config.service
    later = [f"service.{name}" for name in FIXED if getattr(now, name) != getattr(then, name)]
    if before.http != config.http:
        later.append("http")
    service = then.model_copy(update={name: getattr(now, name) for name in FIXED})
    if service.is_open and not service.tokens:
        message = "service.tokens: without any, everybody could use the service, which listens on"
        raise ConfigProblems([f"{message} {service.host} until it is restarted"])
    return config.model_copy(update={"service": service, "http": before.http}), later


def _signature(path: str | None) -> _Signature:
    """Return what changes with a file, None if it is not there."""
    try:
        found = os.stat(path) if path is not None else None  # noqa: PTH116  a Path is made for nothing
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
