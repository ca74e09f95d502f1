"""Objects of S3, Google Cloud Storage and Azure, by paths such as ``s3://bucket/folder/urls.csv`` (through obstore)."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from fetcher.errors import ConfigError, SourceError
from fetcher.extras import load_extra
from fetcher.stores import StorePanicError, client, no_panics

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import SecretStr

SCHEMES = ("s3", "gs", "az")
READ_AHEAD = 4 * 1024 * 1024
"""Bytes that are asked for at once: each request is one of its own, so that none waits while a batch is behind."""

_PATH = re.compile(rf"({'|'.join(SCHEMES)})://([^/]+)/(.+)", re.DOTALL)
_WILD = re.compile(r"[*?\[]")
_QUERY = re.compile(r"\?\S+")  # in which Azure has signatures
_CODE = re.compile(r"<Code>(\w{1,60})</Code>\s*<Message>([^<]*)</Message>")
_RETRIES = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5), "base": 2},
}
_CLIENT = {"connect_timeout": "10s", "timeout": "60s"}


def is_object(path: str) -> bool:
    """Tell whether a path is that of an object in a store."""
    return path.partition("://")[0] in SCHEMES and "://" in path


def is_pattern(path: str) -> bool:
    """Tell whether a path stands for all that match it."""
    return _WILD.search(path) is not None


def split(path: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key. Raises ValueError if it has no bucket or no key."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(f"{path[:200]!r} is not an object such as s3://bucket/folder/urls.csv")
    return match[1], match[2], match[3]


def open_store(scheme: str, bucket: str, options: Mapping[str, SecretStr]) -> Any:
    """Return a client of a bucket. Raises ConfigError for options that there are not, or MissingExtraError."""
    user = f"{scheme}://"
    exceptions = load_extra("obstore.exceptions", "objectstore", user)
    try:
        return client(scheme, bucket, options, user=user, client_options=_CLIENT, retry_config=_RETRIES)
    except (exceptions.BaseError, ValueError, TypeError, StorePanicError) as error:
        raise ConfigError(f"{scheme}://{bucket}: can not be used: {_reason(error)}") from error


def listed(path: str, options: Mapping[str, SecretStr]) -> list[str]:
    """Return the paths of the objects that match a pattern, in no order; ``*`` goes up to the next ``/``."""
    scheme, bucket, key = split(path)
    store = open_store(scheme, bucket, options)
    obstore = load_extra("obstore", "objectstore", f"{scheme}://")
    folder = key[: _first_wild(key)].rpartition("/")[0]
    pattern = key.split("/")
    with _told(path):
        keys = [meta["path"] for page in obstore.list(store, folder or None) for meta in page]
    return [f"{scheme}://{bucket}/{found}" for found in keys if _fits(pattern, found.split("/"))]


class StoredObject:
    """The bytes of an object, as they were when it was opened. ``ahead``: how many are read at least."""

    live = False
    seekable = True

    def __init__(self, path: str, options: Mapping[str, SecretStr], ahead: int | None = None) -> None:
        scheme, bucket, self._key = split(path)
        self._path = path
        self._ahead = READ_AHEAD if ahead is None else ahead
        self._store = open_store(scheme, bucket, options)
        self._obstore = load_extra("obstore", "objectstore", f"{scheme}://")
        with _told(path):
            found = self._obstore.head(self._store, self._key)
        self.size: int = found["size"]
        self.tag: str = found["e_tag"] or ""
        self._at = 0
        self._block, self._base = b"", 0
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes: ``size`` of them, unless the object ends."""
        end = self.size if size < 0 else min(self._at + size, self.size)
        if end > self._at and not self._base <= self._at < end <= self._base + len(self._block):
            self._fetch(self._at, min(max(end, self._at + self._ahead), self.size))
        data = self._block[self._at - self._base : end - self._base]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on at an offset."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._at

    def wait(self, stopped: threading.Event) -> None:
        """Return at once: an object is all there."""

    def shrank(self) -> bool:
        """Tell that it did not: each request asks for the object that was opened, or fails."""
        return False

    def close(self) -> None:
        """Release what was read ahead."""
        self._block, self.closed = b"", True

    def _fetch(self, start: int, end: int) -> None:
        asked: dict[str, Any] = {"range": (start, end)}
        if self.tag:
            asked["if_match"] = self.tag
        with _told(self._path):
            self._block = bytes(self._obstore.get(self._store, self._key, options=asked).bytes())
        self._base = start


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Raise SourceError that says what a store refused, and of what."""
    exceptions = load_extra("obstore.exceptions", "objectstore", path.partition("/")[0])
    try:
        with no_panics():
            yield
    except FileNotFoundError as error:
        raise SourceError(f"{path}: there is no such object, or no such bucket") from error
    except exceptions.PreconditionError as error:
        raise SourceError(f"{path}: changed while it was read; put it back and resume, or start over") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise SourceError(f"{path}: the store refuses these credentials: {_reason(error)}") from error
    except (exceptions.BaseError, OSError, StorePanicError) as error:
        raise SourceError(f"{path}: can not be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what a driver says, without the dump of its insides that it adds; of a store's own words the code."""
    text = str(error)
    code = _CODE.search(text)
    return _QUERY.sub("?...", text.partition("\n")[0])[:300] if code is None else f"{code[2][:200]} ({code[1]})"


def _first_wild(key: str) -> int:
    match = _WILD.search(key)
    return len(key) if match is None else match.start()


def _fits(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether the segments of a key match: ``**`` is any number of them, a star ends with its segment."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(pattern[1:], parts[start:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(pattern[1:], parts[1:])
