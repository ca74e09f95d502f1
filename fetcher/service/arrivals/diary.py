"""Which time of each schedule was the last, in ``state_dir/schedules.json``. It is there after a power cut."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import StateError
from fetcher.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

_NAME = "schedules.json"


class Entry(msgspec.Struct, frozen=True):
    """What is known of a schedule: ``at``, the time that was decided on last, and the last ``batch`` it had, if any.

    ``rule`` is what its times followed from, ``ran`` the time of that batch. Times are epoch seconds.
    """

    at: float
    rule: str
    batch: str | None = None
    ran: float | None = None


class Diary:
    """What is known of all schedules. Calls that change it block until it is on the disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._entries: dict[str, Entry] = {}

    def open(self) -> None:
        """Read what there is. Raises StateError."""
        try:
            self._entries = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Entry])
        except FileNotFoundError:
            self._entries = {}
        except (OSError, msgspec.DecodeError) as error:
            message = f"{self._path}: can not be read ({error}); move it away, and schedules begin anew"
            raise StateError(message) from error

    def find(self, name: str) -> Entry | None:
        """Return what is known of a schedule, None if it is new."""
        return self._entries.get(name)

    def write(self, name: str, entry: Entry) -> None:
        """Note what was decided. Raises OSError, and then nothing has changed."""
        self._save(self._entries | {name: entry})

    def keep(self, names: Container[str]) -> None:
        """Forget all other schedules: one that is taken up again some day begins anew."""
        kept = {name: entry for name, entry in self._entries.items() if name in names}
        if kept != self._entries:
            self._save(kept)

    def _save(self, entries: dict[str, Entry]) -> None:
        fresh = self._path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(entries), indent=1))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync_folder(self._path.parent)
        self._entries = entries
