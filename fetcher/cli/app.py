"""The command line: one module for each command, imported when it is called."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import cyclopts
from rich.console import Console

from fetcher.errors import FetcherError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CRASH = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


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
app.command("fetcher.cli.run:run", name="run")
app.command("fetcher.cli.get:get", name="get")
app.command("fetcher.cli.lint:lint", name="lint")
app.command("fetcher.cli.lint:schema", name="schema")
app.command("fetcher.cli.bench:bench", name="bench")
app.command("fetcher.cli.tune:tune", name="tune")
app.command("fetcher.cli.origin:origin", name="origin")
app.command("fetcher.cli.demo:demo", name="demo")


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
    except BrokenPipeError:
        return EXIT_CRASH
    except Exception:  # noqa: BLE001  the last boundary: what gets here is a fault of ours
        traceback.print_exc()
        sys.stderr.write("fetcher: this is a fault of fetcher; please report it with the lines above\n")
        return EXIT_CRASH
    return code if isinstance(code, int) else 0
