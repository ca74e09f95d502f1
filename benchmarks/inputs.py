"""Files of URLs: many of one host, or hosts of very unequal size."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.measure import Bench

_SEED = 20_000


def write_urls(bench: Bench, count: int, path: str, root: str | None = None) -> Path:
    """Write a file of ``count`` different URLs of an origin, all with one path."""
    root = root or bench.origin.url
    name = f"urls-{crc32((root + path).encode()):08x}-{count}.txt"
    return write_lines(bench, name, (f"{root}{path}?n={n}" for n in range(count)))


def write_lines(bench: Bench, name: str, urls: Iterable[str]) -> Path:
    """Write URLs, a line each, and return the file."""
    file = bench.folder / name
    with file.open("w", encoding="utf-8") as out:
        out.writelines(f"{url}\n" for url in urls)
    return file


def zipf_hosts(jobs: int, hosts: int, exponent: float) -> list[str]:
    """Return the host of each job in random order: the k-th largest has 1/k**exponent of the largest, or so.

    Every host has a job. Sorted by name the largest comes last, which is the hardest order for a scheduler.
    """
    chance = random.Random(_SEED)
    weights = [rank**-exponent for rank in range(1, hosts + 1)]
    ranks = [*range(hosts), *chance.choices(range(hosts), weights, k=jobs - hosts)]
    chance.shuffle(ranks)
    return [f"h{hosts - rank:05}.test" for rank in ranks]
