"""Packages that only some parts need: imported when such a part is opened, and named if they are missing.

A part declares the extras of its own in ``extras``, a class variable of its config. What people are told to install are
the packages: an extra is a word of ours, and whatever an index has under the name of this project may be another one.
"""

from __future__ import annotations

import importlib
import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import Any

from fetcher.errors import MissingExtraError

_DISTRIBUTION = "fetcher"
_EXTRA = re.compile(r"([^;]+?)\s*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]")
_NAME = re.compile(r"[\w.-]+")


def load_extra(module: str, extra: str, user: str) -> Any:
    """Return a module. Raises MissingExtraError that tells which packages have what ``user`` needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module.partition(".")[0], extra, user) from error


def missing(package: str, extra: str, user: str) -> MissingExtraError:
    """Return what to raise if a package of an extra is not there."""
    command = shlex.join(["pip", "install", *(requirements(extra) or [package])])
    return MissingExtraError(f"{user} needs {package}, which is not installed; install it with: {command}")


def requirements(extra: str) -> list[str]:
    """Return the packages of an extra as pip takes them, such as ``asyncpg>=0.31``."""
    try:
        declared = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # a folder of sources that was never installed
        return []
    matches = [_EXTRA.fullmatch(line) for line in declared]
    return [match[1] for match in matches if match is not None and match[2] == extra]


def is_installed(extra: str) -> bool:
    """Tell whether all packages of an extra are there, of whatever version."""
    try:
        for requirement in requirements(extra):
            match = _NAME.match(requirement)
            distribution(match[0] if match else requirement)
    except PackageNotFoundError:
        return False
    return True
