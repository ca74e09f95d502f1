"""Configs of batches as they are found in files. All calls block."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import msgspec

from fetcher.config import ConfigProblems

if TYPE_CHECKING:
    from pathlib import Path

# What JSON writes in a way that YAML reads as something else.
_JSON_ALONE = re.compile("\\\\/|\\\\u[dD][89a-fA-F]|[\x85\u2028\u2029]")
# Ends of lines for YAML, and characters like any other for JSON.
_ESCAPED = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def read_config(path: Path, label: str, most: int, flags: int = 0) -> str:
    """Return the config in a file, as YAML. Messages call it ``label``; ``flags`` are further ones of open(2).

    Raises ConfigProblems if it is larger than ``most`` bytes, can not be read, or is no text.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | flags), "rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigProblems([f"{label}: can not be read: {reason}"]) from None
    if len(content) > most:
        raise ConfigProblems([f"{label}: is larger than service.max_config ({most} bytes)"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigProblems([f"{label}:{line}: is not UTF-8; save the file as UTF-8"]) from None
    return from_json(text, label) if path.suffix.lower() == ".json" else text


def from_json(text: str, label: str) -> str:
    """Return a JSON text as YAML, which it mostly is already, line by line the same. Raises ConfigProblems."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigProblems([f"{label}: is not JSON: {error}"]) from None
    except UnicodeError:
        raise ConfigProblems([f"{label}: is not JSON: half a surrogate pair"]) from None
    return _dumped(data, indent=1) if _JSON_ALONE.search(text) else text


def as_text(data: object) -> str:
    """Return data of a config as its text. What came from the environment is not looked up there again."""
    return _dumped(_literal(data))


def _dumped(data: object, indent: int | None = None) -> str:
    return json.dumps(data, ensure_ascii=False, indent=indent).translate(_ESCAPED)


def _literal(data: object) -> object:
    """Return data in whose values nothing looks like a variable; keys are never looked up."""
    if isinstance(data, dict):
        return {key: _literal(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_literal(item) for item in data]
    return data.replace("${", "$${") if isinstance(data, str) else data


def renamed(problem: str, path: Path, shown: str) -> str:
    """Return a problem that names a file of ours by the name that its owner knows it by."""
    return problem.replace(str(path), shown).replace(f"{shown}: {shown}", shown, 1)
