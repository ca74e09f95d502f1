"""What is measured, and why. Each case is a module with a ``CASE``; its name is the module's."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec

from benchmarks.charts import Chart
from benchmarks.measure import Bench, Sample


class Options(msgspec.Struct, frozen=True):
    """What a caller may choose. ``real`` asks for the network where a case would do without.

    ``peers`` are those to compare with the bare loop; none means all.
    """

    repeat: int
    requests: int
    concurrency: int = 100
    real: bool = False
    peers: tuple[str, ...] = ()


class Table(msgspec.Struct):
    """Figures as people read them; the first column says of what they are."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Check(msgspec.Struct):
    """A bound, what was measured, and whether it was held."""

    bound: str
    measured: str
    held: bool


class Report(msgspec.Struct):
    """What came of a case. ``samples`` are all runs, ``notes`` say how the figures are to be read.

    ``missing`` and ``broken`` are contenders that are not installed, and that failed, with what was said.
    """

    tables: list[Table]
    checks: list[Check]
    samples: list[Sample]
    notes: list[str] = []
    charts: list[Chart] = []
    missing: dict[str, str] = {}
    broken: dict[str, str] = {}


class Case(msgspec.Struct, frozen=True):
    """A goal in one sentence, and how to find out. ``requests`` and ``repeat`` are but defaults.

    ``contest`` is said of a case in which anyone may take part: it heeds the peers of the options.
    """

    goal: str
    run: Callable[[Bench, Options], Report]
    requests: int
    repeat: int = 5
    contest: bool = False


def all_cases() -> dict[str, Case]:
    """Return every case by its name."""
    found: dict[str, Any] = {name: import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)}
    return {name: module.CASE for name, module in sorted(found.items())}
