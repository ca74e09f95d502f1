"""An S3 server of its own for the tests (``moto``): ``obstore`` with ``options`` talks to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import obstore
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import S3Store
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


class S3Server:
    """A running server. ``stop`` and ``start`` keep its port; what it stores is in this process and stays, too."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def options(self) -> dict[str, str]:
        """Return what a client has to know, by the names that obstore has for it."""
        return {
            "endpoint": self.endpoint,
            "allow_http": "true",
            "region": "us-east-1",
            "access_key_id": "key",
            "secret_access_key": "secret",
        }

    def store(self, bucket: str) -> S3Store:
        """Return a client for a bucket."""
        return S3Store(bucket, config=self.options)

    def create(self, bucket: str) -> S3Store:
        """Create a bucket, and return a client for it."""
        self._control("PUT", f"/{bucket}")
        return self.store(bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object."""
        obstore.put(self.store(bucket), key, data)

    def reset(self) -> None:
        """Forget all buckets."""
        self._control("POST", "/moto-api/reset")

    def start(self) -> None:
        """Answer from now on."""
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", self._port, self._application, threaded=True, request_handler=_Quiet
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _control(self, method: str, path: str) -> None:
        with urlopen(Request(self.endpoint + path, method=method)) as answer:
            answer.read()


def s3_server() -> Iterator[S3Server]:
    """Start a server without buckets."""
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
