"""``fetcher parts``: which parts there are, where they come from, and what may be said of each in a config."""

from __future__ import annotations

import inspect
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter
from pydantic import TypeAdapter

from fetcher.cli.exits import EXIT_BROKEN, EXIT_USAGE
from fetcher.cli.text import plain
from fetcher.errors import suggestion
from fetcher.extras import is_installed
from fetcher.registry import BrokenPartError, Kind, config_class, origins

if TYPE_CHECKING:
    from collections.abc import Container

    from fetcher.settings import Settings


def parts(
    name: str | None = None,
    /,
    *,
    schema: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """List what a config can name: sources, stages, formats, sinks and the rest.

    Parameters
    ----------
    name
        Show one part and its settings: its type (csv), or kind and type (sinks.postgres).
    schema
        Print the JSON Schema of one part.
    as_json
        Write the list as JSON, one object a line.
    """
    if schema is not None:
        return _schema(schema)
    if name is not None:
        return _schema(name) if as_json else _show(name)
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
    extras: tuple[str, ...] = getattr(found, "extras", ())
    if extras:
        row |= {"extra": ", ".join(extras), "extra_installed": "yes" if all(map(is_installed, extras)) else "no"}
    return row | {"about": _about(found).partition("\n")[0]}


def _about(config: type[Settings]) -> str:
    return inspect.getdoc(config) or ""


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


def _show(wanted: str) -> int:
    """Write what one part is, and its settings with what they are by default."""
    part = _one(wanted)
    if part is None:
        return EXIT_USAGE
    kind, name = part
    config = config_class(kind, name)
    lines = [f"{kind}.{name} ({origins(kind)[name]})", _about(config)]
    schema = TypeAdapter(config).json_schema()
    for key, about in schema.get("properties", {}).items():
        if key != "type":
            lines += ["", f"{key}: {_default(key, about, schema.get('required', ()))}"]
            lines += [f"    {line}" for line in about.get("description", "").splitlines()]
    sys.stdout.write("".join(plain(line, 1000) + "\n" for line in lines))
    return 0


def _default(key: str, about: dict[str, Any], required: Container[str]) -> str:
    if key in required:
        return "required"
    default = about.get("default")
    return "-" if default is None else json.dumps(default)


def _one(wanted: str) -> tuple[Kind, str] | None:
    """Return the part of that name, or None once it is said that there are several or none."""
    known: list[tuple[Kind, str]] = [(kind, name) for kind in get_args(Kind) for name in origins(kind)]
    found = [(kind, name) for kind, name in known if wanted in {name, f"{kind}.{name}"}]
    if len(found) != 1:
        names = [f"{kind}.{name}" for kind, name in found or known]
        hint = suggestion(wanted, [*names, *(name for _, name in known)])
        there = f"; write {' or '.join(names)}" if found else hint or f"; there are {', '.join(names)}"
        sys.stderr.write(f"fetcher parts: {plain(wanted, 60)!r} is not the name of one part{there}\n")
        return None
    return found[0]


def _schema(wanted: str) -> int:
    part = _one(wanted)
    if part is None:
        return EXIT_USAGE
    schema = TypeAdapter(config_class(*part)).json_schema()
    sys.stdout.write(json.dumps(schema, indent=2) + "\n")
    return 0
