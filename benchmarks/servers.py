"""Servers that outputs are written to: each is started for one run, beside its contender, and ends with it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

KNOWN = "server"
"""The file in the folder of a contender that has what ``started`` returns, for who reads the records."""
_TREE = Path(__file__).parents[1]
Settings = dict[str, str]


@contextmanager
def started(name: str, folder: Path) -> Iterator[Settings]:
    """Start a server, and return what stands for it in the setting of a sink; none is started without a name."""
    if not name:
        yield {}
        return
    # The servers of the tests import one another by their own names.
    sys.path.append(str(_TREE / "tests"))
    with _SERVERS[name](folder) as settings:
        (folder / KNOWN).write_text(json.dumps(settings), encoding="utf-8")
        yield settings


@contextmanager
def _postgres(_: Path) -> Iterator[Settings]:
    from servers.postgres import postgres_server  # noqa: PLC0415  nobody else needs what it needs

    for server in postgres_server():
        yield {"dsn": server.dsn}


@contextmanager
def _redis(_: Path) -> Iterator[Settings]:
    from servers.redis import RedisServer  # noqa: PLC0415  nobody else needs what it needs

    with RedisServer() as server:
        yield {"port": str(server.port), "password": server.password}


@contextmanager
def _nats(_: Path) -> Iterator[Settings]:
    from servers.nats import NatsServer  # noqa: PLC0415  nobody else needs what it needs

    with NatsServer() as server:
        yield {"url": server.url, "username": server.username, "password": server.password}


@contextmanager
def _webhook(folder: Path) -> Iterator[Settings]:
    """Start a receiver that keeps what is posted, a body a line."""
    command = [sys.executable, "-m", "benchmarks.receiver", str(folder / "posted")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_TREE) as receiver:
        try:
            port = receiver.stdout.readline().strip() if receiver.stdout is not None else ""
            yield {"url": f"http://127.0.0.1:{port}/"}
        finally:
            receiver.terminate()


_SERVERS: dict[str, Callable[[Path], AbstractContextManager[Settings]]] = {
    "postgres": _postgres,
    "redis": _redis,
    "nats": _nats,
    "webhook": _webhook,
}
