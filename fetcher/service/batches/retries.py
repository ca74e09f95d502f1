"""Which jobs of a batch have failed, for another batch that has but these: a hash of 8 bytes for each of their ids."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from fetcher.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


class _Record(msgspec.Struct):
    job_id: str
    outcome: str
    parent_id: str | None = None


_decode = msgspec.json.Decoder(_Record).decode


class ChosenIds:
    """Ids of jobs. One that is not among them is taken for one that is with a chance of their number in 2^64."""

    def __init__(self, hashes: array[int]) -> None:
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, job_id: object) -> bool:
        wanted = _hash(str(job_id))
        index = bisect_left(self._hashes, wanted)
        return index < len(self._hashes) and self._hashes[index] == wanted

    @classmethod
    def failed(cls, results: Path) -> ChosenIds:
        """Return those of a batch that have failed, out of its records.

        Of a page that has failed, it is the job of the first one: pages behind it are only found from there.
        """
        found = array("Q")
        with results.open("rb") as lines:
            for line in lines:
                record = _decode(line)
                if record.outcome == "failed":
                    found.append(_hash(record.parent_id or record.job_id))
        return cls(array("Q", sorted(found)))

    @classmethod
    def load(cls, path: Path) -> ChosenIds:
        """Return those that ``save`` wrote."""
        hashes = array("Q")
        hashes.frombytes(path.read_bytes())
        return cls(hashes)

    def save(self, path: Path) -> None:
        """Write them to a file, durably."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(self._hashes.tobytes())
            file.flush()
            os.fsync(fd)
        sync_folder(path.parent)


def _hash(job_id: str) -> int:
    return int.from_bytes(blake2b(job_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
