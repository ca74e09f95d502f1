"""From the objects of an engine to what the API and the page show of them. Pure: time is passed in, in seconds.

Asked once a second at most, and bounded: what there may be a million of is cut to what a person can look at.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Literal

from fetcher.engine.hosts.accounts import opens_at
from fetcher.histogram import merged, quantile
from fetcher.jobs.intake import mask_userinfo
from fetcher.service.models import HostView, KindCount, Latency, Progress, SinkView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fetcher.assembly import Batch
    from fetcher.engine.hosts.host import Host
    from fetcher.pipeline.outlet import Outlet
    from fetcher.pipeline.tally import Tally

MOST_KINDS = 20
MOST_HOSTS = 30
MOST_SINKS = 50
# Hosts that are looked at to find those to show; beyond that a second is not enough to look at all of them.
_MOST_LOOKED_AT = 10_000
_LONGEST_URL = 600
_LONGEST_MESSAGE = 600
# Shorter rests are part of a rate, and no reason to look.
_RESTS = 1.0


def progress(batch: Batch, rate: float = 0.0) -> Progress:
    """Return how far a batch is that is open. ``rate``: jobs that ended per second, of late."""
    engine = batch.engine
    tally = engine.delivery.tally
    jobs = max(engine.added, tally.total)
    left = jobs - tally.total
    return Progress(
        jobs=jobs,
        read_all=engine.fed,
        outcomes={outcome.value: count for outcome, count in tally.outcomes.items()},
        left=left,
        in_flight=len(engine.running),
        duplicates=engine.duplicates,
        filtered=tally.filtered,
        retries=tally.retries,
        rate=round(rate, 3),
        eta=round(left / rate, 1) if rate > 0 and not engine.growing else None,
        elapsed=round(tally.elapsed, 3),
        statuses=dict(sorted(tally.status_classes.items())),
        kinds=kinds(tally),
        latency=latency(tally.latency),
        wire_bytes=tally.wire_bytes,
        body_bytes=tally.body_bytes,
        dead_letters=dict(tally.dead_letters),
    )


def kinds(tally: Tally) -> list[KindCount]:
    """Return the most frequent error kinds, each with one job to look at."""
    most = heapq.nlargest(MOST_KINDS, tally.kinds.items(), key=lambda item: item[1].count)
    return [
        KindCount(
            kind=name,
            count=kind.count,
            example_url=shown_url(kind.example_url),
            example_message=shortened(kind.example_message, _LONGEST_MESSAGE),
        )
        for name, kind in most
    ]


def latency(*histograms: Mapping[int, int]) -> Latency:
    """Return the percentiles of histograms, added up."""
    buckets = histograms[0] if len(histograms) == 1 else merged(histograms)
    return Latency(p50=quantile(buckets, 0.5), p90=quantile(buckets, 0.9), p99=quantile(buckets, 0.99))


def shown_url(url: str) -> str:
    """Return a URL without a password, and not longer than somebody looks at."""
    return shortened(mask_userinfo(url), _LONGEST_URL)


def shown_message(message: str | None) -> str:
    """Return what was said, not longer than somebody reads."""
    return shortened(message or "", _LONGEST_MESSAGE)


def shortened(text: str, most: int) -> str:
    """Return text of at most so many characters. Control characters are left to who shows it."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def host_views(hosts: Iterable[Host], now: float) -> list[HostView]:
    """Return the hosts in trouble and the busiest, the latter first."""
    found = [host for host in islice(hosts, _MOST_LOOKED_AT) if host.name]
    busiest = heapq.nlargest(MOST_HOSTS, found, key=_business)
    troubled = heapq.nlargest(MOST_HOSTS // 2, (host for host in found if _in_trouble(host, now)), key=_business)
    # Half of the places are for hosts in trouble: they are seldom the busy ones.
    shown = dict.fromkeys([*busiest[: MOST_HOSTS - len(troubled)], *troubled, *busiest])
    views = [host_view(host, now) for host in islice(shown, MOST_HOSTS)]
    return sorted(views, key=lambda view: (-view.in_flight, -view.waiting, view.host))


def host_view(host: Host, now: float) -> HostView:
    """Return one host."""
    configured, care = host.configured.concurrency, host.care
    return HostView(
        host=shortened(host.name, 253),
        in_flight=host.in_flight,
        waiting=host.waiting,
        limit=min(host.limits.concurrency, configured),
        configured=configured,
        interval=round(host.limits.interval, 3),
        rests=round(max(0.0, _opens_at(host, now) - now), 1),
        breaker=_breaker(host),
        crawl_delay=care.crawl_delay or None,
        latency=round(host.latency, 4) or None,
    )


def _business(host: Host) -> tuple[int, int]:
    return host.in_flight, host.waiting


def _in_trouble(host: Host, now: float) -> bool:
    return (
        bool(host.care.breakers)
        or host.limits.concurrency < host.configured.concurrency
        or _opens_at(host, now) > now + max(_RESTS, host.limits.interval)
    )


def _opens_at(host: Host, now: float) -> float:
    """Return when somebody may ask a host: batches may show it different credentials, each with a budget of its own."""
    return min((opens_at(line, now) for line in host.lines), default=host.free_at)


def _breaker(host: Host) -> Literal["closed", "paused", "down"]:
    if host.care.given_up:
        return "down"
    return "paused" if host.care.paused else "closed"


def sink_views(sinks: Iterable[tuple[str, Outlet]], now: float) -> list[SinkView]:
    """Return the sinks of batches, given with the id of theirs: those in trouble first, then those that lag most."""
    most = heapq.nlargest(MOST_SINKS, sinks, key=lambda item: (bool(item[1].troubles()), item[1].lag))
    return [sink_view(batch_id, outlet, now) for batch_id, outlet in most]


def sink_view(batch_id: str, outlet: Outlet, now: float) -> SinkView:
    """Return one sink of a batch."""
    trouble = next(iter(outlet.troubles()), None)
    return SinkView(
        batch=batch_id,
        sink=outlet.title,
        required=outlet.plan.required,
        writing=outlet.is_writing,
        lag=outlet.lag,
        errors=outlet.errors,
        trouble=None if trouble is None else shown_message(trouble[1].message),
        trouble_seconds=0.0 if trouble is None else round(max(0.0, now - trouble[1].since), 1),
        dead_letters=outlet.dead_letters,
    )
