"""The composition root: from a Config to a batch that runs. Nothing else knows both parts and engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fetcher.config import fingerprint
from fetcher.config.model import record_fingerprint, sink_fingerprints
from fetcher.config.overlay import kept_in
from fetcher.engine.engine import Engine
from fetcher.engine.feeder import id_in_batch
from fetcher.engine.hosts.budget_file import BUDGETS, Ledger, keeping, stopped
from fetcher.engine.hosts.host import Hosts
from fetcher.engine.parts import Parts
from fetcher.engine.slots import Slots
from fetcher.errors import EXIT_RESUMABLE, ConfigError, ErrorKind, SinkError, StateBusyError, StateError
from fetcher.fields import without
from fetcher.guard import guarded
from fetcher.interfaces import Checkable
from fetcher.pagination import Paginator
from fetcher.pipeline.ending import conclude, ending_of, wants_ending
from fetcher.pipeline.outlet import Batching, Outlet, Plan, dead_key, stale_key
from fetcher.registry import config_class
from fetcher.sink_settings import SinkSettings, title_of, titled
from fetcher.sources.chosen import ChosenSource

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from fetcher.answers.expectations import ExpectSettings
    from fetcher.config import Config
    from fetcher.engine.hosts.limiter import LimitSettings
    from fetcher.engine.retry import RetrySettings
    from fetcher.interfaces import Queue, Sink, Source, Stage
    from fetcher.model import Result
    from fetcher.settings import Settings
    from fetcher.transports.http.session import HttpSession

_FINGERPRINT = "fingerprint"
_SINKS = "sinks"
_RECORDS = "records"
_FINISHED = "finished"


class Shared:
    """What the batches of one process have in common: connections, hosts, and how much is in flight altogether.

    ``open`` it before the first batch, ``close`` it after the last. ``observe`` is told of the results of all of them
    once they are acknowledged; it may not raise. ``state_dir``: where is kept what has been used of budgets, None if it
    is forgotten.
    """

    def __init__(
        self,
        limits: LimitSettings,
        http: Any,
        observe: Callable[[Sequence[Result]], None] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self.limits = limits
        self.hosts = Hosts(limits)
        self.slots = Slots(limits.most)
        self.session: HttpSession = http.session()
        self.observe = observe
        self._ledger = None if state_dir is None else Ledger(state_dir / BUDGETS, self.hosts)
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Create the pool of connections. Raises ConfigError if a setting of ``http`` turns out to be unusable."""
        await self.session.open()
        if self._ledger is not None:
            self._ledger.load(asyncio.get_running_loop().time())
            self._keeping = asyncio.create_task(self._ledger.keep(), name="budgets")

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        await self.session.close()
        if self._ledger is not None and self._keeping is not None:
            await stopped(self._keeping)
            self._keeping = None
            self._ledger.save()

    def reconfigure(self, limits: LimitSettings) -> None:
        """Keep to other limits from now on, dropping no work. Every batch is to be told by its own ``reconfigure``."""
        self.limits = limits
        self.hosts.reconfigure(limits, asyncio.get_running_loop().time())
        self.slots.resize(limits.most)

    def within(self, own: LimitSettings) -> LimitSettings:
        """Return what holds for a batch: as many requests at once as it asks for, as far as there are so many."""
        if "concurrency" not in own.model_fields_set:
            return own.model_copy(update={"concurrency": self.limits.concurrency})
        if own.concurrency == "auto" or own.concurrency <= self.limits.most:
            return own
        return own.model_copy(update={"concurrency": self.limits.most})


class Batch:
    """A config brought to life. ``open``, then ``run``, then ``close``; ``drain`` ends a run early.

    ``fresh`` forgets an earlier run that has not ended. ``shared`` is what other batches of the process have in common
    with it. ``only``: the ids of the jobs that it takes of what its sources have, as records of an earlier batch with
    these sources have them. ``state_dir`` is a folder of its own for its queue, whatever the config says of that, and
    its dead letters. ``resumed`` tells after ``open`` whether an earlier run of the same batch goes on.
    """

    def __init__(
        self,
        config: Config,
        *,
        fresh: bool = False,
        shared: Shared | None = None,
        only: Container[str] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self.config = config = config if state_dir is None else kept_in(state_dir, config)
        self.resumed = False
        self._away: set[str] = set()  # sinks that could not be reached, and are not required
        self._ledger: Ledger | None = None
        self._fresh = fresh
        self._is_kept = state_dir is not None
        self._marks: Mapping[str, str] = {}
        guard = getattr(config.http, "guard", None)
        self._sources: list[Source] = [
            _source(guarded(source, guard), index, only) for index, source in enumerate(config.sources)
        ]
        self._queue: Queue = _built(config.queue)
        plans = [plan(sink, index) for index, sink in enumerate(config.sinks, 1)]
        sinks = [
            guarded(titled(sink, plan.title, config.name), guard)
            for sink, plan in zip(config.sinks, plans, strict=True)
        ]
        self._sinks: dict[str, Sink] = {
            f"sink:{index}": _built(_replacing(sink) if fresh else sink) for index, sink in enumerate(sinks)
        }
        self._plans: dict[str, Plan] = dict(zip(self._sinks, plans, strict=True))
        self._dead: dict[str, Sink] = {
            key: dead_letters(dead_letters_path(config.name, plan.title, state_dir))
            for key, plan in self._plans.items()
            if not plan.required
        }
        self._stages: dict[str, Stage] = {
            f"{getattr(stage, 'type', '')}-{index}": _built(guarded(stage, guard))
            for index, stage in enumerate(config.stages, 1)
        }
        self._expect = None if config.expect is None else config.expect.build()
        self._shared = shared
        http: Any = config.http
        self._paginator = None
        if config.pagination is not None:
            self._paginator = Paginator(config.pagination, config.request, http.following())
        self._session: HttpSession = http.session() if shared is None else shared.session
        self.engine = Engine(self._parts())

    def _parts(self) -> Parts:
        config, shared = self.config, self._shared
        ways: list[Any] = [
            _built(part, config.request, config.body, self._session)
            for part in (config.http, config.ftp, config.tcp, config.udp, config.websocket)
        ]
        return Parts(
            batch=config.name,
            sources=self._sources,
            queue=self._queue,
            transports={scheme: way for way in ways for scheme in way.schemes},
            sinks={key: Outlet(key, sink, self._plans[key], self._dead.get(key)) for key, sink in self._sinks.items()},
            stages=self._stages,
            limits=config.limits if shared is None else shared.within(config.limits),
            retry=retried(config.retry, config.expect),
            default_method=config.request.method.upper(),
            dedupe=config.dedupe,
            shutdown_timeout=config.shutdown_timeout,
            slots=None if shared is None else shared.slots.share(config.weight, config.priority),
            hosts=None if shared is None else shared.hosts,
            observe=None if shared is None else shared.observe,
            expect=self._expect,
            paginator=self._paginator,
            budgets=[
                entry.rule() for section in (config.http, config.websocket) for entry in getattr(section, "auth", [])
            ],
        )

    def check(self) -> None:
        """Raise ConfigError for inputs that can not be read, and for what else can not work. Changes nothing."""
        self._check_sources()
        self._check_records()
        for transport in dict.fromkeys(self.engine.transports.values()):
            if isinstance(transport, Checkable):
                transport.check()
        if self._shared is None:
            self._session.check()

    def _check_sources(self) -> None:
        for source in self._sources:
            source.check()

    def _check_records(self) -> None:
        if self._expect is not None:
            self._expect.check()
        if self._paginator is not None:
            self._paginator.check()
        for stage in self._stages.values():
            stage.check()

    async def open(self) -> None:
        """Open everything, before anything is fetched. Raises ConfigError or StateError."""
        # A source may have to wait for a server, and the loop may have other batches to go on with. What a stage
        # imports may be of use to the loop's own thread alone.
        await asyncio.to_thread(self._check_sources)
        self._check_records()
        try:
            self._marks = await self._queue.open()
            await self._begin_or_resume()
            if self._shared is None:
                await self._session.open()
            await self.engine.start(self._marks)
            if self._shared is None and keeps_budgets(self.config):
                self._ledger = Ledger(Path("state") / BUDGETS, self.engine.scheduler.known)
                self._ledger.load(asyncio.get_running_loop().time())
        except BaseException:
            await self.close()
            raise

    async def run(self) -> bool:
        """Run until every job has ended, or until drained; return whether every job has ended."""
        try:
            async with keeping(self._ledger):
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
        exceeded = tally.exceeds(limit, jobs)
        ending = ending_of(self.config.name, jobs, tally, limit=str(limit), exceeded=exceeded, stopped=stopped)
        await conclude(outlets, ending, lambda marks: self._queue.put([], marks))

    def reconfigure(self) -> None:
        """Keep to what is shared now, where limits have changed. To be called on an open batch."""
        if self._shared is not None:
            self.engine.reconfigure(self._shared.within(self.config.limits))

    def drain(self) -> None:
        """Start no more jobs and let ``run`` return; what is left can be resumed."""
        self.engine.drain()

    async def close(self) -> None:
        """Release everything. May be called twice."""
        await self.engine.close()
        if self._shared is None:
            await self._session.close()
        await self._queue.close()

    async def _begin_or_resume(self) -> None:
        current = {
            _FINGERPRINT: fingerprint(self.config),
            _SINKS: json.dumps(sink_fingerprints(self.config)),
            _RECORDS: record_fingerprint(self.config),
        }
        # One with a folder of its own is one batch for ever: if it has ended, nothing of it is done again.
        ended = _FINISHED in self._marks and not self._is_kept
        if _FINGERPRINT in self._marks and not ended and not self._fresh:
            self._refuse_others(current)
            for name in self._sinks:
                mark, stale = self._marks.get(name), self._marks.get(stale_key(name)) or None
                await self._check_sink(name, mark or stale, resume=mark is not None or stale is None)
            self.resumed = True
            return
        self._marks = current | await self._start_over()
        await self._queue.put([], self._marks)

    def _refuse_others(self, current: Mapping[str, str]) -> None:
        """Refuse to go on with other sources, whose jobs would mix, or other sinks, which would have but a part.

        So would what is in the sinks if there are other stages now, or other conditions and fields of a sink.
        """
        records = "stages, or the where, select or drop of a sink,"
        jobs = "sources" if self.config.pagination is None else "sources or the pagination"
        for name, what in ((_FINGERPRINT, jobs), (_SINKS, "sinks"), (_RECORDS, records)):
            # A run that began with an earlier version did not keep all of them.
            if self._marks.get(name, current[name] if name == _RECORDS else None) != current[name]:
                raise ConfigError(
                    f"the {what} of {self.config.name!r} are not those with which its unfinished run began; "
                    "put them back to resume it, or start over with --fresh"
                )

    async def _start_over(self) -> dict[str, str]:
        """Forget an earlier run, and delete what it wrote to the sinks that there still are.

        Return the marks by which sinks that are away delete it once they are there.
        """
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
        return {stale_key(name): mark for name, mark in earlier.items() if name in self._away}

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
        marks = {}
        for name, output in zip(self._sinks, sink_fingerprints(self.config), strict=True):
            if output in before:
                index = before.index(output)
                before[index] = None  # taken: there may be two that post to one address
                # Of one that was away through all of that run, what a run before it wrote is still to be deleted.
                marks[name] = self._marks.get(f"sink:{index}") or self._marks.get(stale_key(f"sink:{index}"))
        return {name: mark for name, mark in marks.items() if mark}


def keeps_budgets(config: Config) -> bool:
    """Tell whether a config has budgets that last longer than a run may."""
    limits = [config.limits.per_host, *config.limits.hosts.values()]
    budgets = [*(one.budget for one in limits), *(entry.budget for entry in getattr(config.http, "auth", []))]
    return any(allowance.period > 1 for budget in budgets for allowance in budget)


def plan(sink: Settings, index: int) -> Plan:
    """Return what the config of a sink says of its delivery; ``index`` counts from 1."""
    title = title_of(sink, index)
    if not isinstance(sink, SinkSettings):
        return Plan(title=title)
    batch = sink.batch
    return Plan(
        title=title,
        required=sink.required,
        patience=sink.patience,
        where=sink.where,
        reshape=without(sink.select, sink.drop),
        batching=None if batch is None else Batching(batch.size, batch.bytes, batch.linger),
    )


def retried(retry: RetrySettings, expect: ExpectSettings | None) -> RetrySettings:
    """Return which failures are tried again: what ``expect`` says of answers that are not what it is there for."""
    if expect is None:
        return retry
    errors = retry.errors | {ErrorKind.UNEXPECTED} if expect.retry else retry.errors - {ErrorKind.UNEXPECTED}
    return retry.model_copy(update={"errors": errors})


def dead_letters_path(batch: str, title: str, state_dir: Path | None = None) -> str:
    """Return the file of a sink's dead letters, which is under ``state/`` if the batch has no folder of its own."""
    return str(Path("state" if state_dir is None else state_dir) / f"{batch}.{title}.dead.jsonl")


def dead_letters(path: str) -> Sink:
    """Return where the records go that a sink does not take, though jobs do not wait for it."""
    settings = {"path": path, "format": "jsonl", "if_exists": "append"}
    sink: Sink = _built(config_class("sinks", "file").model_validate(settings))
    return sink


def _source(config: Any, index: int, only: Container[str] | None) -> Source:
    source: Source = _built(config)
    return source if only is None else ChosenSource(source, lambda row: id_in_batch(index, row) in only)


def _built(part: Any, *given: Any) -> Any:
    return part.build(*given)


def _replacing(sink: Any) -> Any:
    """Return a sink's config with which an output that is in the way gets replaced, where it has that choice."""
    in_the_way = getattr(sink, "if_exists", None) == "fail"
    return sink.model_copy(update={"if_exists": "replace"}) if in_the_way else sink
