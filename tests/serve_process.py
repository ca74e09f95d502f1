"""``fetcher serve`` as its own process, and what a client of its API needs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 30.0
SOON = 60.0
_TO_LOOPBACK = ("service.port=0", "service.files=.", "http.guard=false")


class ServeProcess:
    """A running service. Its log is what it has written to stderr, as JSON lines."""

    def __init__(self, folder: Path, *overrides: str, config: str | None = None, env: Mapping[str, str] | None = None):
        self.log_path = folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "fetcher", "serve", *([config] if config else [])]
        for override in (*_TO_LOOPBACK, *overrides):
            command += ["-s", override]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stderr=log, env={**os.environ, **(env or {})})
        try:
            self.url = self._wait_until_started()
        except BaseException:
            self.stop()
            raise

    def _wait_until_started(self) -> str:
        started = self.wait_for_event("service_started", START_SECONDS)
        return str(started["url"])

    def wait_for_event(self, event: str, seconds: float = SOON) -> dict[str, Any]:
        """Return the first line of the log about an event."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next((line for line in self.log() if line["event"] == event), None)
            if found is not None:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no {event}: {self.log_path.read_text()}")

    def log(self) -> list[dict[str, Any]]:
        """Return the whole lines of the log so far."""
        whole, _, _ = self.log_path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the answer of the API: JSON as data, or bytes. Raises urllib.error.HTTPError."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            is_json = answer.headers.get("Content-Type", "").startswith("application/json")
            return json.loads(content) if is_json else content

    def submit(self, **config: Any) -> str:
        """Submit a config and return the id of the batch."""
        return str(self.ask("POST", "/v1/batches", config)["id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Return a batch."""
        found: dict[str, Any] = self.ask("GET", f"/v1/batches/{batch_id}")
        return found

    def wait_for(self, batch_id: str, what: Any, seconds: float = SOON) -> dict[str, Any]:
        """Return a batch once it is as wanted."""
        deadline = time.monotonic() + seconds
        while not what(view := self.batch(batch_id)):
            assert time.monotonic() < deadline, view
            time.sleep(0.05)
        return view

    def wait_for_end(self, batch_id: str) -> dict[str, Any]:
        """Return a batch once it has ended."""
        return self.wait_for(batch_id, lambda view: view["state"] in {"done", "failed", "cancelled"})

    def results(self, batch_id: str) -> list[dict[str, Any]]:
        """Return the records of a batch."""
        lines = self.ask("GET", f"/v1/batches/{batch_id}/results")
        return [json.loads(line) for line in lines.splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code, once it has ended."""
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end: {self.log_path.read_text()}") from None


@contextmanager
def serve_process(folder: Path, *overrides: str, **more: Any) -> Iterator[ServeProcess]:
    """Start a service on a free port of loopback, and stop it."""
    service = ServeProcess(folder, *overrides, **more)
    try:
        yield service
    finally:
        service.stop()
