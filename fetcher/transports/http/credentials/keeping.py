"""The refresh token that a server has given last, in a file of its own: it may be the only one that still works."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from fetcher.errors import ConfigError, StateBusyError
from fetcher.files import locked, open_regular, sync_folder

_LARGEST = 256 * 1024


class _Kept(msgspec.Struct):
    """``follows`` is the hash of the token in the config from which the kept one came about."""

    refresh_token: str
    follows: str


class KeptToken:
    """A file (mode 0600) with the token that has followed the ``first`` one, which is that of the config.

    If somebody puts another one into the config, what is in the file is out of date.
    """

    def __init__(self, path: str, first: str) -> None:
        self._path = Path(path)
        self._follows = hashlib.sha256(first.encode()).hexdigest()
        self._lock: int | None = None

    def open(self) -> str | None:
        """Return the token that is kept, None if there is none. Nobody else may have it open at the same time.

        Raises ConfigError if the file can not be used, StateBusyError if somebody else uses it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self._path}.keep.lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            if not locked(self._lock):
                self.close()
                raise StateBusyError(f"{self._path}: another run uses this refresh token")
            with os.fdopen(open_regular(self._path), "rb") as file:
                return self._read(file.read(_LARGEST))
        except FileNotFoundError:
            return None
        except OSError as error:
            self.close()
            raise ConfigError(f"{self._path}: can not keep a refresh token there: {error.strerror}") from error

    def write(self, token: str) -> None:
        """Keep another token; it is durable, or what was there still is. Raises OSError."""
        fresh = self._path.with_name(f"{self._path.name}.keep.new")
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(_Kept(token, self._follows)) + b"\n")
            file.flush()
            os.fsync(fd)
        fresh.replace(self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Let others use the file. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self, content: bytes) -> str | None:
        try:
            kept = msgspec.json.decode(content, type=_Kept)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.close()
            raise ConfigError(
                f"{self._path}: holds no refresh token; name another file as keep, or remove it"
            ) from None
        return kept.refresh_token if kept.follows == self._follows else None
