"""``fetcher origin``: a server to try things out on, with every way to answer that a test needs."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fetcher.cli.exits import EXIT_USAGE
from fetcher.cli.text import plain
from fetcher.origin import Origin, OriginConfig, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.origin.sockets import Place

_NOT_TO_BE_HAD = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
_MORE_PORTS = 6


def origin(
    *,
    host: str = "127.0.0.1",
    port: int = 8900,
    access_log: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    limited_rate: float = 10.0,
    sockets: Annotated[bool, Parameter(negative="")] = False,
    routes: bool = False,
) -> int:
    """Serve a test origin until interrupted.

    Parameters
    ----------
    host
        The address to listen on.
    port
        The port; 0 picks a free one.
    access_log
        A file for one JSON line a request; - is standard output.
    certfile
        A certificate chain (PEM), to serve https.
    keyfile
        Its key (PEM).
    limited_rate
        Requests per second and host that /limited answers.
    sockets
        Serve TCP, UDP and web sockets, too, on the six ports after --port; the URLs are printed.
    routes
        List the paths that are served, and exit.
    """
    if routes:
        sys.stdout.write(Origin.ROUTES_HELP + "\n")
        return 0
    config = OriginConfig(
        host=host,
        port=port,
        access_log=access_log,
        certfile=certfile,
        keyfile=keyfile,
        limited_rate=limited_rate,
        sockets=sockets,
    )
    try:
        run(config, _ready, _also)
    except OSError as error:
        if error.errno not in _NOT_TO_BE_HAD:
            raise
        sys.stderr.write(f"fetcher origin: {plain(_why_not(config, error), 400)}\n")
        return EXIT_USAGE
    return 0


def _why_not(config: OriginConfig, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return f"can not listen at {config.host}:{config.port}: {os.strerror(error.errno or 0)}"
    ports = f"port {config.port}"
    if config.sockets:
        ports = f"one of the ports {config.port} to {config.port + _MORE_PORTS}"
    return f"{ports} of {config.host} is in use; end who listens there, or name another by --port (0 picks a free one)"


def _also(places: Sequence[Place]) -> None:
    for place in places:
        sys.stdout.write(f"  {place.name:<10} {place.url:<28} {place.what}\n")
    sys.stdout.flush()


def _ready(url: str) -> None:
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()
