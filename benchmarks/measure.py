"""Running contenders so that their figures can be compared.

Each run is a process of its own, pinned to one core, with the origin on another. Contenders take turns
(A B A B ...), so that whatever else the machine does meets all of them; compared are the runs of one round.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks.contenders import Fetched
from tests.origin_process import OriginProcess, origin_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TREE = Path(__file__).parents[1]
_LONGEST = 3600.0  # seconds that one run may take


class ContenderError(Exception):
    """A contender broke down, or did not get everything."""


class Entrant(msgspec.Struct, frozen=True):
    """A contender and its task, with what it has to get: so many responses, and bytes of bodies in all."""

    label: str
    module: str
    urls: Path
    count: int
    bytes: int
    concurrency: int = 100
    per_host: int = 100


class Sample(msgspec.Struct):
    """One run. ``process_s`` goes from before the start of the process to after its end."""

    label: str
    fetched: Fetched
    process_s: float
    started_at: float
    origin_cpu_s: float | None

    @property
    def rate(self) -> float:
        """Responses a second."""
        return self.fetched.count / self.fetched.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU time for each response."""
        return self.fetched.cpu_s / self.fetched.count * 1e6

    @property
    def first_fetch_s(self) -> float:
        """Seconds from the start of the process to the first fetch, not a number if it did not say."""
        return (self.fetched.first_fetch_at or float("nan")) - (self.fetched.started_at or self.started_at)


Round = dict[str, Sample]


class Spread(msgspec.Struct, frozen=True):
    """The median of some figures, and how far they lie apart."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up some figures."""
    return Spread(median(values), min(values), max(values))


class Bench:
    """An origin, a folder to work in, and the core on which contenders run."""

    def __init__(self, origin: OriginProcess, folder: Path, cpu: int | None) -> None:
        self.origin = origin
        self.folder = folder
        self._cpu = cpu

    def rounds(self, entrants: Sequence[Entrant], repeat: int) -> list[Round]:
        """Let every entrant run ``repeat`` times, in turns. Raises ContenderError."""
        return [
            {entrant.label: self.run(entrant, f"{number}/{repeat}") for entrant in entrants}
            for number in range(1, repeat + 1)
        ]

    def run(self, entrant: Entrant, turn: str = "") -> Sample:
        """Run one entrant and verify that it got everything. Raises ContenderError if not."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            command = self._command(entrant, folder)
            origin_cpu = _cpu_of(self.origin.pid)
            started_at, begin = time.time(), time.perf_counter()
            output = _output_of(command, entrant.label)
            process_s = time.perf_counter() - begin
        fetched = msgspec.json.decode(output, type=Fetched)
        if (fetched.count, fetched.bytes) != (entrant.count, entrant.bytes):
            raise ContenderError(
                f"{entrant.label}: got {fetched.count:,} responses with {fetched.bytes:,} bytes; "
                f"it was asked for {entrant.count:,} with {entrant.bytes:,}"
            )
        after = _cpu_of(self.origin.pid)
        spent = None if origin_cpu is None or after is None else after - origin_cpu
        sample = Sample(entrant.label, fetched, process_s, started_at, spent)
        sys.stderr.write(f"  {turn} {entrant.label}: {entrant.count:,} in {fetched.seconds:.2f} s\n")
        return sample

    def _command(self, entrant: Entrant, folder: str) -> list[str]:
        command = [sys.executable, "-m", f"benchmarks.contenders.{entrant.module}"]
        command += ["--urls", str(entrant.urls), "--folder", folder]
        command += ["--concurrency", str(entrant.concurrency), "--per-host", str(entrant.per_host)]
        return command if self._cpu is None else [*command, "--cpu", str(self._cpu)]


@contextmanager
def bench() -> Iterator[Bench]:
    """Start an origin; take the first core for contenders and the second for the origin, if there are two."""
    cores = cpus()
    client, server = cores[:2] if len(cores) > 1 else (None, None)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        origin_process(pin_cpu=server) as origin,
    ):
        yield Bench(origin, Path(folder), client)


def cpus() -> list[int]:
    """Return the cores that this process may be pinned to; none where the system does not do that."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _output_of(command: Sequence[str], label: str) -> bytes:
    """Run a process group of its own to its end and return its stdout; leave none of it behind."""
    with subprocess.Popen(command, cwd=_TREE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=_LONGEST)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise ContenderError(f"{label}: exit code {process.returncode}; what it said stands above")
    return output


def _cpu_of(pid: int) -> float | None:
    """Return the CPU seconds that a process has used, None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # Counted behind the name, which may hold blanks: user and system time are fields 14 and 15 (proc(5)).
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
