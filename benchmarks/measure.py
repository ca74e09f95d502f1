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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks.contenders import Fetched
from benchmarks.tls import Authority, tls_origin
from tests.origin_process import OriginProcess, origin_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TREE = Path(__file__).parents[1]
_LONGEST = 900.0  # seconds that one run may take


class ContenderError(Exception):
    """A contender broke down, or did not get everything."""


class UnableContenderError(ContenderError):
    """A contender is not installed, or has no way to do what is asked for."""


class Entrant(msgspec.Struct, frozen=True):
    """A contender and its task, with what it has to get: so many responses, and bytes of bodies in all.

    ``group`` tells the runs of a case apart where a label occurs in several.
    """

    label: str
    module: str
    urls: Path
    count: int
    bytes: int
    concurrency: int = 100
    per_host: int = 100
    threads: int = 32
    tls: bool = False
    group: str = ""
    variant: str = ""


class Sample(msgspec.Struct):
    """One run. ``process_s`` goes from before the start of the process to after its end."""

    label: str
    fetched: Fetched
    process_s: float
    started_at: float
    origin_cpu_s: float | None
    group: str = ""

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


class Race(msgspec.Struct):
    """Rounds of those who can do it; who can not, and who should have and did not, with the reasons."""

    rounds: list[Round]
    unable: dict[str, str]
    broken: dict[str, str]

    @property
    def samples(self) -> list[Sample]:
        """Every run."""
        return [sample for each in self.rounds for sample in each.values()]


class Spread(msgspec.Struct, frozen=True):
    """The median of some figures, and how far they lie apart."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up some figures."""
    return Spread(median(values), min(values), max(values))


class Bench:
    """An origin, a folder to work in, and the core on which contenders run.

    ``tls`` starts a second origin, for https, when it is first asked for.
    """

    def __init__(
        self, origin: OriginProcess, folder: Path, cpus: tuple[int | None, int | None], closing: ExitStack
    ) -> None:
        self.origin = origin
        self.folder = folder
        self._cpu, self._origin_cpu = cpus
        self._closing = closing
        self._authority: Authority | None = None
        self._tls: OriginProcess | None = None

    def tls(self) -> OriginProcess:
        """Return the origin that serves https."""
        if self._tls is None:
            self._authority = Authority(self.folder)
            self._tls = self._closing.enter_context(tls_origin(self._authority, self._origin_cpu))
        return self._tls

    def rounds(self, entrants: Sequence[Entrant], repeat: int) -> list[Round]:
        """Let every entrant run ``repeat`` times, in turns. Raises ContenderError."""
        return [
            {entrant.label: self.run(entrant, f"{number}/{repeat}") for entrant in entrants}
            for number in range(1, repeat + 1)
        ]

    def race(self, entrants: Sequence[Entrant], repeat: int) -> Race:
        """Do the same, without those who are not able to, or break down: each is then left out of all rounds."""
        race = Race([], {}, {})
        for number in range(1, repeat + 1):
            race.rounds.append({})
            for entrant in entrants:
                if entrant.label not in race.unable | race.broken:
                    self._turn(race, entrant, f"{number}/{repeat}")
        for each in race.rounds:
            for label in race.broken:
                each.pop(label, None)
        return race

    def _turn(self, race: Race, entrant: Entrant, turn: str) -> None:
        try:
            race.rounds[-1][entrant.label] = self.run(entrant, turn)
        except UnableContenderError as error:
            race.unable[entrant.label] = str(error)
        except ContenderError as error:
            sys.stderr.write(f"  {turn} {error}\n")
            race.broken[entrant.label] = str(error)

    def run(self, entrant: Entrant, turn: str = "") -> Sample:
        """Run one entrant and verify that it got everything. Raises ContenderError if not."""
        origin = self.tls() if entrant.tls else self.origin
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            command = self._command(entrant, folder)
            origin_cpu = _cpu_of(origin.pid)
            started_at, begin = time.time(), time.perf_counter()
            output = _output_of(command, entrant.label)
            process_s = time.perf_counter() - begin
        fetched = msgspec.json.decode(output, type=Fetched)
        if fetched.unable is not None:
            raise UnableContenderError(fetched.unable)
        if (fetched.count, fetched.bytes) != (entrant.count, entrant.bytes):
            raise ContenderError(
                f"{entrant.label}: got {fetched.count:,} responses with {fetched.bytes:,} bytes; "
                f"it was asked for {entrant.count:,} with {entrant.bytes:,}"
            )
        after = _cpu_of(origin.pid)
        spent = None if origin_cpu is None or after is None else after - origin_cpu
        sample = Sample(entrant.label, fetched, process_s, started_at, spent, entrant.group)
        sys.stderr.write(f"  {turn} {entrant.label}: {entrant.count:,} in {fetched.seconds:.2f} s\n")
        return sample

    def _command(self, entrant: Entrant, folder: str) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.contenders", entrant.module]
        command += ["--urls", str(entrant.urls), "--folder", folder, "--threads", str(entrant.threads)]
        command += ["--concurrency", str(entrant.concurrency), "--per-host", str(entrant.per_host)]
        if entrant.variant:
            command += ["--variant", entrant.variant]
        if entrant.tls and self._authority is not None:
            command += ["--ca", str(self._authority.ca)]
        return command if self._cpu is None else [*command, "--cpu", str(self._cpu)]


@contextmanager
def bench() -> Iterator[Bench]:
    """Start an origin; take the first core for contenders and the second for the origin, if there are two."""
    cores = cpus()
    client, server = cores[:2] if len(cores) > 1 else (None, None)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        ExitStack() as closing,
        origin_process(pin_cpu=server) as origin,
    ):
        yield Bench(origin, Path(folder), (client, server), closing)


def cpus() -> list[int]:
    """Return the cores that this process may be pinned to; none where the system does not do that."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _output_of(command: Sequence[str], label: str) -> bytes:
    """Run a process group of its own to its end and return its stdout; leave none of it behind."""
    with subprocess.Popen(command, cwd=_TREE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=_LONGEST)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ContenderError(f"{label}: not done after {_LONGEST:g} s") from error
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
