"""``fetcher serve`` and ``fetcher token``: the service, and who may use it."""

from __future__ import annotations

import secrets
import signal
import sys
from typing import Annotated

from cyclopts import Parameter

from fetcher.cli.logs import configure_logging
from fetcher.cli.run import Override, calm_collector, raise_file_limit, run_loop
from fetcher.cli.signals import first_signal
from fetcher.errors import EXIT_RESUMABLE
from fetcher.service.loading import load_service
from fetcher.service.settings import ServiceConfig, hash_token


def serve(config: str | None = None, *, override: Override = None) -> int:
    """Run as a service: take batches from an API, a folder and schedules, and fetch them side by side.

    Parameters
    ----------
    config
        The config file of the service (YAML). Without one it listens on 127.0.0.1:8080 and keeps state/service.
    override
        Set a value of the config: key.path=value. May be given several times.
    """
    overrides = list(override or [])
    loaded = load_service(config, overrides)
    raise_file_limit()
    configure_logging()
    return run_loop(_serve(loaded, config, overrides))


async def _serve(config: ServiceConfig, path: str | None, overrides: list[str]) -> int:
    # Not for a command that only prints a token.
    from fetcher.service.serving import Service  # noqa: PLC0415

    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None:
        # It has the config loaded again, while that can be done, and never ends anything.
        signal.signal(hangup, signal.SIG_IGN)
    service = Service(config, path, overrides)
    calm_collector()
    with first_signal(service.drain):
        return 0 if await service.run() else EXIT_RESUMABLE


def token(*, name: str = "me", write: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Make a token for the API, and print what belongs into the config of the service.

    Parameters
    ----------
    name
        Who has it, for the log.
    write
        Whether it may submit and change batches, and not only look.
    """
    made = secrets.token_urlsafe(32)
    scopes = "[read, write]" if write else "[read]"
    sys.stdout.write(f"{made}\n")
    sys.stderr.write(
        "this token is shown once; put what follows into the config of the service\n"
        f"service:\n  tokens:\n    - {{name: {name}, hash: '{hash_token(made)}', scopes: {scopes}}}\n"
    )
    return 0
