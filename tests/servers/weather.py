"""An S3 server whose answers can be made bad."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from servers.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Weather:
    """Stands before the server's application; answers with ``status`` and ``code`` as long as ``left`` says."""

    def __init__(self, application):
        self._application = application
        self.left = 0
        self.status, self.code = "503 Slow Down", "SlowDown"
        self.asked = []

    def __call__(self, environ, start_response):
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]))
        if self.left > 0:
            self.left -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(self.status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{self.code}</Code><Message>as told</Message></Error>".encode()]
        return self._application(environ, start_response)


@contextmanager
def weathered_s3() -> Iterator[Any]:
    """Start a server that has its ``weather``."""
    server: Any = S3Server()
    server.stop()
    server.weather = server._application = Weather(server._application)
    server.start()
    try:
        yield server
    finally:
        server.stop()
