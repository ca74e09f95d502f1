"""What the API, the events, the page and the client exchange. The OpenAPI document is made from these models.

Times are ISO 8601 in UTC, durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


Text = Annotated[str, AfterValidator(_encodable)]
"""What others have said. UTF-8 can not write lone surrogates, as raw bytes in a header become; they are ``?``."""


class Model(BaseModel):
    """A value of the API."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class State(StrEnum):
    """What a batch is at.

    queued -> running -> done | failed | cancelled, and running <-> paused. ``failed`` is a batch that something has
    stopped (``reason`` says what) before all of its jobs had ended; jobs that failed do not make a batch fail.
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})

Origin = Literal["api", "folder", "schedule", "retry"]


class KindCount(Model):
    """An error kind, how many jobs ended with it, and one of them."""

    kind: Text
    count: int
    example_url: Text
    example_message: Text


class Latency(Model):
    """Of the responses of a batch or of the last minute, in seconds from the start of the attempt to its end."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Progress(Model):
    """How far a batch is, over all of its runs: ``jobs`` = the outcomes + ``left``, always."""

    jobs: int = 0
    """Read from the sources so far."""
    read_all: bool = False
    """Whether the sources have been read to their end: before, ``jobs`` is not final."""
    outcomes: dict[Literal["ok", "failed", "skipped"], int] = {}
    """Of jobs that have ended."""
    left: int = 0
    """Jobs that have not ended."""
    in_flight: int = 0
    """Requests at this moment."""
    duplicates: int = 0
    """Rows that named a job that was there already."""
    filtered: int = 0
    """Records that a stage has dropped."""
    retries: int = 0
    rate: float = 0.0
    """Jobs that ended per second, of late."""
    eta: float | None = None
    """Seconds to the end at this rate, if that can be told."""
    elapsed: float = 0.0
    """Seconds of running."""
    statuses: dict[str, int] = {}
    """Responses by class: 2xx, 4xx."""
    kinds: list[KindCount] = []
    """Why jobs have failed or were skipped, the most frequent first."""
    latency: Latency = Latency()
    wire_bytes: int = 0
    body_bytes: int = 0
    dead_letters: dict[Text, int] = {}
    """Records that a sink did not take though jobs did not wait for it, by sink."""


class BatchView(Model):
    """A batch."""

    id: str
    name: Text
    state: State
    reason: Text | None = None
    """Why it is in this state, where there is more to say."""
    origin: Origin
    retry_of: str | None = None
    """The batch whose failed jobs these are."""
    priority: int = 0
    weight: float = 1.0
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exceeded: bool = False
    """Whether more jobs have failed than its max_failures allows."""
    progress: Progress = Progress()


class BatchPage(Model):
    """Some batches, the latest first. ``next`` is the cursor of those after them, null if there are none."""

    batches: list[BatchView]
    next: str | None = None


class HostView(Model):
    """A host that is being fetched from."""

    host: Text
    in_flight: int
    waiting: int
    """Jobs in the window, not all that there are."""
    limit: int
    """Requests in flight that are allowed now; less than ``configured`` if it has shown signs of overload."""
    configured: int
    interval: float = 0.0
    """Seconds between two starts that are kept now."""
    rests: float = 0.0
    """For how many seconds it may not be asked."""
    breaker: Literal["closed", "paused", "down"] = "closed"
    crawl_delay: float | None = None
    latency: float | None = None


class SinkView(Model):
    """A sink of a running batch."""

    batch: Text
    sink: Text
    required: bool = True
    writing: bool = False
    lag: int = 0
    """Records that it does not have yet."""
    errors: int = 0
    trouble: Text | None = None
    """What it said last, while it does not take records."""
    trouble_seconds: float = 0.0
    dead_letters: int = 0


class FailureView(Model):
    """A job that failed of late."""

    at: datetime
    batch: Text
    url: Text
    kind: Text
    message: Text
    status: int | None = None
    attempts: int = 1


class Bound(Model):
    """One thing that bounds the throughput, with its share of all waiting (0 to 1)."""

    name: Text
    share: float
    explanation: Text
    advice: Text
    details: list[Text] = []
    """Whom it concerns most: hosts, sinks."""


class Why(Model):
    """What bounds the throughput right now, the largest share first. The shares add up to 1, or there are none."""

    seconds: float
    """Over which time this was measured."""
    verdict: Text
    """One sentence."""
    bounds: list[Bound] = []


class Snapshot(Model):
    """The service at one moment: what the page shows. Sent once a second to everybody who listens."""

    at: datetime
    version: str
    uptime: float
    state: Literal["starting", "ready", "draining"]
    trouble: list[Text] = []
    """Why the service is not as it should be: a sink that takes nothing, a config that could not be loaded."""
    in_flight: int
    concurrency: int
    """How many requests may be in flight now."""
    rate: float
    """Jobs ended per second, of late, all batches."""
    wire_rate: float = 0.0
    """Bytes received per second."""
    loop_lag: float
    """How late the event loop was at its worst in the last second."""
    cpu: float
    """Share of one core that this process took in the last second."""
    memory: int
    """Bytes of resident memory."""
    latency: Latency = Latency()
    """Of the last minute."""
    outcomes: dict[str, int] = {}
    """Jobs that ended since the service was started."""
    batches: list[BatchView]
    """Those that have not ended, and the latest of those that have."""
    states: dict[State, int] = {}
    """How many batches there are in each state."""
    hosts: list[HostView] = []
    """The busiest, and those in trouble."""
    hosts_total: int = 0
    sinks: list[SinkView] = []
    failures: list[FailureView] = []
    """The latest, the last one first."""
    why: Why | None = None


class Moment(Model):
    """What the charts of the page show of one second."""

    at: datetime
    rate: float
    in_flight: int
    wire_rate: float = 0.0
    cpu: float = 0.0
    latency: Latency = Latency()


class History(Model):
    """The last minutes, the oldest moment first. Sent once, before the first snapshot."""

    moments: list[Moment] = []


class HostList(Model):
    """The busiest hosts, and those in trouble; ``total`` counts all that are being fetched from."""

    hosts: list[HostView]
    total: int


class SinkList(Model):
    """The sinks of running batches."""

    sinks: list[SinkView]


class FailureList(Model):
    """The jobs that failed of late, the last one first."""

    failures: list[FailureView]


class Schedule(Model):
    """A batch that is submitted again and again."""

    name: Text
    cron: str | None = None
    every: float | None = None
    timezone: str
    overlap: Literal["skip", "queue", "cancel"]
    missed: Literal["skip", "once"]
    next: datetime | None = None
    """The next time; in the past if its batch waits or could not be submitted."""
    last: datetime | None = None
    """The time of the last batch that was submitted."""
    last_batch: str | None = None
    """The id of that one."""
    waiting: bool = False
    """Whether a batch waits for the one before to end."""
    trouble: Text | None = None
    """Why the last one was not submitted."""


class ScheduleList(Model):
    """The schedules, in the order of the config."""

    schedules: list[Schedule] = []


class Problem(Model):
    """What went wrong (RFC 9457, application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: Text | None = None
    problems: list[Text] = Field(default=[])
    """Everything that is wrong with what was submitted, each with line and field."""
