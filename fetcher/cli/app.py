"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import cyclopts
from rich.console import Console

from fetcher.cli.exits import EXIT_CRASH, EXIT_INTERRUPTED, EXIT_USAGE
from fetcher.errors import FetcherError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _version() -> str:
    from fetcher import __version__  # noqa: PLC0415  it would load everything, for every command

    return __version__


app = cyclopts.App(
    name="fetcher",
    help="Fetch very many URLs: nothing lost and provably so, polite, trustworthy, fast.",
    version=_version,
    error_console=Console(stderr=True),
    result_action="return_value",
    exit_on_error=False,
)
# The first line of each command's docstring, so that listing them loads none; tests/unit/cli/test_app.py compares.
COMMANDS = {
    "run": ("fetcher.cli.run:run", "Fetch a batch of URLs. An unfinished run is resumed where it stopped."),
    "serve": (
        "fetcher.cli.serve:serve",
        "Run as a service: take batches from an API, a folder and schedules, and fetch them side by side.",
    ),
    "token": (
        "fetcher.cli.serve:token",
        "Make a token for the API, and print what belongs into the config of the service.",
    ),
    "submit": (
        "fetcher.cli.remote.submit:submit",
        "Submit batches to a service: configs (.yaml, .json), or files of URLs (.txt, .csv, .tsv, .jsonl).",
    ),
    "status": ("fetcher.cli.remote.batches:status", "Show the batches of a service, or everything about one."),
    "results": (
        "fetcher.cli.remote.batches:results",
        "Write the records of a batch of a service to standard output, one JSON object a line.",
    ),
    "pause": (
        "fetcher.cli.remote.batches:pause",
        "Let batches of a service end what is in flight, and then wait.",
    ),
    "resume": ("fetcher.cli.remote.batches:resume", "Let paused batches of a service go on."),
    "cancel": ("fetcher.cli.remote.batches:cancel", "End batches of a service; what they have fetched is kept."),
    "retry": (
        "fetcher.cli.remote.batches:retry",
        "Go on with batches of a service that have failed; of one that is done, fetch what failed in another batch.",
    ),
    "delete": (
        "fetcher.cli.remote.batches:delete",
        "Delete batches of a service that have ended, with their results.",
    ),
    "why": (
        "fetcher.cli.remote.batches:why",
        "Say what bounds the throughput of a service right now, and what to change.",
    ),
    "get": (
        "fetcher.cli.get:get",
        "Fetch URLs and write their records to standard output, one JSON object a line.",
    ),
    "lint": (
        "fetcher.cli.lint:lint",
        "Check configs, and the inputs that they name, without fetching anything.",
    ),
    "schema": ("fetcher.cli.lint:schema", "Print the JSON Schema of a config, for editors."),
    "cdxj": (
        "fetcher.cli.cdxj:cdxj",
        "Write an index of WARC files (CDXJ) to standard output, sorted as replay tools expect it.",
    ),
    "parts": ("fetcher.cli.parts:parts", "List what a config can name: sources, stages, formats, sinks and the rest."),
    "bench": (
        "fetcher.cli.bench:bench",
        "Measure how a target answers under load, at several concurrencies in turn.",
    ),
    "tune": (
        "fetcher.cli.tune:tune",
        "Find the knee: the smallest concurrency within 5 % of the best throughput.",
    ),
    "origin": ("fetcher.cli.origin:origin", "Serve a test origin until interrupted."),
    "demo": (
        "fetcher.cli.demo:demo",
        "Fetch a simulated web of 60 hosts, some of them slow, flaky or broken, from a server on this machine.",
    ),
}
for _name, (_target, _help) in COMMANDS.items():
    app.command(_target, name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(sys.argv[1:] if arguments is None else list(arguments))
    except cyclopts.CycloptsError:
        return EXIT_USAGE
    except FetcherError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (Exception, SystemExit) as error:  # noqa: BLE001  the last boundary
        _tell(error)
        return EXIT_CRASH
    return code if isinstance(code, int) else 0


def _tell(error: BaseException) -> None:
    """Say what ended a command that was not to be expected; a reader of its output that has gone has heard enough."""
    if isinstance(error, SystemExit):
        # Nothing of ours ends a command in this way; code of the user's must not make an unfinished run look like a
        # good one.
        sys.stderr.write(f"fetcher: ended by code that it called: sys.exit({error.code!r})\n")
    elif not isinstance(error, BrokenPipeError):
        traceback.print_exception(error)
        sys.stderr.write("fetcher: this is a fault of fetcher; please report it with the lines above\n")
