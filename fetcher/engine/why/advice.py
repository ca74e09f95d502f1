"""What may bound the throughput, in words: what it means, and what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL = 0.5
"""For so many seconds an answer, or the next part of a body, may be on its way before that is worth a word."""


class Bound(StrEnum):
    """What a slot may wait for."""

    HOST_LIMITS = "host limits"
    RATE = "host rate"
    BUDGET = "budget"
    CRAWL_DELAY = "crawl delay"
    LEARNT = "overloaded hosts"
    REST = "hosts at rest"
    BREAKER = "hosts that are down"
    CONCURRENCY = "concurrency"
    SERVICE = "concurrency of the service"
    TOKEN = "token endpoint"  # noqa: S105  no secret
    ROBOTS = "robots.txt"
    PROXY = "proxy"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    ORIGIN = "latency of the origin"
    TRANSFER = "transfer of bodies"
    CPU = "cpu"
    SINK = "sink"
    QUEUE = "queue"
    RETRIES = "retries"
    SOURCE = "empty queue"


ADVICE: Mapping[Bound, tuple[str, str]] = {
    Bound.HOST_LIMITS: (
        "Jobs wait for hosts that have as many requests in flight as they may have.",
        (
            "If these hosts are yours, or allow it, raise limits.per_host.concurrency of the batch, or limits.hosts "
            "for some of them; of batches that ask the same host the strictest counts. Otherwise only jobs of other "
            "hosts would help."
        ),
    ),
    Bound.RATE: (
        "Jobs wait for hosts that may not be asked more often.",
        (
            "If these hosts allow it, raise limits.per_host.rate of the batch or lower its limits.per_host.delay, or "
            "limits.hosts for some of them; of batches that ask the same host the strictest counts."
        ),
    ),
    Bound.BUDGET: (
        "Jobs wait for budgets that are used up: of keys, of hosts, or what servers say is left (RateLimit headers).",
        (
            "If that is more than was agreed upon, raise the budget of http.auth, limits.per_host or limits.hosts; "
            "batches that use the same credentials share one. What a server says itself, nothing but time helps."
        ),
    ),
    Bound.CRAWL_DELAY: (
        "Jobs wait for hosts whose robots.txt asks for a pause between two requests.",
        "That is their wish. For hosts of your own: http.robots: ignore.",
    ),
    Bound.LEARNT: (
        "Jobs wait for hosts that are asked for less, because they have shown signs of overload.",
        "Lower limits.per_host.concurrency to what they can bear; if they are well, see limits.adapt.",
    ),
    Bound.REST: (
        "Jobs wait for hosts that have asked to be left alone for a while (429, 503, Retry-After), or need a token.",
        "Nothing but time helps; a lower limits.per_host.rate avoids the one, a token endpoint that is up the other.",
    ),
    Bound.BREAKER: (
        "Jobs wait for hosts that do not answer, and are only tried now and then.",
        "Look whether they can be reached from here; limits.breaker says how long they are tried.",
    ),
    Bound.CONCURRENCY: (
        "As many requests are in flight as the batch may have, while more jobs could start.",
        "Raise limits.concurrency of the batch; `fetcher tune` finds out how far that helps.",
    ),
    Bound.SERVICE: (
        "As many requests are in flight as all batches of the service may have, while more jobs could start.",
        (
            "Raise limits.concurrency in the config of the service (and of the batch, if it has its own); weight and "
            "priority of batches say who is served first."
        ),
    ),
    Bound.TOKEN: (
        "Requests wait for a token of OAuth 2.0.",
        "Its endpoint (token_url of http.auth) is slow; it is asked once for all who wait.",
    ),
    Bound.ROBOTS: (
        "Requests wait for the robots.txt of their host.",
        "Hosts are slow to send it; http.robots_timeout bounds the wait.",
    ),
    Bound.PROXY: (
        "Requests wait for a proxy.",
        "Add proxies to http.proxy, or look at how the ones that there are do.",
    ),
    Bound.DNS: (
        "Requests wait for the address of their host.",
        "Name a faster name server in http.dns, or give the addresses in http.resolve.",
    ),
    Bound.CONNECT: (
        "Requests wait for a connection to be opened.",
        (
            "Raise http.keep_alive so that connections are used again; look at the network, and at how many "
            "connections the hosts accept."
        ),
    ),
    Bound.TLS: (
        "Requests wait for TLS handshakes.",
        "Raise http.keep_alive so that connections are used again.",
    ),
    Bound.ORIGIN: (
        f"Requests wait for longer than {USUAL:g} s until their host begins to answer.",
        (
            "The hosts are slow. If they can answer more at a time, raise limits.concurrency and "
            "limits.per_host.concurrency; `fetcher tune` finds out. If they are overloaded, lower them."
        ),
    ),
    Bound.TRANSFER: (
        "Requests wait for bodies that take long to arrive.",
        (
            "The network or the hosts are slow. body.max_size, request.min_rate and http.range bound what one body may "
            "cost; raise limits.concurrency if the network has room."
        ),
    ),
    Bound.CPU: (
        "This process does not come round to what has arrived: its core is busy, or something blocks its loop.",
        (
            "Look at what costs time: stages, body.store, parquet or compressed outputs. More concurrency does not "
            "help; a second process for other batches does."
        ),
    ),
    Bound.SINK: (
        "Results wait for a sink or a stage, and requests wait for them.",
        (
            "Make that sink faster: a larger batch (sinks[].batch.size), a nearer or stronger server; or let jobs not "
            "wait for it (sinks[].required: false)."
        ),
    ),
    Bound.QUEUE: (
        "Slots wait for jobs to be taken out of the queue.",
        "The disk of the queue is slow: move it (queue.path, service.state_dir) or use queue.type: memory.",
    ),
    Bound.RETRIES: (
        "All jobs that are left wait to be tried again.",
        "Shorter pauses: retry.backoff and retry.max_backoff; fewer attempts: retry.attempts.",
    ),
    Bound.SOURCE: (
        "There are no jobs: sources are still being read, and bring fewer than could be fetched.",
        "A faster source, or several: sources[].",
    ),
}
"""What it means that slots wait for something, and what to do about it."""

OF_SERVICE: Mapping[Bound, str] = {
    Bound.HOST_LIMITS: (
        "If these hosts are yours, or allow it, raise limits.per_host.concurrency in the config of the service, or "
        "limits.hosts there for some of them (and of the batch, if it has its own). Otherwise only jobs of other hosts "
        "would help."
    ),
    Bound.RATE: (
        "If these hosts allow it, raise limits.per_host.rate or lower limits.per_host.delay in the config of the "
        "service, or limits.hosts there for some of them (and of the batch, if it has its own)."
    ),
    Bound.LEARNT: (
        "Lower limits.per_host.concurrency to what they can bear; if they are well, see limits.adapt in the config of "
        "the service."
    ),
    Bound.BREAKER: (
        "Look whether they can be reached from here; limits.breaker in the config of the service says how long they "
        "are tried."
    ),
}
"""What to do instead if it is the config of the service that says so, and not that of a batch."""
