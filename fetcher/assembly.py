"""The composition root: from a Config to a batch that runs. Nothing else knows both parts and engine."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from fetcher.config import fingerprint
from fetcher.config.model import sink_fingerprints
from fetcher.engine.engine import Engine, Parts
from fetcher.errors import ConfigError, StateBusyError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fetcher.config import Config
    from fetcher.interfaces import Queue, Sink, Source, Transport

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
        self._fresh = fresh
        self._marks: Mapping[str, str] = {}
        self._sources: list[Source] = [_built(source) for source in config.sources]
        self._queue: Queue = _built(config.queue)
        self._sinks: dict[str, Sink] = {
            f"sink:{index}": _built(_replacing(sink) if fresh else sink) for index, sink in enumerate(config.sinks)
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
                sinks=self._sinks,
                limits=config.limits,
                retry=config.retry,
                default_method=config.request.method.upper(),
                dedupe=config.dedupe,
                shutdown_timeout=config.shutdown_timeout,
            )
        )

    def check(self) -> None:
        """Raise ConfigError for inputs that can not be read. Opens and changes nothing."""
        for source in self._sources:
            source.check()

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
        await self.engine.run(self._marks)
        if self.engine.finished:
            await self._queue.put([], {_FINISHED: str(int(time.time()))})
        return self.engine.finished

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
            for name, sink in self._sinks.items():
                await sink.check(self._marks.get(name), resume=True)
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
        for name, sink in self._sinks.items():
            try:
                await sink.check(earlier.get(name), resume=False)
            except StateBusyError:
                raise
            except StateError:
                if not self._fresh or name not in earlier:
                    raise
                # It is no longer what the earlier run left: whatever it is, it was there before this run.
                del earlier[name]
                await sink.check(None, resume=False)
        # Not before all of them are known to be usable; and the marks go last, by which what is left is known as ours.
        for name, mark in earlier.items():
            await self._sinks[name].discard(mark)
        if self._marks:
            await self._queue.clear()

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


def _built(part: Any) -> Any:
    return part.build()


def _replacing(sink: Any) -> Any:
    """Return a sink's config with which an output that is in the way gets replaced, where it has that choice."""
    in_the_way = getattr(sink, "if_exists", None) == "fail"
    return sink.model_copy(update={"if_exists": "replace"}) if in_the_way else sink
