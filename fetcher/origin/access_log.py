"""What was asked of the origin, as JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fetcher.origin.parsing import Request

_quote = json.JSONEncoder().encode


class AccessLog:
    """JSON lines of answered requests, one per request when its answer ends; `time` is when it came."""

    __slots__ = ("_busy", "_file", "_rows")

    def __init__(self, path: str | Path) -> None:
        self._file = sys.stdout.buffer if path == "-" else Path(path).open("ab")  # noqa: SIM115 - close() closes it
        self._rows: list[tuple[float, str, bytes, bytes, int, int]] = []
        self._busy: dict[str, int] = {}

    def arrive(self, host: str) -> int:
        """Count a request in; return how many of its host are in progress with it."""
        self._busy[host] = count = self._busy.get(host, 0) + 1
        return count

    def leave(self, request: Request) -> None:
        """Count a request out and keep its line; status 0 means that it got no answer."""
        host = request.head.host
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        self._rows.append((request.time, host, request.target, request.method, request.status, request.concurrent))

    def at_once(self, host: str, target: bytes, method: bytes, status: int) -> None:
        """Keep the line of a request that is answered as it comes."""
        self._rows.append((time(), host, target, method, status, self._busy.get(host, 0) + 1))

    def flush(self) -> None:
        """Write the lines kept so far."""
        rows, self._rows = self._rows, []
        for when, host, target, method, status, concurrent in rows:
            path, verb = _quote(target.decode("utf-8", "replace")), _quote(method.decode("latin-1"))
            line = f'"path": {path}, "method": {verb}, "status": {status}, "concurrent": {concurrent}'
            self._file.write(f'{{"time": {when:.6f}, "host": {_quote(host)}, {line}}}\n'.encode())
        self._file.flush()

    def close(self) -> None:
        """Write what is left."""
        try:
            self.flush()
        finally:
            if self._file is not sys.stdout.buffer:
                self._file.close()
