"""Lays ``-s key.path=value`` and ``FETCHER_...`` over a document, and remembers where every value came from.

A value is a plain scalar, and may hold any characters, unless it starts with ``[``, ``{`` or a quote: then it
is YAML. In an environment variable ``__`` goes one level deeper and case does not matter. A number picks an
item of a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fetcher.config.document import Document, parse, resolve
from fetcher.config.problems import ConfigProblems, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fetcher.config.problems import KeyPath, Problem

PREFIX = "FETCHER_"
CLIENT = frozenset({"FETCHER_TO", "FETCHER_TOKEN", "FETCHER_PASSWORD"})
"""Variables that are not part of any config: they tell ``fetcher submit`` and the like where the service is, and
``fetcher get`` the password of its ``--user``."""
_KEY = re.compile(r'"([^"]*)"|\'([^\']*)\'|([^."\'=]+)')
_LAST = 2**31  # what comes from no line is told last


class Override(NamedTuple):
    """One value that goes over the file's: what messages call it, where it goes, and how it was written."""

    label: str
    path: tuple[str, ...]
    text: str


class Place(NamedTuple):
    """Where a value came from. Messages name the path only where the label does not."""

    line: int
    label: str
    path: KeyPath | None = None


def from_flags(flags: Iterable[str]) -> list[Override]:
    """Read what followed each ``-s``. Raises ConfigProblems for what is not ``key.path=value``."""
    overrides, problems = [], []
    for flag in flags:
        path, end = _read_path(flag)
        if path is None:
            problems.append(f"-s {flag}: should be key.path=value; a key with a dot goes in quotes")
        else:
            overrides.append(Override(f"-s {flag[:end]}", path, flag[end + 1 :]))
    if problems:
        raise ConfigProblems(problems)
    return overrides


def _read_path(flag: str) -> tuple[tuple[str, ...] | None, int]:
    """Return the path before the ``=``, and where that stands."""
    keys, end = [], 0
    while match := _KEY.match(flag, end):
        keys.append(next(key for key in match.groups() if key is not None).strip())
        end = match.end()
        if flag[end : end + 1] == "=":
            return tuple(keys), end
        if flag[end : end + 1] != ".":
            break
        end += 1
    return None, end


def from_environment(environ: Mapping[str, str], taken: set[str]) -> list[Override]:
    """Return what the environment sets, but for the variables that the file itself names (``taken``)."""
    names = sorted(name for name in environ if name.upper().startswith(PREFIX) and name not in taken | CLIENT)
    return [Override(name, tuple(name[len(PREFIX) :].lower().split("__")), environ[name]) for name in names]


@dataclass
class Layered:
    """The data of a document with overrides laid over it."""

    document: Document
    places: dict[KeyPath, Place]
    name: str

    @classmethod
    def over(cls, document: Document, name: str) -> Layered:
        """Start from a document that messages call ``name``."""
        places = {path: Place(line, f"{name}:{line}") for path, line in document.lines.items()}
        places[()] = Place(0, name)
        return cls(document, places, name)

    def lay(self, overrides: Sequence[Override]) -> list[str]:
        """Lay values over those of the file; return what can not be laid."""
        problems = []
        for override in overrides:
            try:
                self._lay(override)
            except ConfigProblems as error:
                problems += error.problems
        return problems

    def _lay(self, override: Override) -> None:
        value = _value(override)
        holder, path, created = self._holder(override)
        for known in (self.places, self.document.texts, self.document.substituted):
            for old in [old for old in known if old[: len(path)] == path]:
                del known[old]
        self.document.problems = [p for p in self.document.problems if p.path[: len(path)] != path]
        for end in range(created, len(path) + 1):
            self.places[path[:end]] = Place(_LAST, override.label, path)
        self.document.texts |= {(*path, *inner): text for inner, text in value.texts.items()}
        if isinstance(holder, list) and path[-1] == len(holder):
            holder.append(value.data)
        else:
            holder[path[-1]] = value.data

    def _holder(self, override: Override) -> tuple[Any, KeyPath, int]:
        """Return what takes the value (a mapping or a list), the value's path, and how much of it existed."""
        holder: Any = self.document.data
        path: KeyPath = ()
        created = len(override.path)
        for depth, name in enumerate(override.path):
            key = _key(holder, name, override, path)
            path = (*path, key)
            if depth + 1 == len(override.path):
                break
            missing = key not in holder or holder[key] is None if isinstance(holder, dict) else key == len(holder)
            if missing:
                created = min(created, depth + 1)
                inner: Any = [] if override.path[depth + 1].isdecimal() else {}
                if isinstance(holder, list):
                    holder.append(inner)
                else:
                    holder[key] = inner
            holder = holder[key]
        return holder, path, created

    def place(self, path: KeyPath) -> Place:
        """Return where a value came from; for what is not there, where it would have stood."""
        return next(self.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.places)

    def tell(self, problem: Problem) -> tuple[int, str]:
        """Return a problem as a line for people, after the number that it is sorted by."""
        place = self.place(problem.path)
        label, line = place.label, place.line
        if problem.line is not None and place.path is None:
            label, line = f"{self.name}:{problem.line}", problem.line
        path = "" if problem.path in {(), place.path} else f" {dotted(problem.path)}:"
        return line, f"{label}:{path} {problem.message}"


def _key(holder: Any, name: str, override: Override, path: KeyPath) -> str | int:
    """Return the key or index that a name means in a mapping or a list."""
    if isinstance(holder, dict):
        return name
    if not isinstance(holder, list):
        message = f"{dotted(path)} is {shown(holder)}, which has no keys; write it out as a mapping first"
    elif not name.isdecimal():
        message = f"{dotted(path)} is a list; name an item by its number, from 0 to {len(holder)}"
    elif int(name) > len(holder):
        message = f"{dotted(path)} has {len(holder)} items, so {name} would leave a gap"
    else:
        return int(name)
    raise ConfigProblems([f"{override.label}: {message}"])


def _value(override: Override) -> Document:
    text = override.text.strip()
    if text[:1] in {"[", "{", '"', "'"}:
        value = parse(text, override.label, None)
        if value.problems:
            raise ConfigProblems([f"{override.label}: {problem.message}" for problem in value.problems])
    else:
        value = Document(resolve(text))
    if value.data is not None and not isinstance(value.data, str):
        value.texts[()] = override.text
    return value
