"""``fetcher run``: one batch, from its config to its last record."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Self

from cyclopts import Parameter
from rich.console import Console

from fetcher.assembly import Batch
from fetcher.cli import progress, summary
from fetcher.cli.exits import EXIT_CRASH, EXIT_FAILURES
from fetcher.cli.logs import configure_logging
from fetcher.cli.signals import first_signal
from fetcher.cli.text import counted, duration, plain
from fetcher.config import load
from fetcher.engine.why.lookout import Lookout
from fetcher.errors import EXIT_RESUMABLE
from fetcher.guard import GuardSettings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fetcher.config import Config
    from fetcher.engine.engine import Engine
    from fetcher.engine.why.bounds import Finding

_GC_BIRTHS = 20_000
_WORTH_A_WORD = 5.0  # seconds
_WIDTH = 160  # where there is no terminal to ask

Override = Annotated[list[str] | None, Parameter(name=["-s", "--set"], negative="")]
GuardFlag = Annotated[bool, Parameter(negative="")]


def run(
    config: str,
    *,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    override: Override = None,
    max_failures: str | None = None,
    deadline: str | None = None,
    guard: GuardFlag = False,
) -> int:
    """Fetch a batch of URLs. An unfinished run is resumed where it stopped.

    Parameters
    ----------
    config
        The config file (YAML).
    fresh
        Start over: forget an unfinished run and replace its output.
    override
        Set a value of the config: key.path=value. May be given several times.
    max_failures
        How many jobs may fail, as a number or a percentage (5%), before the exit code is 3.
    deadline
        How long this run may take (10m). What is left then can be resumed; the exit code is 75.
    guard
        Reach public addresses only, and what http.guard.allow of the config has.
    """
    overrides = list(override or [])
    if max_failures is not None:
        overrides.append(f"max_failures={max_failures}")
    if deadline is not None:
        overrides.append(f"deadline={deadline}")
    loaded = load(config, overrides)
    return run_batch(guarded(loaded) if guard else loaded, fresh=fresh)


def guarded(config: Config) -> Config:
    """Return the config with the guard on, for its parts too; one that has a guard keeps its own."""
    http = config.http
    if getattr(http, "guard", None) is not None:
        return config
    return config.model_copy(update={"http": http.model_copy(update={"guard": GuardSettings()})})


def run_batch(config: Config, *, fresh: bool = False) -> int:
    """Run a batch with display, signals and summary; return the exit code."""
    raise_file_limit()
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    configure_logging()
    return run_loop(_run(Batch(config, fresh=fresh), console))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # noqa: PLC0415  not on Windows

    return uvloop.run(main)


async def _run(batch: Batch, console: Console) -> int:
    def drain() -> None:
        console.print(f"draining: {_in_flight(batch)}; interrupt again to end at once")
        batch.drain()

    deadline = Deadline(batch, console)
    with first_signal(drain), deadline:
        await batch.open()
        try:
            announce(batch, console)
            bounds = await _run_shown(batch, console)
        finally:
            await batch.close()
    console.print(summary.render(batch, bounds))
    return _exit_code(batch, console, deadline)


class Deadline:
    """The deadline of one run, from ``with`` on: the run drains when it passes, as it does when interrupted."""

    def __init__(self, batch: Batch, console: Console) -> None:
        self._batch = batch
        self._console = console
        self._timer: asyncio.TimerHandle | None = None
        self.passed = False

    def __enter__(self) -> Self:
        """Start the clock if there is a deadline."""
        limit = self._batch.config.deadline
        if limit is not None:
            self._timer = asyncio.get_running_loop().call_later(limit, self._pass)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        if not self._batch.engine.draining:
            self.passed = True
            self._console.print(f"{self}; draining: {_in_flight(self._batch)}")
            self._batch.drain()

    def __str__(self) -> str:
        return f"the run's deadline of {duration(self._batch.config.deadline or 0.0)} has passed"


def _in_flight(batch: Batch) -> str:
    return f"{counted(len(batch.engine.running), 'request')} in flight"


def _exit_code(batch: Batch, console: Console, deadline: Deadline) -> int:
    engine = batch.engine
    for failure in engine.failures:
        console.print(f"a source could not be read to its end: {plain(str(failure))}")
    if not engine.finished:
        console.print(_how_to_resume(engine, deadline))
        return EXIT_RESUMABLE
    if not engine.accounted:
        console.print(
            f"{engine.added:,} jobs, but not one record for each: this is a fault of fetcher; please report it"
        )
        return EXIT_CRASH
    tally = engine.delivery.tally
    if tally.all_unusable:
        console.print("not one row of the input could be used; see the error kinds above, and what the sources name")
    return EXIT_FAILURES if tally.exceeds(batch.config.max_failures, engine.added) else 0


def _how_to_resume(engine: Engine, deadline: Deadline) -> str:
    if engine.failures:
        return "mend it and run the same command again to resume"
    if deadline.passed:
        left = counted(engine.left, "job") + ("" if engine.fed else ", and what was not read yet,")
        return f"{deadline}; {left} left; run the same command again to go on"
    return "interrupted; run the same command again to resume"


async def _run_shown(batch: Batch, console: Console) -> list[Finding]:
    """Run a batch, and return what has bounded its throughput, unless it was over too soon to care."""
    lookout = Lookout(lambda: [batch.engine], window=inf)
    calm_collector()
    watching = [
        asyncio.create_task(progress.show(batch, console), name="progress"),
        asyncio.create_task(lookout.run(), name="lookout"),
    ]
    try:
        await batch.run()
    finally:
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
    return lookout.findings() if lookout.seconds >= _WORTH_A_WORD else []


def announce(batch: Batch, console: Console) -> None:
    """Say what is about to happen."""
    engine = batch.engine
    if batch.resumed and engine.added:
        console.print(f"resuming {batch.config.name}: {engine.done:,} of {engine.added:,} jobs done")


def calm_collector() -> None:
    """Keep the garbage collector from looking again and again through what lives on."""
    # What was loaded so far lives as long as the process.
    gc.collect()
    gc.freeze()
    # A request leaves hardly any cycles behind, but many objects are born and live on for a moment: looking through
    # them every 700 births, as is the default, costs several per cent of the CPU time.
    gc.set_threshold(_GC_BIRTHS, *gc.get_threshold()[1:])


def raise_file_limit() -> None:
    """Allow this process as many open files as the system lets it: a connection is one."""
    if os.name != "posix":
        return
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
