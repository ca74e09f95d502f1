"""Loads the config of a service, which then knows the files that it was read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.config.loading import load_root
from fetcher.service.settings import ServiceConfig
from fetcher.settings import secrets_checked

if TYPE_CHECKING:
    from collections.abc import Sequence


def load_service(path: str | None, overrides: Sequence[str] = ()) -> ServiceConfig:
    """Load the config of a service. Raises ConfigProblems with everything that is wrong."""
    files = set() if path is None else {path}

    def note(kind: str, name: str) -> None:
        if kind == "file":
            files.add(name)

    with secrets_checked(note):
        config = load_root(ServiceConfig, path, overrides)
    return config.read_from(files)
