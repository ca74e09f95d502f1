"""``fetcher lint`` and ``fetcher schema``: what is wrong with a config, and what may stand in one."""

from __future__ import annotations

import json
import sys

from fetcher.assembly import Batch
from fetcher.config import json_schema, load
from fetcher.errors import ConfigError

EXIT_USAGE = 2


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
            Batch(load(path)).check()
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            code = error.exit_code
        else:
            sys.stdout.write(f"{path}: ok\n")
    return code


def schema() -> int:
    """Print the JSON Schema of a config, for editors."""
    json.dump(json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0
