"""The batch that ``fetcher run`` runs, bodies in its records, into one of the sinks of ``benchmarks/outputs.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.batch_files import write_config
from benchmarks.contenders import Fetched, Task, metered
from benchmarks.outputs import OUTPUTS
from benchmarks.servers import started
from fetcher.assembly import Batch
from fetcher.cli.run import calm_collector, raise_file_limit, run_loop
from fetcher.config import load

if TYPE_CHECKING:
    from fetcher.config import Config


def fetch(task: Task) -> Fetched:
    """Fetch, and then read what the sink has."""
    output = OUTPUTS[task.variant]
    runs: list[Fetched] = []
    raise_file_limit()
    with started(output.server, task.folder) as server:
        settings = [f"sinks=[{output.setting.format(folder=task.folder, **server)}]", "body.store=inline"]
        run_loop(_run(load(write_config(task), settings), runs))
        [fetched] = runs
        found = dict(output.read(task.folder / output.where))
    fetched.count, fetched.bytes = len(found), sum(found.values())
    return fetched


async def _run(config: Config, runs: list[Fetched]) -> int:
    batch = Batch(config)
    await batch.open()
    calm_collector()
    # Until everything can be read: a sink may have its last words when it is closed.
    with metered() as fetched:
        try:
            await batch.run()
        finally:
            await batch.close()
    runs.append(fetched)
    return 0
