"""The same over TLS: with connections that are kept, and with a handshake for each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from benchmarks.cases import Case, Options, Report
from benchmarks.contest import SIZE, contest, merged

if TYPE_CHECKING:
    from benchmarks.measure import Bench

_HANDSHAKES = 0.3  # of the requests: each takes several times as long


def run(bench: Bench, options: Options) -> Report:
    """Let everyone fetch over TLS, in both ways."""
    few = msgspec.structs.replace(options, requests=max(1, round(options.requests * _HANDSHAKES)))
    kept = f"{SIZE:,} bytes, TLS, keep-alive, {options.concurrency:,} in flight"
    each = f"{SIZE:,} bytes, a TLS handshake for each request, {options.concurrency:,} in flight"
    report = merged(
        [
            contest(bench, options, "tls-kept", kept, f"/bytes/{SIZE}", tls=True),
            contest(bench, few, "tls-handshake", each, f"/once/{SIZE}", tls=True),
        ]
    )
    report.notes.append("curl and pycurl are told not to resume sessions; pyreqwest (rustls) does, and can not be told")
    report.notes.append("blocking_socket and socket_threads shake hands for each request in both tables")
    return report


CASE = Case(
    goal="Over TLS a connection that is kept costs little more than one in the clear, and one for each "
    "request costs a handshake, which no way of waiting makes cheaper: keeping connections matters most here.",
    run=run,
    requests=4_000,
    repeat=3,
    contest=True,
)
