"""An FTP server for the tests (``pyftpdlib``), in a thread: a folder, users, TLS on demand, and a count of logins."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from OpenSSL import SSL
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
    from pyftpdlib.ioloop import IOLoop
    from pyftpdlib.servers import FTPServer as Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

USER, PASSWORD = "fetcher", "secret"
COMMANDS = FTPHandler.proto_cmds
_TICK = 0.01


class FtpServer:
    """A running server. ``commands`` are all that it was sent, without arguments; ``logins`` who was let in or not."""

    def __init__(self, folder: Path, handler: type[Any], host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.host = host
        self.commands: list[str] = []
        self.logins: list[tuple[str, bool]] = []
        self.connections = 0
        self._handler = self._counting(handler)
        self._loop = IOLoop()
        self.tls_context = getattr(handler, "ssl_context", None)
        self._server = Server((host, 0), self._handler, ioloop=self._loop)
        self.port = int(self._server.address[1])
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def url(self, path: str = "", *, user: str | None = None, host: str | None = None, scheme: str = "ftp") -> str:
        name = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{scheme}://{f'{user}@' if user else ''}{name}:{self.port}/{path}"

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def close(self) -> None:
        self._ending = True
        self._thread.join()

    def count(self, command: str) -> int:
        return self.commands.count(command)

    def _run(self) -> None:
        # Not serve_forever: that would set up logging for the whole process.
        while not self._ending:
            self._loop.loop(timeout=_TICK, blocking=False)
        self._server.close_all()

    def _counting(self, handler: type[Any]) -> type[Any]:
        server = self

        class Counting(handler):  # type: ignore[misc]
            banner = "ready"
            auth_failed_timeout = 0
            authorizer = DummyAuthorizer()

            def on_connect(self) -> None:
                server.connections += 1

            def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
                server.commands.append(cmd)
                super().pre_process_command(line, cmd, arg)

            def on_login(self, username: str) -> None:
                server.logins.append((username, True))

            def on_login_failed(self, username: str, password: str) -> None:
                server.logins.append((username, False))

        Counting.authorizer.add_anonymous(str(self.folder))
        Counting.authorizer.add_user(USER, PASSWORD, str(self.folder))
        return Counting


@contextmanager
def ftp_server(
    folder: Path, *, certificate: trustme.LeafCert | None = None, host: str = "127.0.0.1", **options: Any
) -> Iterator[FtpServer]:
    """Serve a folder to anonymous and to ``USER``; ``options`` are attributes of pyftpdlib's handler."""
    # Without a handler it would set up logging for the whole process.
    log = logging.getLogger("pyftpdlib")
    log.handlers, log.propagate = [logging.NullHandler()], False
    base: type[Any] = FTPHandler
    if certificate is not None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        certificate.private_key_pem.write_to_path(folder.parent / "ftp-key.pem")
        (folder.parent / "ftp-chain.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        context.use_privatekey_file(str(folder.parent / "ftp-key.pem"))
        context.use_certificate_chain_file(str(folder.parent / "ftp-chain.pem"))
        options = {"tls_control_required": True, "tls_data_required": True, **options}
        base = type("Secure", (TLS_FTPHandler,), {"ssl_context": context})
    server = FtpServer(folder, type("Handler", (base,), options), host)
    try:
        yield server
    finally:
        server.close()
