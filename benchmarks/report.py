"""A case's figures, on the terminal and as JSON."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.measure import cpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.cases import Case, Options, Report, Table

_PACKAGES = ("fetcher", "aiohttp", "uvloop", "msgspec")
_PEERS = ("requests", "httpx", "pyreqwest", "pycurl", "scrapy", "crawlee")
_WIDTH = 190  # where there is no terminal to ask


def header() -> dict[str, str]:
    """Return what figures depend on besides the code: without it they mean nothing."""
    cores = cpus()
    pinned = f"contenders on core {cores[0]}, origin on core {cores[1]}" if len(cores) > 1 else "nothing pinned"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": ", ".join([*_versions(_PACKAGES), f"SQLite {sqlite3.sqlite_version}"]),
        "peers": ", ".join([*_versions(_PEERS), _curl()]),
        "python": f"{python} on {platform.system()}, {platform.machine()}",
        "cores": f"{os.cpu_count()} x {_processor()}, {pinned}, load before {load:.2f}",
    }


def show(name: str, case: Case, report: Report, about: dict[str, str]) -> None:
    """Print a report."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(f"[bold]{name}[/]  {case.goal}", highlight=False)
    for key, value in about.items():
        console.print(Text(f"{key:<9} {value}", style="dim"))
    for table in report.tables:
        console.print(_drawn(table))
    for note in report.notes:
        console.print(Text(f"- {note}", style="dim"))
    for check in report.checks:
        verdict = Text("held  ", style="green") if check.held else Text("MISSED", style="red")
        console.print(Text.assemble(verdict, f"  {check.bound}: {check.measured}"))


def show_failures(report: Report) -> None:
    """Say on stderr who is missing, and who broke down."""
    for label, why in report.missing.items():
        sys.stderr.write(f"{label}: {why}\n")
    for label, why in report.broken.items():
        sys.stderr.write(f"BROKEN {label}: {why}\n")


def write(path: Path, name: str, options: Options, report: Report, about: dict[str, str]) -> None:
    """Write a report as JSON, with every sample."""
    document = {"case": name, "about": about, "options": options, "report": report}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def _versions(packages: Sequence[str]) -> Iterator[str]:
    for name in packages:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} missing"


def _curl() -> str:
    curl = shutil.which("curl")
    if curl is None:
        return "curl missing"
    said = subprocess.run([curl, "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:2])


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(title=f"{table.title}; median (min - max)", title_justify="left")
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    return info.partition("model name")[2].partition(":")[2].partition("\n")[0].strip() or platform.machine()
