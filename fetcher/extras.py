"""Packages that only some parts need: imported when such a part is opened, and named if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from fetcher.errors import MissingExtraError


def load_extra(module: str, extra: str, user: str) -> Any:
    """Return a module. Raises MissingExtraError that tells which ``extra`` has what ``user`` needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{user} needs {package}, which is not installed; install it with: pip install 'fetcher[{extra}]'"
        ) from error
