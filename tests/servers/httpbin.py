"""httpbin, which answers what it was asked: over HTTP/1.1, and with as many connections as come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from servers.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Not a script of its own: its folder would be searched first, for ``httpbin`` as well.
_PROGRAM = """
import sys
from httpbin.core import app
from werkzeug.serving import WSGIRequestHandler, run_simple

WSGIRequestHandler.protocol_version = "HTTP/1.1"
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


class HttpbinServer(ServerProcess):
    """``url`` is where it is; ``/anything`` shows a request as it arrived."""

    name = "httpbin"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", _PROGRAM, str(self.port)]


def httpbin_server() -> Iterator[HttpbinServer]:
    with HttpbinServer() as server:
        yield server
