"""The names of parts: which files of a folder are those of a run, and what each of them is."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DRAFTS = ".drafts"
UNFINISHED = ".unfinished"
_NAME = re.compile(r"(_?)part-(\d{5,})-([0-9a-f]{8})(\.[a-z.]+)")


class Found(msgspec.Struct, frozen=True):
    """A file with such a name; readers of the folder do not see one that is ``hidden``."""

    path: Path
    hidden: bool
    number: int
    token: str
    suffix: str


def stem(number: int, token: str) -> str:
    """Return the name of a part without suffix."""
    return f"part-{number:05d}-{token}"


def found(folder: Path) -> list[Found]:
    """Return the files that have such names, in the folder and in those of its partitions."""
    matches = [(path, _NAME.fullmatch(path.name)) for path in everything(folder)]
    return [Found(path, bool(m[1]), int(m[2]), m[3], m[4]) for path, m in matches if m is not None]


def everything(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and in those of its partitions, but for what begins with a dot."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and "=" in entry.name:
            yield from sorted(entry.iterdir())
        else:
            yield entry


def delete(paths: Iterable[Path]) -> None:
    """Delete files, and folders of partitions that become empty by it."""
    for path in list(paths):
        path.unlink(missing_ok=True)
        if "=" in path.parent.name:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
