"""``fetcher parts``: which parts there are, where they come from, and what may be said of each in a config."""

from __future__ import annotations

import inspect
import json
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import Parameter
from pydantic import TypeAdapter

from fetcher.cli.text import plain
from fetcher.errors import suggestion
from fetcher.registry import BrokenPartError, Kind, config_class, origins

if TYPE_CHECKING:
    from fetcher.settings import Settings

EXIT_USAGE = 2
EXIT_BROKEN = 78
# How a part asks for what is not always there (``fetcher.extras``): the module and the extra that brings it.
_LOADED = re.compile(r"load_extra\(\s*\"([\w.]+)\", \"([\w-]+)\"")


def parts(*, schema: str | None = None, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """List what a config can name: sources, stages, formats, sinks and the rest.

    Parameters
    ----------
    schema
        Print the JSON Schema of one part: its type (csv), or kind and type (sinks.postgres).
    as_json
        Write the list as JSON, one object a line.
    """
    if schema is not None:
        return _schema(schema)
    rows = [_row(kind, name) for kind in get_args(Kind) for name in sorted(origins(kind))]
    if as_json:
        sys.stdout.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        _table(rows)
    broken = [row for row in rows if "error" in row]
    for row in broken:
        sys.stderr.write(f"{plain(row['error'], 1000)}\n")
    return EXIT_BROKEN if broken else 0


def _row(kind: Kind, name: str) -> dict[str, str]:
    row = {"kind": kind, "type": name, "origin": str(origins(kind)[name])}
    try:
        found = config_class(kind, name)
    except BrokenPartError as error:
        return row | {"error": str(error)}
    needed = needs(found)
    if needed is not None:
        there = all(find_spec(package) is not None for package in needed[1])
        row |= {"extra": needed[0], "extra_installed": "yes" if there else "no"}
    return row | {"about": (inspect.getdoc(found) or "").partition("\n")[0]}


def needs(config: type[Settings]) -> tuple[str, list[str]] | None:
    """Return the extra that a part needs and the packages of it, None if it needs none."""
    module = inspect.getmodule(config)
    found = _LOADED.findall(inspect.getsource(module)) if module is not None else []
    return (found[0][1], sorted({name.partition(".")[0] for name, _ in found})) if found else None


def _table(rows: list[dict[str, str]]) -> None:
    lines = [(f"{row['kind']}.{row['type']}", row["origin"], _needs(row), row.get("about", "broken")) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        sys.stdout.write(plain("  ".join([*cells, line[3]]), 1000).rstrip() + "\n")


def _needs(row: dict[str, str]) -> str:
    if "extra" not in row:
        return "-"
    return f"[{row['extra']}]" + ("" if row["extra_installed"] == "yes" else " not installed")


def _schema(wanted: str) -> int:
    known: list[tuple[Kind, str]] = [(kind, name) for kind in get_args(Kind) for name in origins(kind)]
    found = [(kind, name) for kind, name in known if wanted in {name, f"{kind}.{name}"}]
    if len(found) != 1:
        names = [f"{kind}.{name}" for kind, name in found or known]
        hint = suggestion(wanted, [*names, *(name for _, name in known)])
        there = f"; write {' or '.join(names)}" if found else hint or f"; there are {', '.join(names)}"
        sys.stderr.write(f"fetcher parts: {plain(wanted, 60)!r} is not the name of one part{there}\n")
        return EXIT_USAGE
    schema = TypeAdapter(config_class(*found[0])).json_schema()
    sys.stdout.write(json.dumps(schema, indent=2) + "\n")
    return 0
