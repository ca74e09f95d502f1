"""The real service as a process of its own, for its page to be looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STARTS = 20.0
_STOPS = 15.0


class ServiceProcess:
    """A service. ``url`` ends with a slash."""

    def __init__(self, folder: Path, **service: Any) -> None:
        self._folder = folder
        self._settings: dict[str, Any] = {"port": 0, "state_dir": "state", "shutdown_timeout": "3s"} | service
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it, on the port that it had before if it was there before."""
        config = {"service": self._settings, "http": {"guard": False, "resolve": {"*.test": "127.0.0.1"}}}
        (self._folder / "service.yaml").write_text(yaml.safe_dump(config))
        log = self._folder / "log.jsonl"
        log.unlink(missing_ok=True)
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fetcher", "serve", "service.yaml"],
                cwd=self._folder,
                stderr=stderr,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self.url = self._address(log)
        self._settings["port"] = int(self.url.rstrip("/").rpartition(":")[2])

    def _address(self, log: Path) -> str:
        until = time.monotonic() + _STARTS
        while time.monotonic() < until:
            for line in log.read_text().splitlines(keepends=True):
                if line.endswith("\n") and '"service_started"' in line:
                    return f"{json.loads(line)['url']}/"
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the service did not start: {log.read_text()}")

    def stop(self) -> None:
        """Have it drain and end."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOPS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def submit(self, batch: dict[str, Any] | list[str]) -> str:
        """Submit a config, or URLs, and return the id of the batch."""
        is_config = isinstance(batch, dict)
        body, kind = (json.dumps(batch), "application/json") if is_config else ("\n".join(batch), "text/plain")
        request = urllib.request.Request(f"{self.url}v1/batches", body.encode(), {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Return what the service says of a batch."""
        with urllib.request.urlopen(f"{self.url}v1/batches/{batch_id}", timeout=10) as answer:
            view: dict[str, Any] = json.load(answer)
            return view


@contextmanager
def service(folder: Path, **settings: Any) -> Iterator[ServiceProcess]:
    """Run a service whose files lie in a folder."""
    process = ServiceProcess(folder, **settings)
    process.start()
    try:
        yield process
    finally:
        process.stop()
