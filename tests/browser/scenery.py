"""A service to look at, without one that runs: snapshots with everything in them that a page has to show."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

from fetcher.service.models import (
    BatchView,
    Bound,
    FailureView,
    History,
    HostView,
    KindCount,
    Latency,
    Moment,
    Progress,
    SinkView,
    Snapshot,
    State,
    Why,
)

BEGAN = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
_KINDS = [
    ("http_4xx", 1204, "https://shop.example.net/p/884213?ref=sitemap", "404 Not Found"),
    ("read_timeout", 311, "https://slow.example.com/reports/2025/annual.pdf", "nothing came for 30 s after 84 KiB"),
    ("dns_not_found", 96, "https://no-such-name.example/", "there is no such name: no-such-name.example"),
]


def snapshot(second: float = 0.0) -> Snapshot:
    """Return the service in its so many-th second: it is deterministic, and moves."""
    at = BEGAN + timedelta(seconds=second)
    return Snapshot(
        at=at,
        version="0.1.0",
        uptime=91_240 + second,
        state="ready",
        in_flight=_in_flight(second),
        concurrency=200,
        rate=_rate(second),
        wire_rate=_rate(second) * 18_400,
        loop_lag=0.0031,
        cpu=0.62,
        memory=214_000_000,
        latency=_latency(second),
        outcomes={"ok": 812_345, "failed": 1_611, "skipped": 220},
        trouble=[
            "webhook-2 of news-20260302T093000-77aa has taken nothing for 41 s: 503 from https://hooks.example.org/in"
        ],
        batches=batches(second),
        states={"running": 2, "queued": 1, "paused": 1, "failed": 1, "done": 412, "cancelled": 1},
        hosts=hosts(),
        hosts_total=1_482,
        sinks=sinks(),
        failures=failures(at),
        why=why(),
    )


def empty() -> Snapshot:
    """Return a service that has nothing to do yet."""
    return Snapshot(
        at=BEGAN,
        version="0.1.0",
        uptime=12,
        state="ready",
        in_flight=0,
        concurrency=200,
        rate=0,
        loop_lag=0.0004,
        cpu=0.01,
        memory=84_000_000,
        batches=[],
    )


def history(seconds: int = 280) -> History:
    """Return the minutes before."""
    return History(
        moments=[
            Moment(
                at=BEGAN + timedelta(seconds=second - seconds),
                rate=_rate(second),
                in_flight=_in_flight(second),
                wire_rate=_rate(second) * 18_400,
                cpu=0.6,
                latency=_latency(second),
            )
            for second in range(seconds)
        ]
    )


def batches(second: float) -> list[BatchView]:
    """Return one batch in each state."""
    done = 412_000 + int(second * 900)
    running = Progress(
        jobs=1_200_000,
        read_all=True,
        outcomes={"ok": done, "failed": 1_611, "skipped": 220},
        left=1_200_000 - done - 1_831,
        in_flight=_in_flight(second),
        retries=902,
        rate=_rate(second),
        eta=(1_200_000 - done) / _rate(second),
        elapsed=484.0,
        statuses={"2xx": done, "4xx": 1_204, "5xx": 12},
        kinds=[KindCount(kind=k, count=n, example_url=url, example_message=text) for k, n, url, text in _KINDS],
        latency=Latency(p50=0.084, p90=0.31, p99=1.42),
        wire_bytes=7_731_000_000,
        body_bytes=31_100_000_000,
        duplicates=1_204,
    )
    reading = Progress(jobs=8_400, outcomes={"ok": 610}, left=7_790, in_flight=16, rate=41.5, elapsed=14.7)
    ended = Progress(jobs=20_000, read_all=True, outcomes={"ok": 19_652, "failed": 348}, elapsed=63.2)
    half = Progress(jobs=50_000, read_all=True, outcomes={"ok": 21_400, "failed": 3}, left=28_597, elapsed=120)
    return [
        _batch("shop-sitemap", State.RUNNING, running, 9, priority=5, weight=2.0),
        _batch("news", State.RUNNING, reading, 1),
        _batch("prices-nightly", State.QUEUED, Progress(), 2, reason="waits for its turn: 16 batches are running"),
        _batch("archive", State.PAUSED, half, 60),
        _batch(
            "images",
            State.FAILED,
            half,
            90,
            reason="sink file-1: no space left on /data/images.jsonl; free some, then retry",
        ),
        _batch("robots-check", State.DONE, ended, 130),
        _batch("old-list", State.CANCELLED, half, 220),
    ]


def _batch(name: str, state: State, progress: Progress, minutes: int, **more) -> BatchView:
    created = BEGAN - timedelta(minutes=minutes)
    is_ended = state in (State.DONE, State.FAILED, State.CANCELLED)
    return BatchView(
        id=f"{name}-{created:%Y%m%dT%H%M%S}-7{len(name):x}a1",
        name=name,
        state=state,
        origin="api",
        progress=progress,
        created_at=created,
        started_at=None if state is State.QUEUED else created + timedelta(seconds=1),
        finished_at=created + timedelta(seconds=progress.elapsed) if is_ended else None,
        **more,
    )


def hosts() -> list[HostView]:
    """Return hosts as they may be."""
    chance = random.Random(7)
    busy = [
        HostView(
            host=f"{name}.example.{end}",
            in_flight=8 - n // 3,
            waiting=chance.randrange(20, 64),
            limit=8,
            configured=8,
            latency=chance.uniform(0.03, 0.4),
        )
        for n, (name, end) in enumerate(
            [("shop", "net"), ("www", "org"), ("cdn", "com"), ("img", "net"), ("api", "io")]
        )
    ]
    return [
        *busy,
        HostView(host="slow.example.com", in_flight=2, waiting=40, limit=2, configured=8, latency=2.31),
        HostView(
            host="polite.example.org",
            in_flight=1,
            waiting=2,
            limit=1,
            configured=1,
            interval=5,
            crawl_delay=5,
            latency=0.2,
            rests=3,
        ),
        HostView(host="busy.example.edu", in_flight=0, waiting=12, limit=1, configured=8, rests=84, latency=0.12),
        HostView(host="flaky.example.net", in_flight=0, waiting=8, limit=1, configured=8, rests=17, breaker="paused"),
        HostView(host="gone.example", in_flight=0, waiting=0, limit=8, configured=8, breaker="down"),
    ]


def sinks() -> list[SinkView]:
    """Return sinks, one of them in trouble."""
    first, second = (batch.id for batch in batches(0)[:2])
    return [
        SinkView(
            batch=second,
            sink="webhook-2",
            required=False,
            lag=610,
            errors=9,
            trouble="503 from https://hooks.example.org/in",
            trouble_seconds=41.0,
            dead_letters=120,
        ),
        SinkView(batch=first, sink="postgres-1", writing=True, lag=512),
        SinkView(batch=first, sink="results"),
    ]


def failures(at: datetime) -> list[FailureView]:
    """Return the latest failures."""
    batch = batches(0)[0].id
    found = [
        FailureView(
            at=at - timedelta(seconds=3 * n),
            batch=batch,
            url=f"{url}&n={n}" if n > 2 else url,
            kind=kind,
            message=text,
            attempts=1 + n % 4,
        )
        for n, (kind, _, url, text) in enumerate(_KINDS * 4)
    ]
    long = "https://cdn.example.net/very/long/path/" + "segment/" * 20 + "index.html?token=abc"
    return [FailureView(at=at, batch=batch, url=long, kind="http_5xx", message="502 Bad Gateway", attempts=4), *found]


def why() -> Why:
    """Return what bounds the throughput."""
    return Why(
        seconds=30,
        verdict="Host limits bound the throughput: 71 % of the slots wait for hosts that are at their limit.",
        bounds=[
            Bound(
                name="host limits",
                share=0.71,
                explanation="Jobs wait for hosts that have as many requests in flight as they may.",
                advice="If those hosts are yours, raise limits.per_host.concurrency (now 8).",
                details=["shop.example.net", "www.example.org"],
            ),
            Bound(
                name="origin latency",
                share=0.22,
                explanation="Requests wait for the first byte of the answer.",
                advice="Nothing to do here; more in flight hides it: limits.concurrency.",
            ),
            Bound(
                name="a sink",
                share=0.07,
                explanation="postgres-1 takes what it is given late.",
                advice="Give it larger batches: sinks[1].batch.size.",
            ),
        ],
    )


def _rate(second: float) -> float:
    return 900 + 90 * math.sin(second / 17) + 40 * math.sin(second / 3.1)


def _in_flight(second: float) -> int:
    return int(168 + 22 * math.sin(second / 11))


def _latency(second: float) -> Latency:
    wave = 1 + 0.2 * math.sin(second / 23)
    return Latency(p50=0.084 * wave, p90=0.31 * wave, p99=1.1 * wave * wave)
