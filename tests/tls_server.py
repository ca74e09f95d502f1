"""A server that ends TLS as a test tells it to."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@contextmanager
def answering_and_ending(context: ssl.SSLContext, answer: bytes, *, politely: bool) -> Iterator[int]:
    """Answer one request and close the connection, with close_notify before that or without; yield the port.

    In a thread, as no event loop can be made to leave it out.
    """

    def serve() -> None:
        accepted, _ = listening.accept()
        with context.wrap_socket(accepted, server_side=True) as tls:
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += tls.recv(4096)
            tls.sendall(answer)
            if politely:
                # Sends the alert, then waits for that of the client.
                tls.unwrap().close()
                return
            with socket.socket(fileno=tls.detach()) as bare:
                bare.shutdown(socket.SHUT_WR)
                bare.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()
