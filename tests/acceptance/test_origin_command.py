"""``fetcher origin`` as whoever types it has it, where it can not listen."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from fetcher.cli.app import main


def taken(stack: ExitStack, port: int = 0, kind: int = socket.SOCK_STREAM) -> int:
    """Listen on a port; return it."""
    listening = stack.enter_context(socket.socket(socket.AF_INET, kind))
    listening.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        listening.listen()
    return int(listening.getsockname()[1])


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run it; return the line that it ends with."""
    assert main(["origin", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_port_in_use_is_one_line_that_says_what_to_do(capfd):
    with ExitStack() as stack:
        port = taken(stack)
        assert said(capfd, "--port", str(port)) == (
            f"fetcher origin: port {port} of 127.0.0.1 is in use; "
            "end who listens there, or name another by --port (0 picks a free one)\n"
        )


@pytest.mark.parametrize(("after", "kind"), [(2, socket.SOCK_STREAM), (5, socket.SOCK_DGRAM)])
def test_so_is_one_of_those_for_sockets(capfd, after, kind):
    with ExitStack() as stack:
        port = taken(stack, kind=kind) - after
        line = said(capfd, "--sockets", "--port", str(port))
    assert line.startswith(f"fetcher origin: one of the ports {port} to {port + 6} of 127.0.0.1 is in use; ")


def test_an_address_of_somebody_else_is_one_line(capfd):
    line = said(capfd, "--host", "192.0.2.1", "--port", "0")
    assert line == "fetcher origin: can not listen at 192.0.2.1:0: Cannot assign requested address\n"
