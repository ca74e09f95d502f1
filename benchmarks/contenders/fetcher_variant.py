"""The batch that ``fetcher run`` runs, with a guarantee more or less than usual: see ``benchmarks/variants.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.batch_files import write_config
from benchmarks.contenders import fetcher_batch
from benchmarks.variants import VARIANTS
from fetcher.config import load

if TYPE_CHECKING:
    from benchmarks.contenders import Fetched, Task


def fetch(task: Task) -> Fetched:
    """Fetch as the variant does it."""
    variant = VARIANTS[task.variant]
    variant.patch()
    overrides = [setting.format(folder=task.folder) for setting in variant.settings]
    return fetcher_batch.run(task, load(write_config(task), overrides))
