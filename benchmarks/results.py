"""``python -m benchmarks results``: RESULTS.md and its plots, from the JSON of a real run.

With ``--run`` every case is run first; it is a quarter of an hour in which the machine should have little else to do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks import plots
from benchmarks.cases import Report, all_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.cases import Table

_HERE = Path(__file__).parent
_REMARKS = "remarks.md"
_ORDER = (
    "small",
    "latency",
    "fresh",
    "tls",
    "large",
    "scale",
    "hosts",
    "engine",
    "end_to_end",
    "hardening",
    "sinks",
    "service",
)
# Short enough that everything together stays below a quarter of an hour.
_OPTIONS = {
    "small": ["--repeat", "5"],
    "hosts": ["--repeat", "1"],
    "engine": ["--repeat", "3"],
    "end_to_end": ["--repeat", "3"],
}
_HEAD = """\
# Results

Made by `python -m benchmarks results` from the JSON of real runs, one for each case (in `results/`). By hand are only
the remarks, which say what was run more than once, and why.

**Ratios, not absolute figures, carry over to another machine:** contender and origin had a core each, shared with
whatever else the machine did, and everything went over the loopback. Compare the rows of one table with one another.
Figures are medians, with the lowest and the highest run in brackets; the contenders took turns. The machine was
shared, which CPU time per request shows least: where rates lie far apart, trust that column.

{about}
{remarks}"""


class _Document(msgspec.Struct):
    case: str
    about: dict[str, str]
    report: Report


def main(arguments: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """Write the page; ``run`` is the program itself, to run the cases with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks results", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="with --run: run only these (default: all)")
    parser.add_argument("--run", action="store_true", help="run the cases first")
    parser.add_argument("--folder", type=Path, default=_HERE, help="where results/, plots/ and RESULTS.md are")
    given = parser.parse_args(arguments)
    stored: Path = given.folder / "results"
    stored.mkdir(parents=True, exist_ok=True)
    code = 0
    for name in (given.cases or ordered()) if given.run else ():
        code |= run([name, *_OPTIONS.get(name, []), "--json", str(stored / f"{name}.json")])
    files = [file for name in ordered() if (file := stored / f"{name}.json").exists()]
    if not files:
        sys.stderr.write(f"there are no results in {stored}; make some: python -m benchmarks results --run\n")
        return 1
    documents = [msgspec.json.decode(file.read_bytes(), type=_Document) for file in files]
    page = given.folder / "RESULTS.md"
    remarks = (stored / _REMARKS).read_text(encoding="utf-8") if (stored / _REMARKS).exists() else ""
    page.write_text("\n".join(_page(documents, given.folder / "plots", remarks)), encoding="utf-8")
    sys.stderr.write(f"wrote {page}\n")
    return code


def ordered() -> list[str]:
    """Return every case, those first that are told first."""
    return sorted(all_cases(), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


def _page(documents: Sequence[_Document], folder: Path, remarks: str) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    about = documents[0].about
    told = [f"- {key}: {value}" for key, value in about.items() if key not in {"date", "cores"}]
    told.append(f"- cores: {about['cores'].rpartition(', load')[0]}")
    yield _HEAD.format(about="\n".join(told), remarks=remarks)
    cases = all_cases()
    for document in documents:
        report = document.report
        yield f"## {document.case}\n\n{cases[document.case].goal}\n"
        yield f"Measured at {document.about['date']}.\n"
        for chart in report.charts:
            plots.write(chart, folder / f"{chart.name}.svg")
            yield f"![{chart.title}](plots/{chart.name}.svg)\n"
        for table in report.tables:
            yield from _table(table)
        for check in report.checks:
            yield f"- {'held' if check.held else '**missed**'}: {check.bound}: {check.measured}"
        yield from (f"- {note}" for note in report.notes)
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"{table.title}\n"
    yield "| " + " | ".join(table.columns) + " |"
    yield "|---" + "|---:" * (len(table.columns) - 1) + "|"
    for row in table.rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
