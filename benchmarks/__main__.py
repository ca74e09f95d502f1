"""``python -m benchmarks`` lists the cases; ``python -m benchmarks CASE`` runs one. See ``--help``.

``python -m benchmarks results`` makes RESULTS.md out of the JSON of all cases; with ``--run`` it runs them first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import pages, report, results
from benchmarks.cases import Options, all_cases
from benchmarks.contest import peer_names
from benchmarks.measure import ContenderError, bench
from fetcher.cli.run import raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.cases import Case


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["results"]:
        return results.main(arguments[1:], main)
    cases = all_cases()
    parser = _parser(cases)
    given = parser.parse_args(arguments)
    if given.case is None:
        for name, case in cases.items():
            print(f"{name}\n    {case.goal}")
        return 0
    case = cases[given.case]
    options = Options(
        repeat=given.repeat or case.repeat,
        requests=given.requests or case.requests,
        concurrency=given.concurrency,
        real=given.real,
        peers=given.peers,
    )
    if given.peers and not case.contest:
        parser.error(f"{given.case} is about this project alone: there are no peers to choose from")
    raise_file_limit()  # the origin inherits it
    about = report.header()
    try:
        with bench() as ready:
            result = case.run(ready, options)
    except ContenderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    report.show(given.case, case, result, about)
    report.show_failures(result)
    if given.json is not None:
        report.write(given.json, given.case, options, result, about)
    if given.html is not None:
        pages.write(given.html, given.case, case.goal, result, about)
    missed = [check for check in result.checks if not check.held]
    return 1 if result.broken or (given.check and missed) else 0


def _parser(cases: dict[str, Case]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Without a case: list the cases.")
    parser.add_argument("case", nargs="?", choices=list(cases), metavar="CASE")
    parser.add_argument("--repeat", type=_positive, help="runs of each contender, in turns")
    parser.add_argument("--requests", type=_positive, help="requests of each run")
    parser.add_argument("--concurrency", type=_positive, default=100, help="requests in flight (default: 100)")
    parser.add_argument("--real", action="store_true", help="scale: fetch the largest input over the network too")
    parser.add_argument(
        "--peers",
        type=_peers,
        default=(),
        metavar="A,B",
        help=f"whom to compare with the bare loop (default: all): {', '.join(peer_names())}",
    )
    parser.add_argument("--check", action="store_true", help="exit 1 if a bound is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report and every sample to FILE")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots to FILE")
    return parser


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in peer_names():
            raise argparse.ArgumentTypeError(f"no contender is called {name!r}; there are {', '.join(peer_names())}")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
