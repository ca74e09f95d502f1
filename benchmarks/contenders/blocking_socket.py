"""A blocking socket as every tutorial teaches it: connect, sendall, recv until the end, close. One by one.

Each request has a connection of its own: that the response ends is known from the connection's end.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.contenders import Fetched, metered

if TYPE_CHECKING:
    from benchmarks.contenders import Task

_PIECE = 65_536


def fetch(task: Task) -> Fetched:
    """Fetch one URL after another."""
    context = context_for(task)
    with metered() as fetched:
        for url in task.read():
            fetched.add(get(url, context))
    return fetched


def get(url: str, context: ssl.SSLContext | None) -> int:
    """Fetch one URL and return how long its body is."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    with connect(host, port, context) as connection:
        request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = []
        while piece := connection.recv(_PIECE):
            received.append(piece)
    head, _, body = b"".join(received).partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1] != b"200":
        raise OSError(f"{url}: {head!r}")
    return len(body)


def connect(host: str, port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Open a connection."""
    connection = socket.create_connection((host, port))
    return connection if context is None else context.wrap_socket(connection, server_hostname=host)


def context_for(task: Task) -> ssl.SSLContext | None:
    """Return a TLS context if the task needs one."""
    return ssl.create_default_context(cafile=task.ca) if task.ca else None
