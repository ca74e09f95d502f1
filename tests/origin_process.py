"""The test origin as its own process, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fetcher.origin.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_SECONDS = 10.0
_GREETING = "listening on "


@dataclass(frozen=True, slots=True)
class OriginProcess:
    """A running origin. ``places``: what it serves beside http, name -> URL."""

    url: str
    port: int
    pid: int
    access_log: Path | None
    places: dict[str, str] = field(default_factory=dict)

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the access log's whole lines so far; complete once the process has stopped."""
        if self.access_log is None or not self.access_log.exists():
            return []
        whole, _, _ = self.access_log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def origin_process(
    access_log: Path | str | None = None, pin_cpu: int | None = None, *, sockets: bool = False
) -> Iterator[OriginProcess]:
    """Start an origin on a free port of the loopback, on one CPU if asked; stop it with SIGTERM."""
    log = None if access_log is None else Path(access_log)
    command = [sys.executable, "-m", "fetcher", "origin", "--host", "127.0.0.1", "--port", "0"]
    command += [] if log is None else ["--access-log", str(log)]
    command += ["--sockets"] if sockets else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if pin_cpu is not None:
            os.sched_setaffinity(process.pid, {pin_cpu})
        url = _greeting(process)
        places = _places(process) if sockets else {}
        yield OriginProcess(url, urlsplit(url).port or 0, process.pid, log, places)
    finally:
        _stop(process)


def _greeting(process: subprocess.Popen[str]) -> str:
    stdout = process.stdout
    line = "" if stdout is None else stdout.readline()
    if not line.startswith(_GREETING):
        msg = f"the origin did not start; its first line was {line!r}"
        raise RuntimeError(msg)
    return line.removeprefix(_GREETING).strip()


def _places(process: subprocess.Popen[str]) -> dict[str, str]:
    lines = [(process.stdout.readline() if process.stdout else "").split() for _ in Sockets().names]
    return {name: url for name, url, *_ in lines}


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
