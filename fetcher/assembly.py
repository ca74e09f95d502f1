"""The composition root: from a Config to a batch that runs. Nothing else knows both parts and engine."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from fetcher.config import fingerprint
from fetcher.config.model import sink_fingerprints
from fetcher.engine.engine import Engine, Parts
from fetcher.errors import EXIT_RESUMABLE, ConfigError, SinkError, StateBusyError, StateError
from fetcher.fields import without
from fetcher.model import Outcome
from fetcher.pipeline.ending import conclude, ending_of, wants_ending
from fetcher.pipeline.outlet import Batching, Outlet, Plan, dead_key
from fetcher.registry import config_class
from fetcher.sink_settings import SinkSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetcher.config import Config
    from fetcher.interfaces import Queue, Sink, Source, Stage, Transport
    from fetcher.settings import Settings

_FINGERPRINT = "fingerprint"
_SINKS = "sinks"
_FINISHED = "finished"


class Batch:
    """A config brought to life. ``open``, then ``run``, then ``close``; ``drain`` ends a run early.

    ``resumed`` tells after ``open`` whether an earlier run of the same batch goes on.
    """

    def __init__(self, config: Config, *, fresh: bool = False) -> None:
        self.config = config
        self.resumed = False
        self._away: set[str] = set()  # sinks that could not be reached, and are not required
        self._fresh = fresh
        self._marks: Mapping[str, str] = {}
        self._sources: list[Source] = [_built(source) for source in config.sources]
        self._queue: Queue = _built(config.queue)
        self._sinks: dict[str, Sink] = {
            f"sink:{index}": _built(_replacing(sink) if fresh else sink) for index, sink in enumerate(config.sinks)
        }
        plans = [plan(sink, index) for index, sink in enumerate(config.sinks, 1)]
        self._plans: dict[str, Plan] = dict(zip(self._sinks, plans, strict=True))
        self._dead: dict[str, Sink] = {
            key: dead_letters(config.name, plan.title) for key, plan in self._plans.items() if not plan.required
        }
        self._stages: dict[str, Stage] = {
            f"{getattr(stage, 'type', '')}-{index}": _built(stage) for index, stage in enumerate(config.stages, 1)
        }
        http: Any = config.http
        transport: Any = http.build(config.request, config.body)
        self._transports: dict[str, Transport] = dict.fromkeys(transport.schemes, transport)
        self.engine = Engine(
            Parts(
                batch=config.name,
                sources=self._sources,
                queue=self._queue,
                transports=self._transports,
                sinks={
                    key: Outlet(key, sink, self._plans[key], self._dead.get(key)) for key, sink in self._sinks.items()
                },
                stages=self._stages,
                limits=config.limits,
                retry=config.retry,
                default_method=config.request.method.upper(),
                dedupe=config.dedupe,
                shutdown_timeout=config.shutdown_timeout,
            )
        )

    def check(self) -> None:
        """Raise ConfigError for inputs that can not be read and stages that can not work. Opens and changes nothing."""
        for source in self._sources:
            source.check()
        for stage in self._stages.values():
            stage.check()

    async def open(self) -> None:
        """Open everything, before anything is fetched. Raises ConfigError or StateError."""
        self.check()
        try:
            self._marks = await self._queue.open()
            await self._begin_or_resume()
            await self.engine.start(self._marks)
        except BaseException:
            await self.close()
            raise

    async def run(self) -> bool:
        """Run until every job has ended, or until drained; return whether every job has ended."""
        try:
            await self.engine.run(self._marks)
        except Exception as error:
            if getattr(error, "exit_code", None) != EXIT_RESUMABLE:
                # Why the run has failed is what matters, and not whether everybody could be told.
                with contextlib.suppress(Exception):
                    await self._conclude(str(error) or type(error).__name__)
            raise
        if self.engine.finished:
            await self._conclude()
            await self._queue.put([], {_FINISHED: str(int(time.time()))})
        elif self.engine.failures:
            await self._conclude("; ".join(map(str, self.engine.failures)))
        return self.engine.finished

    async def _conclude(self, stopped: str | None = None) -> None:
        """Tell the sinks that want to know how the run has ended."""
        outlets = self.engine.delivery.outlets
        if not wants_ending(outlets):
            return
        tally, jobs = self.engine.delivery.tally, self.engine.added
        limit = self.config.max_failures
        exceeded = limit.exceeded(tally.outcomes.get(Outcome.FAILED, 0), jobs)
        ending = ending_of(self.config.name, jobs, tally, limit=str(limit), exceeded=exceeded, stopped=stopped)
        await conclude(outlets, ending, lambda marks: self._queue.put([], marks))

    def drain(self) -> None:
        """Start no more jobs and let ``run`` return; what is left can be resumed."""
        self.engine.drain()

    async def close(self) -> None:
        """Release everything. May be called twice."""
        await self.engine.close()
        await self._queue.close()

    async def _begin_or_resume(self) -> None:
        current = {_FINGERPRINT: fingerprint(self.config), _SINKS: json.dumps(sink_fingerprints(self.config))}
        if _FINGERPRINT in self._marks and _FINISHED not in self._marks and not self._fresh:
            self._refuse_others(current)
            for name in self._sinks:
                await self._check_sink(name, self._marks.get(name), resume=True)
            self.resumed = True
            return
        await self._start_over()
        self._marks = current
        await self._queue.put([], self._marks)

    def _refuse_others(self, current: Mapping[str, str]) -> None:
        """Refuse to go on with other sources, whose jobs would mix, or other sinks, which would have but a part."""
        for name, what in ((_FINGERPRINT, "sources"), (_SINKS, "sinks")):
            if self._marks.get(name) != current[name]:
                raise ConfigError(
                    f"the {what} of {self.config.name!r} are not those with which its unfinished run began; "
                    "put them back to resume it, or start over with --fresh"
                )

    async def _start_over(self) -> None:
        """Forget an earlier run, and delete what it wrote to the sinks that there still are."""
        earlier = self._earlier_marks()
        for name in self._sinks:
            try:
                await self._check_sink(name, earlier.get(name), resume=False)
            except StateBusyError:
                raise
            except StateError:
                if not self._fresh or name not in earlier:
                    raise
                # It is no longer what the earlier run left: whatever it is, it was there before this run.
                del earlier[name]
                await self._check_sink(name, None, resume=False)
        # Not before all of them are known to be usable; and the marks go last, by which what is left is known as ours.
        for name, mark in earlier.items():
            if name not in self._away:
                await self._sinks[name].discard(mark)
        await self._discard_dead_letters()
        if self._marks:
            await self._queue.clear()

    async def _check_sink(self, name: str, mark: str | None, *, resume: bool) -> None:
        """Check a sink. One that is not required may be away: it is opened when it is there."""
        try:
            await self._sinks[name].check(mark, resume=resume)
        except SinkError:
            if self._plans[name].required:
                raise
            self._away.add(name)

    async def _discard_dead_letters(self) -> None:
        """Delete what an earlier run could not deliver, unless somebody has had it in hand since."""
        for name, sink in self._dead.items():
            mark = self._marks.get(dead_key(name))
            if mark is not None:
                with contextlib.suppress(StateError):
                    await sink.check(mark, resume=False)
                    await sink.discard(mark)

    def _earlier_marks(self) -> dict[str, str]:
        """Return the marks of those sinks that an earlier run had too, in whatever order."""
        before = json.loads(self._marks.get(_SINKS, "[]"))
        indexes = {output: index for index, output in enumerate(before)}
        marks = {
            name: self._marks.get(f"sink:{indexes[output]}")
            for name, output in zip(self._sinks, sink_fingerprints(self.config), strict=True)
            if output in indexes
        }
        return {name: mark for name, mark in marks.items() if mark is not None}


def plan(sink: Settings, index: int) -> Plan:
    """Return what the config of a sink says of its delivery; ``index`` counts from 1."""
    title = f"{getattr(sink, 'type', 'sink')}-{index}"
    if not isinstance(sink, SinkSettings):
        return Plan(title=title)
    batch = sink.batch
    return Plan(
        title=sink.name or title,
        required=sink.required,
        patience=sink.patience,
        where=sink.where,
        reshape=without(sink.select, sink.drop),
        batching=None if batch is None else Batching(batch.size, batch.bytes, batch.linger),
    )


def dead_letters_path(batch: str, title: str) -> str:
    """Return the file of a sink's dead letters."""
    return f"state/{batch}.{title}.dead.jsonl"


def dead_letters(batch: str, title: str) -> Sink:
    """Return where the records go that a sink does not take, though jobs do not wait for it."""
    settings = {"path": dead_letters_path(batch, title), "format": "jsonl", "if_exists": "append"}
    sink: Sink = _built(config_class("sinks", "file").model_validate(settings))
    return sink


def _built(part: Any) -> Any:
    return part.build()


def _replacing(sink: Any) -> Any:
    """Return a sink's config with which an output that is in the way gets replaced, where it has that choice."""
    in_the_way = getattr(sink, "if_exists", None) == "fail"
    return sink.model_copy(update={"if_exists": "replace"}) if in_the_way else sink
