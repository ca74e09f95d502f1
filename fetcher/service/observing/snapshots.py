"""The service at one moment, for the page: measured once a second, made only if somebody asks, once for everybody."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from datetime import UTC, datetime
from operator import length_hint
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from fetcher import __version__
from fetcher.errors import StateError
from fetcher.service.models import History, Moment, Snapshot, State
from fetcher.service.observing.recent import Rate, Recent
from fetcher.service.observing.views import host_views, progress, sink_views
from fetcher.service.observing.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fetcher.assembly import Batch
    from fetcher.engine.hosts.host import Host
    from fetcher.model import Result
    from fetcher.pipeline.outlet import Outlet
    from fetcher.service.models import BatchView, Progress, SinkView, Why

BEAT = 1.0
"""Seconds between two measurements, and the age at which a snapshot is made anew."""
MOST_BATCHES = 60
"""Batches that are shown; the API lists all of them."""
# A sink may have to try again now and then; after so many seconds people should know.
_PATIENCE = 5.0
_MOST_TROUBLES = 10
_MOMENTS = 300
# Of all batches that are shown together, but at least so many of each; the API has all that there are.
_MOST_KINDS = 200
_FEWEST_KINDS = 4


class Watched(Protocol):
    """What is looked at."""

    @property
    def running(self) -> Mapping[str, Batch]:
        """The batches that are open, by id."""

    def shown(self, most: int) -> Sequence[BatchView]:
        """Return those that have not ended, and the latest of those that have."""

    def counts(self) -> Mapping[str, int]:
        """Return how many there are in each state."""


class Facts(Protocol):
    """What the service says of itself."""

    @property
    def state(self) -> Literal["starting", "ready", "draining"]:
        """What it is at."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight now."""

    @property
    def troubles(self) -> Sequence[str]:
        """Why the service is not as it should be, beside what sinks are in."""

    @property
    def hosts(self) -> Iterable[Host]:
        """The hosts that are being fetched from."""

    @property
    def why(self) -> Why | None:
        """What bounds the throughput."""


class Snapshots:
    """``run`` measures once a second; ``observe`` is told of results as they are acknowledged.

    ``publish`` is called after each measurement, with a function that makes the snapshot: whoever has no listener
    does not call it.
    """

    def __init__(self, watched: Watched, facts: Facts) -> None:
        self._watched = watched
        self._facts = facts
        self._loop = asyncio.get_running_loop()
        self._recent = Recent(self._loop.time())
        self._vitals = Vitals()
        self._started = time.monotonic()
        self._rates: dict[str, Rate] = {}
        self._made: tuple[float, Snapshot] | None = None
        self._moments: deque[Moment] = deque(maxlen=_MOMENTS)

    def observe(self, results: Sequence[Result]) -> None:
        """Count results that were acknowledged."""
        self._recent.observe(results)

    def progress(self, batch_id: str, batch: Batch) -> Progress:
        """Return how far a batch is that is open."""
        rate = self._rates.get(batch_id)
        return progress(batch, 0.0 if rate is None else rate.value)

    async def run(self, publish: Callable[[Callable[[], Snapshot]], None]) -> None:
        """Measure until cancelled."""
        self._vitals.start()
        try:
            while True:
                self.tick()
                try:
                    publish(self.get)
                except StateError as error:
                    # The catalogue can not be read at this moment. Batches go on, and so does who looks at them.
                    structlog.get_logger().warning("snapshot_failed", reason=str(error))
                await asyncio.sleep(BEAT)
        finally:
            self._vitals.stop()

    def tick(self) -> None:
        """Measure: rates of batches, of all of them, and how the process is doing."""
        now, recent = self._loop.time(), self._recent
        recent.tick(now)
        self._vitals.update()
        running = self._watched.running
        self._rates = {batch_id: self._rates.get(batch_id) or Rate() for batch_id in running}
        for batch_id, batch in running.items():
            self._rates[batch_id].update(batch.engine.delivery.tally.total, now)
        recent.ids = _ids(running)
        self._moments.append(self._moment())
        self._made = None

    def _moment(self) -> Moment:
        recent = self._recent
        return Moment(
            at=datetime.now(UTC),
            rate=round(recent.rate, 2),
            in_flight=self._in_flight,
            wire_rate=round(recent.wire_rate, 1),
            cpu=round(self._vitals.cpu, 3),
            latency=recent.latency,
        )

    @property
    def _in_flight(self) -> int:
        return sum(len(batch.engine.running) for batch in self._watched.running.values())

    def history(self) -> History:
        """Return the last minutes, for charts."""
        return History(moments=list(self._moments))

    def get(self) -> Snapshot:
        """Return the service as it is, or was less than a second ago."""
        now = self._loop.time()
        if self._made is None or now - self._made[0] >= BEAT:
            self._made = now, self._make(now)
        return self._made[1]

    def _make(self, now: float) -> Snapshot:
        facts, recent, running = self._facts, self._recent, self._watched.running
        sinks = sink_views(_outlets(running), now)
        return Snapshot(
            at=datetime.now(UTC),
            version=__version__,
            uptime=round(time.monotonic() - self._started, 1),
            state=facts.state,
            trouble=[*facts.troubles, *_sink_troubles(sinks)][:_MOST_TROUBLES],
            in_flight=self._in_flight,
            concurrency=facts.concurrency,
            rate=round(recent.rate, 2),
            wire_rate=round(recent.wire_rate, 1),
            loop_lag=round(self._vitals.lag, 4),
            cpu=round(self._vitals.cpu, 3),
            memory=self._vitals.memory,
            latency=recent.latency,
            outcomes={outcome.value: count for outcome, count in recent.outcomes.items()},
            batches=_brief(self._watched.shown(MOST_BATCHES)),
            states={State(state): count for state, count in self._watched.counts().items()},
            hosts=host_views(facts.hosts, now),
            # There may be very many, of which nothing is to be known but how many.
            hosts_total=length_hint(iter(facts.hosts)),
            sinks=sinks,
            failures=recent.failures(),
            why=facts.why,
        )


def _brief(batches: Sequence[BatchView]) -> list[BatchView]:
    """Return batches with fewer error kinds the more batches there are, as all of it is sent every second."""
    most = max(_FEWEST_KINDS, _MOST_KINDS // max(1, len(batches)))
    return [
        batch.model_copy(update={"progress": batch.progress.model_copy(update={"kinds": batch.progress.kinds[:most]})})
        if len(batch.progress.kinds) > most
        else batch
        for batch in batches
    ]


def _ids(running: Mapping[str, Batch]) -> dict[str, str]:
    """Return the ids of batches by name, but for names that several have."""
    names = Counter(batch.config.name for batch in running.values())
    return {batch.config.name: batch_id for batch_id, batch in running.items() if names[batch.config.name] == 1}


def _outlets(running: Mapping[str, Batch]) -> Iterator[tuple[str, Outlet]]:
    for batch_id, batch in running.items():
        for outlet in batch.engine.delivery.outlets:
            yield batch_id, outlet


def _sink_troubles(sinks: Iterable[SinkView]) -> list[str]:
    return [
        f"{sink.sink} of {sink.batch} has taken nothing for {sink.trouble_seconds:.0f} s: {sink.trouble}"
        for sink in sinks
        if sink.trouble is not None and sink.trouble_seconds >= _PATIENCE
    ]
