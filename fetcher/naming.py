"""Names of files that are made of what servers and inputs say: always within their folder, never ambiguous.

A template such as ``out/{host}/{sha256}{ext}`` is split at its slashes once. A value never holds a slash, so that
every file of a template is equally deep and no file can be where another needs a folder; what could mean something
to a file system (dots at the front, ``..``, NUL, names of devices, letters that differ in case only) is gone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from mimetypes import MimeTypes
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

PLACEHOLDERS = ("sha256", "batch", "job_id", "host", "path", "ext")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FIELD = re.compile(r"([a-z0-9_]+)(?::([1-9][0-9]{0,2}))?")
_UNSAFE = re.compile(r"[^a-z0-9._-]+")
_PLAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
# Windows takes these for devices, with any extension, in any folder.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_LONGEST = 180  # characters of a name; file systems take 255 bytes
_LONGEST_VALUE = 80
_HASH_SIZE = 64  # hexadecimal digits of a SHA-256
_ENOUGH = 32
_UNIQUE = "it needs {sha256}, or both {batch} and {job_id}"
_TYPES = MimeTypes()  # the table that comes with Python, not what this machine has in /etc


class Named(NamedTuple):
    """What a template is filled with, beside the name of the batch."""

    job_id: str
    host: str
    url: str
    content_type: str | None
    sha256: str


class NameTemplate:
    """A path with placeholders. Raises ValueError for one that can not be filled, or would lead out of its folder."""

    def __init__(self, text: str) -> None:
        if "\0" in text:
            raise ValueError("contains NUL, which no file name has")
        if text.endswith("/") or not text:
            raise ValueError("should end in the name of a file, not in a slash")
        self._text = text
        if set(_PLACEHOLDER.sub("", text)) & set("{}"):
            raise ValueError("has a brace without its other half")
        fields = [_field(match[1]) for match in _PLACEHOLDER.finditer(text)]
        if not fields:
            raise ValueError(f"has no placeholder; {_UNIQUE}")
        parts = text.split("/")
        fixed = next(index for index, part in enumerate(parts) if "{" in part)
        if {".", ".."} & set(parts[fixed:]):
            raise ValueError("has . or .. behind a placeholder; every file has to stay in one folder")
        self.folder = "/".join(parts[:fixed]) or ("/" if fixed else ".")
        self._parts = parts[fixed:]
        self._fields = set(fields)

    def check_unique(self) -> None:
        """Raise ValueError if bodies that are not the same could be given one name."""
        whole = {name for name, length in self._fields if length is None}
        by_content = any(name == "sha256" and (length or _HASH_SIZE) >= _ENOUGH for name, length in self._fields)
        if not by_content and not {"batch", "job_id"} <= whole:
            raise ValueError(f"could give two jobs the same file; {_UNIQUE}")

    def of_batch(self, name: str) -> str:
        """Return the template's text with {batch} filled in."""
        return _PLACEHOLDER.sub(lambda match: _batch(match, distinct(name)), self._text)

    def render(self, named: Named) -> str:
        """Return the path of one file, with slashes, below ``folder``."""
        values = {name: _VALUES[name](named) for name, _ in self._fields}
        names = [_name(_PLACEHOLDER.sub(lambda match: _filled(match[1], values), part)) for part in self._parts]
        return "/".join([*([] if self.folder == "." else [self.folder.rstrip("/")]), *names])


def distinct(value: str) -> str:
    """Return a value as part of a name such that other values give other parts, on any file system."""
    if _PLAIN.fullmatch(value) and len(value) <= _LONGEST_VALUE:
        return value
    # No plain value has a tilde, so that none can be made to look like one that was changed.
    return f"{_safe(value)}~{_digest(value)}"


def _field(text: str) -> tuple[str, int | None]:
    match = _FIELD.fullmatch(text)
    if match is None or match[1] not in PLACEHOLDERS:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise ValueError(f"has {{{text[:40]}}}, which stands for nothing; there are {known}, and {{sha256:2}}")
    return match[1], int(match[2]) if match[2] else None


def _batch(match: re.Match[str], name: str) -> str:
    field, length = _field(match[1])
    return name[:length] if field == "batch" else match[0]


def _filled(field: str, values: dict[str, str]) -> str:
    name, length = _field(field)
    return values[name][:length]


def _safe(value: str) -> str:
    return _UNSAFE.sub("_", value.lower())[:_LONGEST_VALUE].lstrip(".")


def _digest(value: str) -> str:
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _name(text: str) -> str:
    """Return what a part came to as a name that every file system takes."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}~{_digest(text)}"
    # A hidden file, and the folder of what is still arriving, is not for servers to name.
    if text.startswith("."):
        text = "_" + text
    if text.endswith((".", " ")) or not text:
        text += "_"
    return "_" + text if _DEVICE.fullmatch(text) else text


def _path(named: Named) -> str:
    return _safe(urlsplit(named.url).path.strip("/")) or "index"


@lru_cache(maxsize=256)
def _extension(content_type: str | None) -> str:
    essence = (content_type or "").partition(";")[0].strip().lower()
    return _TYPES.guess_extension(essence) or ""


_VALUES: dict[str, Callable[[Named], str]] = {
    "sha256": lambda named: named.sha256,
    "batch": lambda _: "batch",  # filled in when the config was read
    "job_id": lambda named: distinct(named.job_id),
    "host": lambda named: _safe(named.host),
    "path": _path,
    "ext": lambda named: _extension(named.content_type),
}
