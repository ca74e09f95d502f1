"""Submits batches at their times. What is to be done about a time is decided in timetable.py.

The id of a batch is made of the name of its schedule and of its time, so that it is submitted once, whatever happens
between its submission and the note that it was. A batch may do what submitted batches may (service.files, service.env,
service.python): whoever writes a schedule can allow more there. Its file is read anew each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from fetcher.config import ConfigProblems
from fetcher.errors import BatchStateError, FetcherError, StateBusyError, UnknownBatchError
from fetcher.service.arrivals.diary import Diary, Entry
from fetcher.service.arrivals.timetable import beginning, decide, is_possible, rule, timetable
from fetcher.service.batches.submission import Rules
from fetcher.service.batches.texts import as_text, read_config
from fetcher.service.models import ENDED, Schedule, ScheduleList

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fetcher.service.arrivals.timetable import Decision
    from fetcher.service.keeper import Keeper
    from fetcher.service.settings import ScheduleSettings, ServiceConfig

LOOK_SECONDS = 30.0
"""The clock is looked at so often, as somebody may set it."""
BUSY_SECONDS = 1.0
"""So often where a batch waits for the one before, or could not be submitted."""


class Schedules:
    """``run`` submits batches until cancelled. ``trouble`` is told, by schedule, what keeps one from being submitted.

    ``clock`` is the time of day in epoch seconds.
    """

    def __init__(
        self,
        config: ServiceConfig,
        keeper: Keeper,
        trouble: Callable[[str, str | None], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._trouble = trouble
        self._clock = clock
        self._diary = Diary(Path(config.service.state_dir))
        self._troubles: dict[str, str] = {}
        self._waiting: set[str] = set()
        self._cancelled: dict[str, str] = {}
        self._look = asyncio.Event()

    async def open(self) -> None:
        """Read what was done before. Raises StateError."""
        await asyncio.to_thread(self._diary.open)

    def reconfigure(self, config: ServiceConfig) -> None:
        """Keep to other schedules from now on. They were checked."""
        self._config = config
        self._look.set()

    def views(self) -> ScheduleList:
        """Return the schedules as the API shows them."""
        return ScheduleList(schedules=[self._view(schedule) for schedule in self._config.schedules])

    async def run(self) -> None:
        """Submit batches until cancelled."""
        while True:
            seconds = await self.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._look.wait()
            self._look.clear()

    async def tick(self) -> float:
        """Do what is due; return in how many seconds something may be, again."""
        schedules = self._config.schedules
        self._forget({schedule.name for schedule in schedules})
        for schedule in schedules:
            await self._attend(schedule)
        return self._pause(schedules)

    # What is due

    async def _attend(self, schedule: ScheduleSettings) -> None:
        try:
            entry = await self._entry(schedule)
            busy = self._is_busy(entry.batch)
            found = decide(schedule, entry.at, self._clock(), busy=busy, was_there=schedule.name in self._waiting)
            if found is not None:
                await self._do(schedule, entry, found)
            elif schedule.name in self._waiting:
                self._waiting.discard(schedule.name)
                self._tell(schedule.name, None)
        except StateBusyError:
            # The service is about to end, and comes back to it when it is there again.
            self._waiting.add(schedule.name)
        except (FetcherError, OSError) as error:
            # It was there at the time, and is to go on trying.
            self._waiting.add(schedule.name)
            self._tell(schedule.name, str(error))

    async def _do(self, schedule: ScheduleSettings, entry: Entry, found: Decision) -> None:
        match found.what:
            case "run":
                await self._submit(schedule, entry, found.at)
            case "skip":
                when = _time(found.at).isoformat()
                structlog.get_logger().info(
                    "schedule_skipped", schedule=schedule.name, time=when, reason=found.reason, before=entry.batch
                )
                await self._note(schedule, Entry(found.at, rule(schedule), entry.batch, entry.ran))
            case "cancel" if entry.batch is not None and self._cancelled.get(schedule.name) != entry.batch:
                with contextlib.suppress(BatchStateError, UnknownBatchError):  # it has just ended
                    await self._keeper.cancel(entry.batch)
                self._cancelled[schedule.name] = entry.batch
                self._waiting.add(schedule.name)
            case _:
                self._waiting.add(schedule.name)

    async def _submit(self, schedule: ScheduleSettings, entry: Entry, at: float) -> None:
        batch_id = f"{schedule.name}-{_time(at):%Y%m%dT%H%M%SZ}"
        refused = await self._refused(schedule, batch_id)
        last = (batch_id, at) if refused is None else (entry.batch, entry.ran)
        await self._note(schedule, Entry(at, rule(schedule), *last))
        self._tell(schedule.name, refused)

    async def _refused(self, schedule: ScheduleSettings, batch_id: str) -> str | None:
        """Submit a batch; return why it can not be one. It will not be better in a moment, but may be the next time."""
        log = structlog.get_logger()
        try:
            text, label = await asyncio.to_thread(config_text, schedule, self._config.service.max_config)
            await self._keeper.submit(text, label, "schedule", batch_id=batch_id)
        except ConfigProblems as error:
            log.warning("schedule_refused", schedule=schedule.name, problems=error.problems)
            return "; ".join(error.problems)
        except (FetcherError, OSError):
            raise
        except Exception as error:
            # It is this batch's alone, and others are to be submitted.
            log.exception("schedule_crashed", schedule=schedule.name)
            return f"this is a fault of fetcher: {type(error).__name__}: {error}"
        return None

    def _is_busy(self, batch_id: str | None) -> bool:
        """Tell whether a batch has not ended."""
        found = None if batch_id is None else self._keeper.find(batch_id)
        return found is not None and found.state not in ENDED

    # What is known

    async def _entry(self, schedule: ScheduleSettings) -> Entry:
        """Return what is known of a schedule; one that is new is noted, so that it is known what it misses."""
        entry, now = self._diary.find(schedule.name), self._clock()
        if entry is None:
            found = Entry(beginning(schedule, now), rule(schedule))
        elif not is_possible(entry.at, now):
            structlog.get_logger().warning(
                "schedule_clock", schedule=schedule.name, last=entry.at, reason="the clock is far behind the last time"
            )
            found = Entry(now, rule(schedule), entry.batch, entry.ran)
        elif entry.rule != rule(schedule):
            found = Entry(beginning(schedule, now, entry.at), rule(schedule), entry.batch, entry.ran)
        else:
            return entry
        await asyncio.to_thread(self._diary.write, schedule.name, found)
        return found

    async def _note(self, schedule: ScheduleSettings, entry: Entry) -> None:
        self._waiting.discard(schedule.name)
        await asyncio.to_thread(self._diary.write, schedule.name, entry)

    def _forget(self, names: set[str]) -> None:
        """Forget schedules that there are no more."""
        for name in self._troubles.keys() - names:
            self._tell(name, None)
        self._waiting &= names
        with contextlib.suppress(OSError):  # the next time will do
            self._diary.keep(names)

    def _pause(self, schedules: Sequence[ScheduleSettings]) -> float:
        if self._waiting:
            return BUSY_SECONDS
        now = self._clock()
        coming = [found for schedule in schedules if (found := self._next(schedule)) is not None]
        return max(0.0, min([LOOK_SECONDS, *(at - now for at in coming)]))

    def _next(self, schedule: ScheduleSettings) -> float | None:
        entry = self._diary.find(schedule.name)
        return None if entry is None else timetable(schedule).after(entry.at)

    def _tell(self, name: str, words: str | None) -> None:
        if words is None:
            self._troubles.pop(name, None)
        else:
            self._troubles[name] = words
        self._trouble(f"schedule {name}", None if words is None else f"schedule {name}: {words}")

    def _view(self, schedule: ScheduleSettings) -> Schedule:
        entry = self._diary.find(schedule.name)
        coming = self._next(schedule)
        return Schedule(
            name=schedule.name,
            cron=schedule.cron,
            every=schedule.every,
            timezone=schedule.timezone,
            overlap=schedule.overlap,
            missed=schedule.missed,
            next=None if coming is None else _time(coming),
            last=None if entry is None or entry.ran is None else _time(entry.ran),
            last_batch=None if entry is None else entry.batch,
            waiting=schedule.name in self._waiting,
            trouble=self._troubles.get(schedule.name),
        )


def config_text(schedule: ScheduleSettings, most: int) -> tuple[str, str]:
    """Return the config of a schedule's batch, and what messages call it. Raises ConfigProblems. Reads a file."""
    if isinstance(schedule.batch, str):
        return read_config(Path(schedule.batch), schedule.batch, most), schedule.batch
    return as_text({"name": schedule.name} | schedule.batch), f"schedule {schedule.name}"


def check_schedules(config: ServiceConfig) -> None:
    """Raise ConfigProblems with all that is wrong with the configs of schedules. Reads files.

    What they read may not be there yet.
    """
    rules, folder = Rules(config), Path(config.service.state_dir) / "batches" / "new"
    problems: list[str] = []
    for schedule in config.schedules:
        try:
            rules.load(*config_text(schedule, config.service.max_config), folder)
        except ConfigProblems as error:
            # All of a config that stands in another one is its first line.
            within = f"schedule {schedule.name}"
            found = [re.sub(rf"^{re.escape(within)}:1:", f"{within}:", line) for line in error.problems]
            problems += found if isinstance(schedule.batch, dict) else [f"{within}: {line}" for line in found]
    if problems:
        raise ConfigProblems(problems)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
