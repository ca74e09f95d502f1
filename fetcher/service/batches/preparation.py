"""From what was submitted to a batch of the service that can be opened, now or after any number of restarts."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.assembly import Batch
from fetcher.config import ConfigProblems
from fetcher.errors import BatchStateError, ConfigError
from fetcher.service.batches.catalogue import Row
from fetcher.service.batches.checking import Checks
from fetcher.service.batches.identity import batch_id_for
from fetcher.service.batches.retries import ChosenIds
from fetcher.service.batches.submission import Rules
from fetcher.service.batches.workspace import FAILED, RESULTS, upload_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.assembly import Shared
    from fetcher.config import Config
    from fetcher.service.batches.workspace import Workspace
    from fetcher.service.models import Origin
    from fetcher.service.settings import ServiceConfig


class Preparation:
    """Checks configs, fills the folders of batches, and brings them to life. Whatever blocks is done on a thread."""

    def __init__(
        self, config: ServiceConfig, workspace: Workspace, shared: Shared | None, clock: Callable[[], float]
    ) -> None:
        self._workspace = workspace
        self._shared = shared
        self._clock = clock
        self._checks = Checks()
        self.reconfigure(config)

    def reconfigure(self, config: ServiceConfig) -> None:
        """Judge what is submitted by another config from now on."""
        self._settings = config.service
        self._rules = Rules(config)

    async def new(
        self, text: str, label: str, origin: Origin, *, upload: Path | None = None, batch_id: str | None = None
    ) -> Row:
        """Return the row of a new batch, whose folder is there. Raises ConfigProblems, and then nothing is.

        Raises StateBusyError if too many are being checked.
        """
        config = await self._checks.run(partial(self._checked, text, label, upload))
        row = self._row(config, label, origin, batch_id)
        row.upload = None if upload is None else upload.name
        links = {} if upload is None else {upload_name(upload): upload}
        await asyncio.to_thread(self._workspace.create, row.id, text, links)
        return row

    def _checked(self, text: str, label: str, upload: Path | None) -> Config:
        """Load a config and look whether what it reads can be read. Raises ConfigProblems."""
        if len(text.encode("utf-8", "surrogatepass")) > self._settings.max_config:
            raise ConfigProblems([f"{label}: is larger than service.max_config ({self._settings.max_config} bytes)"])
        config = self._rules.load(text, label, self._workspace.of("new"), upload=upload, moved=False)
        try:
            Batch(config).check()
        except ConfigProblems:
            raise
        except ConfigError as error:
            raise ConfigProblems([f"{label}: {error}"]) from None
        return config

    async def of_failed(self, row: Row) -> Row:
        """Return the row of a new batch, of the jobs that have failed in another one that is done.

        Raises BatchStateError if there are none.
        """
        folder = self._workspace.of(row.id)
        failed = await asyncio.to_thread(ChosenIds.failed, folder / RESULTS)
        if not failed:
            raise BatchStateError(f"batch {row.id} is done, and there is nothing to retry: no job has failed")
        text = await asyncio.to_thread(self._workspace.text, row.id)
        made = self._row(await asyncio.to_thread(self._load, row, text), row.label, "retry")
        made.upload, made.retry_of = row.upload, row.id
        name = None if row.upload is None else upload_name(Path(row.upload))
        links = {} if name is None else {name: folder / name}
        await asyncio.to_thread(self._workspace.create, made.id, text, links)
        await asyncio.to_thread(failed.save, self._workspace.of(made.id) / FAILED)
        return made

    async def batch(self, row: Row) -> Batch:
        """Bring a batch to life. Raises ConfigProblems, as what it may do can have changed since it was submitted."""
        text = await asyncio.to_thread(self._workspace.text, row.id)
        config = await asyncio.to_thread(self._load, row, text)
        folder = self._workspace.of(row.id)
        only = await asyncio.to_thread(ChosenIds.load, folder / FAILED) if row.retry_of is not None else None
        return Batch(config, shared=self._shared, only=only, state_dir=folder)

    def _load(self, row: Row, text: str) -> Config:
        upload = None if row.upload is None else Path(row.upload)
        folder = self._workspace.of(row.id)
        return self._rules.load(text, row.label, folder, upload=upload, again=row.retry_of is not None)

    def _row(self, config: Config, label: str, origin: Origin, batch_id: str | None = None) -> Row:
        now = self._clock()
        return Row(
            id=batch_id or batch_id_for(config.name, now),
            name=config.name,
            label=label,
            origin=origin,
            priority=config.priority,
            weight=config.weight,
            created_at=now,
        )
