"""An address of IPv6 that is dead in the worst way: whoever connects waits for an answer that does not come."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def full_backlog(address: str, port: int) -> Iterator[None]:
    """Let connections to an IPv6 address and port hang: somebody listens there whose backlog is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_INET6))
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(16):
            caller = stack.enter_context(socket.socket(socket.AF_INET6))
            caller.settimeout(0.2)
            try:
                caller.connect((address, port))
            except TimeoutError:
                yield
                return
        pytest.skip("connections to a full backlog do not hang here")
