"""The batch that ``fetcher run`` runs, without the display, in a process that knows what it alone costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.batch_files import read_records, write_config
from benchmarks.contenders import Fetched, Task, metered
from fetcher.assembly import Batch
from fetcher.cli.run import calm_collector, raise_file_limit, run_loop
from fetcher.config import load

if TYPE_CHECKING:
    from fetcher.config import Config


def fetch(task: Task) -> Fetched:
    """Fetch with everything real."""
    return run(task, load(write_config(task)))


def run(task: Task, config: Config) -> Fetched:
    """Run a batch and read its records."""
    fetched = measured(config)
    read_records(task, fetched)
    return fetched


def measured(config: Config) -> Fetched:
    """Run a batch as the command does, measured from before its first put to after its last ack."""
    raise_file_limit()
    runs: list[Fetched] = []
    run_loop(_run(config, runs))
    return runs[0]


async def _run(config: Config, runs: list[Fetched]) -> int:
    batch = Batch(config)
    await batch.open()
    try:
        calm_collector()
        with metered() as fetched:
            await batch.run()
        runs.append(fetched)
    finally:
        await batch.close()
    return 0
