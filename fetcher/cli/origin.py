"""``fetcher origin``: a server to try things out on, with every way to answer that a test needs."""

from __future__ import annotations

import sys

from fetcher.origin import Origin, OriginConfig, run


def origin(
    *,
    host: str = "127.0.0.1",
    port: int = 8900,
    access_log: str | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    limited_rate: float = 10.0,
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
    )
    run(config, _ready)
    return 0


def _ready(url: str) -> None:
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()
