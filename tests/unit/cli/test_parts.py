"""What ``fetcher parts`` lists."""

from __future__ import annotations

import json
import tomllib
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
    found = {row["extra"] for row in rows(capsys) if "extra" in row}
    assert "extract" in found
    assert found <= there.keys()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert {row["extra_installed"] for row in rows(capsys) if "extra" in row} == {"no"}


def test_the_table_for_people(capsys, monkeypatch):
    assert parts() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("stages.extract ") and " [extract] " in line for line in lines)
    assert any(line.startswith("sinks.file ") and " built in " in line for line in lines)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
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
