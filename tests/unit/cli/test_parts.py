"""What ``fetcher parts`` lists."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from fetcher import registry
from fetcher.cli import parts as module
from fetcher.cli.parts import parts

ROOT = Path(__file__).parents[3]


def rows(capsys):
    assert parts(as_json=True) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_part_is_listed_and_says_what_it_is(capsys):
    listed = rows(capsys)
    known = {(kind, name) for kind in get_args(registry.Kind) for name in registry.BUILT_IN[kind]}
    assert {(row["kind"], row["type"]) for row in listed if row["origin"] == "built in"} == known
    assert all(row["about"].endswith(".") for row in listed if row["origin"] == "built in"), listed


def test_extras_are_those_of_the_package(capsys, monkeypatch):
    with (ROOT / "pyproject.toml").open("rb") as file:
        there = tomllib.load(file)["project"]["optional-dependencies"]
    found = {extra for row in rows(capsys) if "extra" in row for extra in row["extra"].split(", ")}
    assert "extract" in found
    assert found <= there.keys()
    assert {row["extra_installed"] for row in rows(capsys) if "extra" in row} == {"yes"}
    monkeypatch.setattr(module, "is_installed", lambda name: name == "parquet")
    assert {row["type"] for row in rows(capsys) if row.get("extra_installed") == "yes"} == {"parquet"}
    monkeypatch.setattr(module, "is_installed", lambda name: False)
    assert {row["extra_installed"] for row in rows(capsys) if "extra" in row} == {"no"}


def test_the_table_for_people(capsys, monkeypatch):
    assert parts() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("stages.extract ") and " [extract] " in line for line in lines)
    assert any(line.startswith("sinks.file ") and " built in " in line for line in lines)
    monkeypatch.setattr(module, "is_installed", lambda name: False)
    parts()
    assert "[extract] not installed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["where", "stages.where"])
def test_the_schema_of_one_part(capsys, name):
    assert parts(schema=name) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() == {"type", "expr"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("file", "write sources.file or sinks.file"), ("wehre", "did you mean 'where'?"), ("x\x1b[2J", "there are")],
)
def test_a_name_that_is_not_that_of_one_part(capsys, name, said):
    assert parts(schema=name) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "\x1b" not in error
    assert parts(name) == 2


def test_one_part_and_its_settings(capsys):
    assert parts("sinks.file") == 0
    text = capsys.readouterr().out
    assert text.startswith("sinks.file (built in)\nRecords appended to one file")
    assert "\npath: required\n" in text
    assert '\nif_exists: "fail"\n    What becomes of a file' in text
    assert parts("where", as_json=True) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


def test_what_imports_a_package_of_an_extra_declares_it():
    """An extra is a word in the config of a part; that it is the right one is seen by what the part imports."""
    for kind in get_args(registry.Kind):
        for name, target in registry.BUILT_IN[kind].items():
            source = Path(find_spec(target.partition(":")[0]).origin).read_text()
            used = set(re.findall(r"load_extra\(\s*\"[\w.]+\", \"([\w-]+)\"", source))
            assert used <= set(getattr(registry.config_class(kind, name), "extras", ())), name


def test_the_readme_says_the_same():
    table = (ROOT / "README.md").read_text().partition("| part | type |")[2].partition("\n\n")[0]
    said = {}
    kind = ""
    for line in table.splitlines()[2:]:
        first, types, _, extras = (cell.strip() for cell in line.strip("|").split("|"))
        kind = first or kind
        for name in re.findall(r"`([\w-]+)`", types):
            said[kind, name] = set(re.findall(r"`([\w-]+)`", extras))
    for kind in get_args(registry.Kind):
        for name in registry.BUILT_IN[kind]:
            if kind != "transports":
                declared = set(getattr(registry.config_class(kind, name), "extras", ()))
                assert declared <= said[kind[:-1], name], name
                assert not declared or said[kind[:-1], name] == declared or len(said[kind[:-1], name]) > 1, name
