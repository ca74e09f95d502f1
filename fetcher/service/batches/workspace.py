"""The folder of each batch: ``state_dir/batches/<id>/``.

    config.yaml      as it was submitted
    urls.csv         the file that came with it, if one did, under the suffixes that it had
    failed.ids       which jobs a retry is about
    queue.db         what is still to be fetched
    results.jsonl    a record for each job that has ended
    *.dead.jsonl     what sinks did not take that jobs do not wait for

All calls block; they are made on a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from fetcher.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

CONFIG = "config.yaml"
RESULTS = "results.jsonl"
QUEUE = "queue.db"
FAILED = "failed.ids"
_SUFFIXES = re.compile(r"(\.(csv|tsv|jsonl|ndjson|txt|parquet))?(\.(gz|zst))?$", re.IGNORECASE)


def upload_name(path: Path) -> str:
    """Return what a file of URLs is called in the folder of its batch: its suffixes say what it is."""
    found = _SUFFIXES.search(path.name)
    return f"urls{found[0].lower() if found and found[0] else '.txt'}"


class Workspace:
    """The folders of all batches."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "batches"

    def of(self, batch_id: str) -> Path:
        """Return the folder of a batch."""
        return self._folder / batch_id

    def create(self, batch_id: str, text: str, links: Mapping[str, Path] | None = None) -> None:
        """Make the folder of a new batch, durably: its config, and other names, there, of files that there are.

        What an attempt that was broken off has left is replaced. Raises OSError, and then there is none.
        """
        self.remove(batch_id)
        try:
            self._fill(self.of(batch_id), text, links or {})
        except OSError:
            self.remove(batch_id)  # a disk that is full has room for nothing of it
            raise

    def _fill(self, folder: Path, text: str, links: Mapping[str, Path]) -> None:
        folder.mkdir(parents=True, mode=0o700)
        _write(folder / CONFIG, text.encode())
        for name, path in links.items():
            _link(path, folder / name)
        sync_folder(folder)
        sync_folder(self._folder)

    def text(self, batch_id: str) -> str:
        """Return the config of a batch as it was submitted."""
        return (self.of(batch_id) / CONFIG).read_text("utf-8")

    def forget_queue(self, batch_id: str) -> None:
        """Delete what is only needed to go on with a batch."""
        for suffix in ("", "-wal", "-shm"):
            (self.of(batch_id) / f"{QUEUE}{suffix}").unlink(missing_ok=True)

    def remove(self, batch_id: str) -> None:
        """Delete the folder of a batch."""
        shutil.rmtree(self.of(batch_id), ignore_errors=True)

    def sweep(self, known: Container[str]) -> list[str]:
        """Delete the folders of batches that nobody knows: their submission was broken off. Return their names."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        unknown = [entry.name for entry in os.scandir(self._folder) if entry.name not in known]
        for name in unknown:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        return unknown


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _link(source: Path, target: Path) -> None:
    """Give a file another name, or copy it to where it can have none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    fd = os.open(target, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
