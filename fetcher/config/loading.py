"""From a file, the environment and ``-s`` to a Config, or to everything that is wrong with them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from fetcher.config.document import MAX_BYTES, Document, parse
from fetcher.config.model import Config
from fetcher.config.overrides import Layered, from_environment, from_flags
from fetcher.config.problems import MOST_TOLD, ConfigProblems, shown, translate
from fetcher.config.schema import json_schema
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from fetcher.config.overrides import Override
    from fetcher.config.problems import KeyPath, Problem

_LONGEST_NAME = 100

Root = TypeVar("Root", bound=Settings)


def load(
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Load a config: ``overrides`` (``key.path=value``) over the environment over the file over the defaults.

    Without a path there is no file. Raises ConfigProblems with everything that is wrong.
    """
    return load_root(Config, path, overrides, environ)


def load_root(
    root: type[Root],
    path: str | os.PathLike[str] | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Root:
    """Load a config of another root than that of a batch. Raises ConfigProblems with everything that is wrong."""
    name = os.fspath(path) if path is not None else "config"
    flags = from_flags(overrides)
    if path is None:
        return _checked(root, Document({}), name, flags, environ)
    document = parse(_read(name), name, environ)
    _name_after(name, document, root)
    return _checked(root, document, name, flags, environ)


def load_text(
    root: type[Root],
    text: str,
    name: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    check: Callable[[Document], list[Problem]] | None = None,
) -> Root:
    """Load a config from text that messages call ``name``; ``check`` may have objections to what stands there.

    Raises ConfigProblems with everything that is wrong.
    """
    document = parse(text, name, environ)
    if check is not None and isinstance(document.data, dict):
        document.problems += check(document)
    _name_after(name, document, root)
    return _checked(root, document, name, from_flags(overrides), environ)


def _checked(
    root: type[Root], document: Document, name: str, flags: Sequence[Override], environ: Mapping[str, str]
) -> Root:
    if not isinstance(document.data, dict):
        raise ConfigProblems([_not_a_mapping(name, document)])
    layered = Layered.over(document, name)
    unlaid = layered.lay([*from_environment(environ, document.variables), *flags])
    config, problems, more = _validate(root, layered)
    if problems or unlaid or config is None:
        raise ConfigProblems([line for _, line in sorted(problems, key=lambda problem: problem[0])] + unlaid, more)
    return config


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigProblems([f"{name}: is a folder; name a config file in it"]) from None
    except FileNotFoundError:
        raise ConfigProblems([f"{name}: there is no such file; paths are relative to {Path.cwd()}"]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigProblems([f"{name}: can not be read: {reason}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigProblems(
            [f"{name}: is larger than {MAX_BYTES // 2**20} MiB; put the jobs into a file of their own"]
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigProblems([f"{name}:{line}: is not UTF-8; save the file as UTF-8"]) from None


def _not_a_mapping(name: str, document: Document) -> str:
    if document.data is None:
        return f"{name}: is empty; a config has at least sources and sinks"
    return f"{name}:{document.lines[()]}: should be a mapping (key: value), not {shown(document.data)}"


def _name_of(name: str) -> str:
    """Return the stem of a file name as the name of a batch; what such a name can not have becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem).lstrip("._-")[:_LONGEST_NAME] or "batch"


def _name_after(name: str, document: Document, root: type[Settings]) -> None:
    """Give what has no name of its own that of its file."""
    if "name" in root.model_fields and isinstance(document.data, dict):
        document.data.setdefault("name", _name_of(name))


def _validate(root: type[Root], layered: Layered) -> tuple[Root | None, list[tuple[int, str]], int]:
    """Return the config, or None, what is wrong as (line, sentence), and how much more there is."""
    document = layered.document
    problems = document.problems
    config, errors = _attempt(root, document.data)
    # A number where text is wanted is taken as it was written (``x-version: 1.10``).
    written = {error["loc"]: document.texts.get(error["loc"]) for error in errors if error["type"] == "string_type"}
    if any(text is not None for text in written.values()):
        for path, text in written.items():
            if text is not None:
                _put(document.data, path, text)
        config, errors = _attempt(root, document.data)
    if errors:
        # Each takes a while, and whoever sent a hundred thousand mistakes is not to keep everybody else waiting.
        found = translate(errors[:MOST_TOLD], document.data, json_schema(root), document.substituted)
        # A value that could not be read is not to be blamed for what stands in for it.
        broken = {problem.path for problem in problems}
        problems = problems + [p for p in found if not any(p.path[:end] in broken for end in range(len(p.path) + 1))]
    return config, [layered.tell(problem) for problem in problems], max(0, len(errors) - MOST_TOLD)


def _attempt(root: type[Root], data: object) -> tuple[Root | None, list[ErrorDetails]]:
    """Validate; what is raised must not leave here, not even as a context: it shows secrets."""
    try:
        return root.model_validate(data), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _put(data: Any, path: KeyPath, value: str) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value
