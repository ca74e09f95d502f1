"""Ways to fetch a file of URLs. Each is a module that ends in ``main(fetch)`` and is run as its own process.

    python -m benchmarks.contenders.NAME --urls FILE --folder FOLDER [--concurrency N --per-host N --cpu N]

prints one JSON line, a ``Fetched``. Where its library is not installed, it lets the ImportError out.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KIB = 1024


class Task(msgspec.Struct, frozen=True):
    """What to fetch: a URL a line, so many at a time. Whatever has to be written goes into ``folder``.

    Names that end in ``.test`` are at 127.0.0.1.
    """

    urls: Path
    folder: Path
    concurrency: int = 100
    per_host: int = 100


class Fetched(msgspec.Struct):
    """What came of it: responses and bytes of bodies, counted as they were received.

    ``seconds`` and ``cpu_s`` go from before the first request to after the last, without the start of the
    process. Only some contenders know the rest: ``started_at`` and ``first_fetch_at`` in epoch seconds;
    ``span_s`` from the start of the first request to the end of the last response; the mean time from the
    start of a request to the end of its response, ``service_s``; and its sum over all jobs of the host where
    that is greatest, ``busiest_host_s``.
    """

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    max_rss: int = 0
    started_at: float | None = None
    first_fetch_at: float | None = None
    span_s: float | None = None
    service_s: float | None = None
    busiest_host_s: float | None = None


@contextmanager
def metered() -> Iterator[Fetched]:
    """Measure what is done inside and put it into what is yielded."""
    fetched = Fetched()
    cpu, begin = _cpu_seconds(), time.perf_counter()
    yield fetched
    fetched.seconds = time.perf_counter() - begin
    fetched.cpu_s = _cpu_seconds() - cpu
    fetched.max_rss = peak_rss()


def main(fetch: Callable[[Task], Fetched]) -> None:
    """Run a contender as a process: its task from the command line, its figures to stdout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--urls", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--per-host", type=int, default=100)
    parser.add_argument("--cpu", type=int)
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    fetched = fetch(Task(given.urls, given.folder, given.concurrency, given.per_host))
    sys.stdout.write(msgspec.json.encode(fetched).decode() + "\n")


def peak_rss() -> int:
    """Return the most memory that this process ever had, in bytes."""
    try:
        # getrusage would count what the parent had at the moment of the fork as well.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * _KIB
    except OSError:
        return rusage_rss(resource.getrusage(resource.RUSAGE_SELF))


def rusage_rss(usage: resource.struct_rusage) -> int:
    """Return the peak memory that an rusage tells, in bytes; only macOS has it in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
