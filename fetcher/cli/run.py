"""``fetcher run``: one batch, from its config to its last record."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import structlog
from cyclopts import Parameter
from rich.console import Console

from fetcher.assembly import Batch
from fetcher.cli import progress, summary
from fetcher.cli.signals import first_signal
from fetcher.cli.text import plain
from fetcher.config import load
from fetcher.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fetcher.config import Config

EXIT_CRASH = 1
EXIT_FAILURES = 3
EXIT_RESUMABLE = 75
_GC_BIRTHS = 20_000
_WIDTH = 160  # where there is no terminal to ask

Override = Annotated[list[str] | None, Parameter(name=["-s", "--set"], negative="")]


def run(
    config: str,
    *,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    override: Override = None,
    max_failures: str | None = None,
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
    """
    overrides = list(override or [])
    if max_failures is not None:
        overrides.append(f"max_failures={max_failures}")
    return run_batch(load(config, overrides), fresh=fresh)


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
        count = len(batch.engine.running)
        console.print(f"draining: {count:,} requests in flight; interrupt again to end at once")
        batch.drain()

    with first_signal(drain):
        await batch.open()
        try:
            announce(batch, console)
            await _run_shown(batch, console)
        finally:
            await batch.close()
    console.print(summary.render(batch))
    return _exit_code(batch, console)


def _exit_code(batch: Batch, console: Console) -> int:
    engine = batch.engine
    for failure in engine.failures:
        console.print(f"a source could not be read to its end: {plain(str(failure))}")
    if not engine.finished:
        why = "mend it and" if engine.failures else "interrupted;"
        console.print(f"{why} run the same command again to resume")
        return EXIT_RESUMABLE
    if not engine.accounted:
        console.print(
            f"{engine.added:,} jobs, but not one record for each: this is a fault of fetcher; please report it"
        )
        return EXIT_CRASH
    failed = engine.delivery.tally.outcomes.get(Outcome.FAILED, 0)
    return EXIT_FAILURES if batch.config.max_failures.exceeded(failed, engine.added) else 0


async def _run_shown(batch: Batch, console: Console) -> None:
    showing = asyncio.create_task(progress.show(batch, console), name="progress")
    calm_collector()
    try:
        await batch.run()
    finally:
        showing.cancel()
        await asyncio.wait([showing])


def announce(batch: Batch, console: Console) -> None:
    """Say what is about to happen."""
    engine = batch.engine
    if batch.resumed and engine.added:
        console.print(f"resuming {batch.config.name}: {engine.done:,} of {engine.added:,} jobs done")


def configure_logging() -> None:
    """Write log events as JSON lines to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


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
