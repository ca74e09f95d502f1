"""Which files of this machine submitted batches may read and write.

They work within ``service.files``, and there, too, they keep off what decides what the service does: its config, its
secrets, its state, its watched folder, and code that it could run.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import fetcher
from fetcher.config import ConfigProblems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fetcher.service.settings import ServiceConfig

_CODE = (".py", ".pyc", ".pyd", ".pth", ".so")
_MOST_ENTRIES = 100_000
_MOST_MATCHES = 10_000
_SECONDS = 5.0
_ADVICE = "name the files, or a folder further down"


class Search:
    """How much of the disk one config may have searched for what its patterns match, all of them together."""

    def __init__(self, entries: int = _MOST_ENTRIES, seconds: float = _SECONDS) -> None:
        self._entries = entries
        self._matches = _MOST_MATCHES
        self._until = time.monotonic() + seconds

    def objection(self, pattern: str) -> str | None:
        """Say why a pattern may not be searched for, None if it may. Looks at what that would look at."""
        parts = Path(pattern).parts
        if parts.count("**") > 1:
            return "may have ** in it once"
        first = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        depth = None if "**" in parts else len(parts) - first
        return None if self._is_seen(Path(*parts[:first]), depth) else f"has too many files to look through; {_ADVICE}"

    def matches(self, pattern: str) -> Iterator[str]:
        """Yield what matches a pattern to which there is no objection, up to one more than may match."""
        for path in itertools.islice(glob.iglob(pattern, recursive=True), self._matches + 1):  # noqa: PTH207
            self._matches -= 1
            yield path

    @property
    def matched_too_many(self) -> bool:
        """Whether more have matched than may."""
        return self._matches < 0

    def _is_seen(self, folder: Path, depth: int | None) -> bool:
        """Tell whether a folder can be looked through down to a depth (None: to the end) within what is left."""
        levels = {str(folder): 1}
        for path, folders, files in os.walk(folder):
            level = levels.pop(path, 1)
            self._entries -= 1 + len(folders) + len(files)
            if self._entries < 0 or time.monotonic() > self._until:
                return False
            if depth is not None:
                folders[:] = folders if level < depth else []
                levels |= {os.path.join(path, name): level + 1 for name in folders}  # noqa: PTH118  as os.walk has them
        return True


class Territory:
    """Where the batches of one service may read and write. What is asked looks at the disk: it blocks."""

    def __init__(self, config: ServiceConfig) -> None:
        settings = config.service
        self.folder = settings.files
        self._within = os.path.realpath(settings.files)
        self._state = os.path.realpath(settings.state_dir)
        code = (sys.prefix, str(Path(fetcher.__file__).parent))
        kept = [*config.own_files, *code, *([] if settings.watch is None else [settings.watch])]
        self._kept = [os.path.realpath(path) for path in kept]

    def make(self) -> None:
        """Make the folder if it is not there. Raises ConfigProblems."""
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            words = f"service.files: {self.folder}: can not be made: {error.strerror}"
            raise ConfigProblems([words]) from error

    def to_read(self, path: str, search: Search) -> str | None:
        """Say why a file, all that a pattern matches, or a folder of parts, may not be read; None if it may."""
        if (why := self._of_name(path) or self._of_place(path)) is not None:
            return why
        is_folder = Path(path).is_dir()
        if not is_folder and not glob.has_magic(path):
            return None
        pattern = f"{glob.escape(path)}/**/*.parquet" if is_folder else path
        fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
        why = None if is_folder else self._of_place(os.path.dirname(fixed))  # noqa: PTH120  "a/b" has to become "a"
        return why or search.objection(pattern) or self._of_matches(pattern, search)

    def to_write(self, path: str) -> str | None:
        """Say why a file, or those that a template names, may not be written; None if it may."""
        if (why := self._of_name(path) or self._of_place(path)) is not None:
            return why
        fixed = path.partition("{")[0]
        folder = path if fixed == path else os.path.dirname(fixed)  # noqa: PTH120
        if (why := self._of_place(folder)) is not None:
            return why
        real = os.path.realpath(folder or ".")
        if any(_is_in(kept, real) for kept in (*self._kept, self._state)):
            return "may come to lie where the service keeps its config, state or code; name a folder further down"
        return None

    def _of_matches(self, pattern: str, search: Search) -> str | None:
        found = _first(self._of_name(path) or self._of_place(path) for path in search.matches(pattern))
        return f"matches more than {_MOST_MATCHES} files; {_ADVICE}" if search.matched_too_many else found

    @staticmethod
    def _of_name(path: str) -> str | None:
        if ".." in Path(path).parts:
            return "may not have .. in it; service.files says within which folder batches work"
        if path.lower().endswith(_CODE):
            return "is called like code that the service could run"
        return None

    def _of_place(self, path: str) -> str | None:
        try:
            real = os.path.realpath(path or ".")
        except (OSError, ValueError):
            return "is no path"
        if not _is_in(real, self._within):
            return f"lies outside of service.files ({self.folder}); paths are relative to the service's working folder"
        if _is_in(real, self._state):
            return "lies in the folder where the service keeps its state"
        if real.lower().endswith(_CODE) or any(_is_in(real, kept) for kept in self._kept):
            return "lies where the service keeps its config, its secrets, its inbox or its code"
        return None


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
