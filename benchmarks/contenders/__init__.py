"""Ways to fetch a file of URLs. Each is a module with a function ``fetch``, and is run as its own process.

    python -m benchmarks.contenders NAME --urls FILE --folder FOLDER [--concurrency N --per-host N ...]

prints one JSON line, a ``Fetched``. A contender imports its library at the top and lets the ImportError out;
``__main__.py`` makes it an answer that says what to install. What it can not do it says by an UnableError.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

_KIB = 1024


class UnableError(Exception):
    """The contender has no way to do what the task asks for; the text says what, and may say what helps."""


class Task(msgspec.Struct, frozen=True):
    """What to fetch: a URL a line, so many at a time. Whatever has to be written goes into ``folder``.

    Names that end in ``.test`` are at 127.0.0.1. Contenders with threads take ``threads`` of them, or
    ``concurrency`` if that is less. ``ca`` is the one certificate authority to trust. ``variant``
    names one of ``benchmarks/variants.py``, which only ``fetcher_variant`` heeds.
    """

    urls: Path
    folder: Path
    concurrency: int = 100
    per_host: int = 100
    threads: int = 32
    ca: Path | None = None
    variant: str = ""

    def read(self) -> list[str]:
        """Return the URLs."""
        return self.urls.read_text(encoding="utf-8").split()

    @property
    def workers(self) -> int:
        """How many threads there are to be."""
        return min(self.threads, self.concurrency)


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
    unable: str | None = None

    def add(self, body: Sized | int) -> None:
        """Count a response that is whole and has a good status, by its body or the length of that."""
        self.count += 1
        self.bytes += body if isinstance(body, int) else len(body)


@contextmanager
def metered(who: int = resource.RUSAGE_SELF) -> Iterator[Fetched]:
    """Measure what is done inside, by this process or by its children, and put it into what is yielded."""
    fetched = Fetched()
    cpu, begin = _cpu_seconds(who), time.perf_counter()
    yield fetched
    fetched.seconds = time.perf_counter() - begin
    fetched.cpu_s = _cpu_seconds(who) - cpu
    fetched.max_rss = fetched.max_rss or peak_rss()


def peak_rss(process: str | int = "self") -> int:
    """Return the most memory that a process ever had, in bytes."""
    try:
        # getrusage would count what the parent had at the moment of the fork as well.
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * _KIB
    except OSError:
        return rusage_rss(resource.getrusage(resource.RUSAGE_SELF))


def rusage_rss(usage: resource.struct_rusage) -> int:
    """Return the peak memory that an rusage tells, in bytes; only macOS has it in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


def _cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
