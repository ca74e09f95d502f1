"""An SMTP server for the tests (``aiosmtpd``), in a thread: STARTTLS or TLS, a login, restarts."""

from __future__ import annotations

import email
import socket
import tempfile
import warnings
from email import policy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from certificates import serving
from servers.processes import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from email.message import EmailMessage


class SmtpServer:
    """A running server that takes mail from the user ``fetcher``, password ``secret``, over TLS alone.

    ``refused`` are recipients that it does not know; ``answer`` is what it says to a message.
    """

    username, password = "fetcher", "secret"

    def __init__(self, *, implicit_tls: bool = False) -> None:
        authority = trustme.CA()
        self._folder = tempfile.TemporaryDirectory(prefix="fetcher-smtp-")
        self.ca_file = str(Path(self._folder.name) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        self._context = serving(authority.issue_cert("localhost"))
        self._implicit = implicit_tls
        self.port = free_port()
        self._controller: Controller | None = None
        self.reset()
        self.start()

    def reset(self) -> None:
        """Forget all mail and take everything."""
        self.envelopes: list[Any] = []
        self.refused: set[str] = set()
        self.answer = "250 OK"
        self.logins = 0

    @property
    def messages(self) -> list[EmailMessage]:
        """What was accepted, parsed."""
        return [email.message_from_bytes(envelope.content, policy=policy.default) for envelope in self.envelopes]

    @property
    def options(self) -> dict[str, Any]:
        """What the sink has to know."""
        return {
            "host": "localhost",
            "port": self.port,
            "tls": "tls" if self._implicit else "starttls",
            "username": self.username,
            "password": self.password,
            "ca_file": self.ca_file,
            "sender": "batches@example.org",
            "to": ["ops@example.org"],
        }

    def start(self) -> None:
        """Answer from now on."""
        self._controller = _Controller(self, self._context, implicit=self._implicit)
        self._controller.start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def close(self) -> None:
        self.stop()
        self._folder.cleanup()

    # What aiosmtpd asks its handler

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refused:
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.envelopes.append(envelope)
        return self.answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins += 1
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (
            self.username.encode(),
            self.password.encode(),
        )
        return AuthResult(success=good, handled=False)


class _Controller(Controller):
    def __init__(self, handler: SmtpServer, context: ssl.SSLContext, *, implicit: bool) -> None:
        self._starttls = None if implicit else context
        super().__init__(
            handler,
            hostname="localhost",
            port=handler.port,
            ssl_context=context if implicit else None,
            ready_timeout=10,
        )

    def factory(self) -> SMTP:
        with warnings.catch_warnings():
            # It warns of what is wanted here: that nothing goes on without TLS.
            warnings.simplefilter("ignore")
            return SMTP(
                self.handler,
                hostname="localhost",
                tls_context=self._starttls,
                require_starttls=self._starttls is not None,
                auth_required=True,
                auth_require_tls=self._starttls is not None,
                authenticator=self.handler.authenticate,
                ident="test",
            )

    def _trigger_server(self) -> None:
        # Its own would read a greeting by TLS with no authority of ours.
        socket.create_connection((self.hostname, self.port), 5.0).close()


def smtp_server() -> Iterator[SmtpServer]:
    """Start a server without mail."""
    server = SmtpServer()
    try:
        yield server
    finally:
        server.close()
