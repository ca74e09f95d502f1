"""The folders through which files become batches, and what is on the disk of them. All calls block.

    inbox/                  what people put there
    accepted/.claimed/      what was taken out of it, as <id>.<name>; whether its batch is known, the catalogue says
    accepted/               what has a batch that has not ended
    finished/               what has had one, and <id>.json, the batch at its end
    rejected/               what can not be one, and <name>.txt, which says why

A file is in one of them at any moment, and goes from one to the next by a rename: whatever ends the service, it is
there, and it is known how far it has come. The id is that of the batch, so that nothing is run twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fetcher.errors import ConfigError, StateBusyError
from fetcher.files import locked, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
_LONGEST_NAME = 255  # bytes, of most file systems
_LONGEST_STEM = 60
_LONGEST_SHOWN = 200

Signature = tuple[int, int, int, int]
"""What changes when a file is written, replaced or renamed."""


class Claim(NamedTuple):
    """A file that was taken out of the inbox: the id of its batch, and its name there, or the end of a long one."""

    id: str
    name: str

    @property
    def file(self) -> str:
        """What it is called now."""
        return f"{self.id}.{self.name}"

    @property
    def shown(self) -> str:
        """Its name for people: bytes that are no text, and characters that are not printed, are escaped."""
        text = os.fsencode(self.name).decode("utf-8", "backslashreplace")[:_LONGEST_SHOWN]
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class Inbox:
    """The folders within ``folder``. One service owns them at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "inbox"
        self._accepted = folder / "accepted"
        self._claimed = self._accepted / ".claimed"
        self._rejected = folder / "rejected"
        self._finished = folder / "finished"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folders. Raises ConfigError if they can not be used, StateBusyError if another service does."""
        try:
            for folder in (self.path, self._claimed, self._rejected, self._finished):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._accepted, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(f"service.watch: {error.filename}: can not be used: {error.strerror}") from error
        if not locked(self._lock):
            self.close()
            raise StateBusyError(f"service.watch: {self._accepted}: another service is using it")
        try:
            self._try_moving()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another service have the folders. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _try_moving(self) -> None:
        """Raises ConfigError if files can not be renamed from each folder to the next."""
        name = f".{secrets.token_hex(8)}.tmp"
        folders = [self.path, self._claimed, self._accepted, self._rejected, self._finished]
        here = self.path
        try:
            (here / name).touch()
            for there in folders[1:]:
                (here / name).rename(there / name)
                here = there
        except OSError as error:
            if error.errno == errno.EXDEV:
                advice = "mount the folder that has them all, so that files can be moved at once"
                message = f"service.watch: {folders[folders.index(here) + 1]} is on another file system than {here}"
                raise ConfigError(f"{message}; {advice}") from error
            raise ConfigError(f"service.watch: {here}: files can not be moved from here: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                (here / name).unlink(missing_ok=True)

    # What there is

    def waiting(self) -> dict[str, Signature]:
        """Return what is in the inbox by name, the oldest first, without what is still to be renamed."""
        found: dict[str, Signature] = {}
        for name in os.listdir(self.path):  # noqa: PTH208  names, which may be no text
            if name.startswith(".") or name.lower().endswith(_UNFINISHED):
                continue
            with contextlib.suppress(FileNotFoundError):
                is_ = os.lstat(self.path / name)
                found[name] = is_.st_mtime_ns, is_.st_ctime_ns, is_.st_size, is_.st_ino
        return dict(sorted(found.items(), key=lambda item: (item[1][0], item[0])))

    def claims(self) -> list[Claim]:
        """Return what was taken and is not known to have a batch."""
        return _claims(self._claimed)

    def accepted(self) -> list[Claim]:
        """Return what has a batch that had not ended."""
        return _claims(self._accepted)

    def claimed(self, claim: Claim) -> Path:
        """Return the file of one of the ``claims``."""
        return self._claimed / claim.file

    # Going from one to the next

    def claim(self, names: Iterable[str], now: float) -> None:
        """Take files that are whole out of the inbox, durably. ``now`` in epoch seconds.

        Raises the first OSError when all have had their turn.
        """
        failure: OSError | None = None
        for name in names:
            path = self.path / name
            try:
                if not is_being_written(path):
                    path.rename(self._claimed / _claim(name, now).file)
            except FileNotFoundError:
                pass  # somebody has thought better of it
            except OSError as error:
                failure = failure or error
        # Before their batches can be known.
        sync_folder(self._claimed)
        sync_folder(self.path)
        if failure is not None:
            raise failure

    def accept(self, claim: Claim) -> None:
        """Note that a file has its batch, durably."""
        with contextlib.suppress(FileNotFoundError):
            self.claimed(claim).rename(self._accepted / claim.file)
        sync_folder(self._accepted)

    def reject(self, claim: Claim, problems: Sequence[str]) -> None:
        """Put a file, wherever it is, where people find it, and why beside it."""
        lines = [f"{claim.shown} was not taken:", "", *problems, "", "Mend it and put it into inbox again."]
        name = claim.name
        if os.path.lexists(self._rejected / name) or os.path.lexists(self._rejected / f"{name}.txt"):
            name = claim.file
        # The reason first, so that no file is without.
        _write(self._rejected / f"{name}.txt", "\n".join(lines) + "\n")
        self._move(claim, self._rejected / name)

    def finish(self, claim: Claim, text: str) -> None:
        """Put a file where people find what has ended, and the text of its end beside it."""
        _write(self._finished / f"{claim.id}.json", text)
        self._move(claim, self._finished / claim.file)

    def _move(self, claim: Claim, target: Path) -> None:
        for folder in (self._claimed, self._accepted):
            with contextlib.suppress(FileNotFoundError):  # somebody has deleted it, whose it was
                (folder / claim.file).rename(target)
                return


def is_being_written(path: Path) -> bool:
    """Tell whether somebody has a file open for writing, as far as Linux tells the one whose file it is (fcntl(2)).

    Other systems, other people's files and network volumes tell nothing: then it is not.
    """
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415  not on Windows

    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Whoever opens it at this very moment has us sent a signal: one that nobody minds.
        fcntl.fcntl(fd, fcntl.F_SETSIG, 23)  # SIGURG
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def _claim(name: str, now: float) -> Claim:
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", Path(name).stem)[:_LONGEST_STEM].strip("-_") or "batch"
    # No dots, so that it ends at the first one.
    made = f"{stem}-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    room = _LONGEST_NAME - len(f"{made}..txt")
    return Claim(made, os.fsdecode(os.fsencode(name)[-room:]))


def _claims(folder: Path) -> list[Claim]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    parts = (name.partition(".") for name in names)
    return [Claim(batch_id, name) for batch_id, dot, name in parts if dot]


def _write(path: Path, text: str) -> None:
    """Write a file that is whole whenever it is there."""
    fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        fresh.write_text(text, "utf-8", "backslashreplace")
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
