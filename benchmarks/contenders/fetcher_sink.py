"""The batch that ``fetcher run`` runs, bodies in its records, into one of the sinks of ``benchmarks/outputs.py``."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from benchmarks.batch_files import write_config
from benchmarks.contenders import Fetched, Task, metered
from benchmarks.outputs import OUTPUTS
from fetcher.assembly import Batch
from fetcher.cli.run import calm_collector, raise_file_limit, run_loop
from fetcher.config import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fetcher.config import Config


def fetch(task: Task) -> Fetched:
    """Fetch, and then read what the sink has."""
    output = OUTPUTS[task.variant]
    runs: list[Fetched] = []
    raise_file_limit()
    with _database(task.folder) if output.database else nullcontext("") as dsn:
        settings = [f"sinks=[{output.setting.format(folder=task.folder, dsn=dsn)}]", "body.store=inline"]
        run_loop(_run(load(write_config(task), settings), runs))
        [fetched] = runs
        found = dict(output.read(task.folder / output.where))
    fetched.count, fetched.bytes = len(found), sum(found.values())
    return fetched


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    """Start a PostgreSQL server, and say where it is."""
    # Here, so that nobody else needs what it needs.
    from tests.servers.postgres import postgres_server  # noqa: PLC0415

    for server in postgres_server():
        (folder / "dsn").write_text(server.dsn, encoding="utf-8")
        yield server.dsn


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
