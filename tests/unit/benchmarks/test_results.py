"""RESULTS.md comes out of the JSON of a run, and out of nothing else."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from xml.etree import ElementTree as ET

import pytest

from benchmarks import __main__ as program

HERE = Path(program.__file__).parent


@pytest.fixture
def folder(tmp_path):
    copytree(HERE / "results", tmp_path / "results")
    return tmp_path


def test_the_page_is_what_the_stored_results_make(folder):
    assert program.main(["results", "--folder", str(folder)]) == 0
    page = (folder / "RESULTS.md").read_text()
    assert page == (HERE / "RESULTS.md").read_text(), "remake it: python -m benchmarks results"
    assert "Ratios, not absolute figures, carry over" in page
    plots = {path.name for path in (folder / "plots").iterdir()}
    assert plots == {path.name for path in (HERE / "plots").iterdir()}
    assert all(f"(plots/{name})" in page for name in plots)


def test_the_plots_are_the_same_every_time(folder):
    made = []
    for _ in range(2):
        program.main(["results", "--folder", str(folder)])
        made.append({path.name: path.read_bytes() for path in (folder / "plots").iterdir()})
    assert made[0] == made[1]
    assert all(ET.fromstring(svg).tag.endswith("svg") for svg in made[0].values())


def test_nothing_tells_whose_machine_it_was():
    texts = [path.read_text() for path in [HERE / "RESULTS.md", *(HERE / "results").iterdir()]]
    assert not any(word in text for text in texts for word in ("/home", "/tmp", "/root", "/work", "@"))


def test_without_results_it_says_how_to_make_some(tmp_path, capsys):
    assert program.main(["results", "--folder", str(tmp_path)]) == 1
    assert "python -m benchmarks results --run" in capsys.readouterr().err


def test_a_case_can_be_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.results._OPTIONS", {"engine": ["--repeat", "1", "--requests", "100"]})
    assert program.main(["results", "--run", "engine", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "results" / "engine.json").exists()
    assert "## engine" in (tmp_path / "RESULTS.md").read_text()
