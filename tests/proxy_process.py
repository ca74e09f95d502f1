"""A real proxy (pproxy) as its own process: HTTP and SOCKS 5 on one port, with or without TLS and credentials."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raw_server import unused_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# It takes uvloop where there is one, and then asks for a loop in a way that uvloop does not have any more.
_MAIN = "import sys; sys.modules['uvloop'] = None; from pproxy.server import main; main()"
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0


@dataclass
class ProxyProcess:
    """A running proxy. ``lines`` is what it has said so far: one for each way that it was asked for."""

    port: int
    lines: list[str] = field(default_factory=list)

    def url(self, scheme: str, userinfo: str = "") -> str:
        return f"{scheme}://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}"


@contextmanager
def proxy_process(credentials: str = "", certificate: Path | None = None) -> Iterator[ProxyProcess]:
    """Run a proxy until the block ends. ``credentials``: user:password. ``certificate``: PEM of chain and key."""
    port = unused_port()
    scheme = "http+socks5" + ("+ssl" if certificate else "")
    command = [sys.executable, "-W", "ignore", "-u", "-c", _MAIN, "-v"]
    command += ["-l", f"{scheme}://127.0.0.1:{port}" + (f"#{credentials}" if credentials else "")]
    command += ["--ssl", str(certificate)] if certificate else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    proxy = ProxyProcess(port)
    listening = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            proxy.lines.append(line)
            if "Serving on" in line:
                listening.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        if not listening.wait(_START_SECONDS):
            msg = f"the proxy did not start: {''.join(proxy.lines)}"
            raise RuntimeError(msg)
        # It says so a moment before it is true.
        socket.create_connection(("127.0.0.1", port), _START_SECONDS).close()
        yield proxy
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)
        reader.join(_STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
