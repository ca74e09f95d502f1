"""Runs one contender as this process: its task from the command line, its figures to stdout."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

import msgspec

from benchmarks.contenders import Fetched, Task, UnableError

_INSTALL = "missing: pip install {} (or everything: pip install -e '.[bench]')"


def main() -> None:
    """Run the contender that is named."""
    name, cpu, task = _given()
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        fetched = import_module(f"benchmarks.contenders.{name}").fetch(task)
    except UnableError as error:
        fetched = Fetched(unable=str(error))
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in {"", "benchmarks", "fetcher"}:
            raise
        fetched = Fetched(unable=_INSTALL.format(library))
    sys.stdout.write(msgspec.json.encode(fetched).decode() + "\n")


def _given() -> tuple[str, int | None, Task]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contenders")
    parser.add_argument("name")
    parser.add_argument("--urls", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--per-host", type=int, default=100)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--variant", default="")
    parser.add_argument("--cpu", type=int)
    fields = vars(parser.parse_args())
    return fields.pop("name"), fields.pop("cpu"), Task(**fields)


if __name__ == "__main__":
    main()
