"""``fetcher lint`` and ``fetcher schema``: what is wrong with a config, and what may stand in one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fetcher.assembly import Batch
from fetcher.cli.exits import EXIT_USAGE
from fetcher.config import Config, json_schema, load
from fetcher.config.document import parse
from fetcher.errors import ConfigError
from fetcher.service.arrivals.schedules import check_schedules
from fetcher.service.loading import load_service
from fetcher.service.settings import ServiceConfig

_OF_SERVICE = {"service", "schedules"}


def lint(*configs: str) -> int:
    """Check configs, and the inputs that they name, without fetching anything.

    Parameters
    ----------
    configs
        The config files.
    """
    if not configs:
        sys.stderr.write("fetcher lint: no config given; see fetcher lint --help\n")
        return EXIT_USAGE
    code = 0
    for path in configs:
        try:
            _check(path)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        else:
            sys.stdout.write(f"{path}: ok\n")
    return code


def _check(path: str) -> None:
    """Raise ConfigError if a config can not be used: that of a batch, or of a service, as its sections tell."""
    if _is_of_service(path):
        check_schedules(load_service(path))
    else:
        Batch(load(path)).check()


def _is_of_service(path: str) -> bool:
    try:
        text = Path(path).read_text("utf-8-sig")
        return not _OF_SERVICE.isdisjoint(parse(text, path, None).data or ())
    except (OSError, ValueError, TypeError, ConfigError):
        return False  # what is wrong with it, loading it will tell


def schema(*, service: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Print the JSON Schema of a config, for editors.

    Parameters
    ----------
    service
        That of a service instead of that of a batch.
    """
    json.dump(json_schema(ServiceConfig if service else Config), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0
