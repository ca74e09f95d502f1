"""A package adds parts: the example in docs/plugin does, installed as a user would, and a broken one is named."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
from origin_process import origin_process

ROOT = Path(__file__).parents[2]
BATCH = """
sources: ["{url}/bytes/100?n={{1..20}}"]
stages:
  - {{type: tag, tag: spring}}
sinks:
  - {{type: folder, path: out/records, where: "outcome == 'ok'", drop: [body]}}
  - out.jsonl
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Install the example package into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(ROOT / "docs" / "plugin")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return target


def fetcher(folder, *arguments, path):
    return subprocess.run(
        [sys.executable, "-m", "fetcher", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def broken(folder, *points):
    """Install a package of entry points by hand."""
    info = folder / "broken_parts-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-parts\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    (folder / "broken_parts.py").write_text(
        "from fetcher.settings import Settings\n"
        "class Nameless(Settings):\n    def build(self): ...\n"
        "class Unbuilt(Settings):\n    type: str = 'unbuilt'\n"
    )
    return folder


def test_the_example_package_adds_its_parts(package, tmp_path):
    listed = fetcher(tmp_path, "parts", "--json", path=package)
    assert listed.returncode == 0, listed.stderr
    rows = {(row["kind"], row["type"]): row for row in map(json.loads, listed.stdout.splitlines())}
    assert rows["sinks", "folder"]["origin"] == rows["stages", "tag"]["origin"] == "fetcher-example 1.0"
    assert rows["sinks", "folder"]["about"] == "A JSON file for each record, named after its job."
    assert rows["sinks", "file"]["origin"] == "built in"
    schema = fetcher(tmp_path, "parts", "--schema", "sinks.folder", path=package)
    assert {"path", "where", "required"} <= json.loads(schema.stdout)["properties"].keys()


def test_a_batch_runs_through_parts_of_a_package(package, tmp_path):
    with origin_process() as origin:
        (tmp_path / "batch.yaml").write_text(BATCH.format(url=origin.url))
        done = fetcher(tmp_path, "run", "batch.yaml", path=package)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "out" / "records").glob("*.json")]
    assert len(records) == len({record["job_id"] for record in records}) == 20
    assert {record["meta"]["tag"] for record in records} == {"spring"}
    assert not any("body" in record for record in records)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert all("body" in record and record["meta"]["tag"] == "spring" for record in lines)


def test_a_package_that_can_not_be_loaded_is_named_and_in_nobodys_way(tmp_path):
    points = ["[fetcher.sinks]", "gone = nowhere_to_be_found:Config", "file = nowhere_to_be_found:Config"]
    points += ["[fetcher.formats]", "odd = broken_parts:Settings", "nameless = broken_parts:Nameless"]
    points += ["[fetcher.stages]", "unbuilt = broken_parts:Unbuilt", "text = broken_parts:__name__"]
    path = broken(tmp_path, *points)
    listed = fetcher(tmp_path, "parts", path=path)
    assert listed.returncode == 78
    assert "Traceback" not in listed.stderr
    said = listed.stderr.splitlines()
    assert len(said) == 5  # not the one that would stand in for the built-in file sink
    assert all("of broken-parts 0.1 can not be loaded (" in line for line in said)
    assert any("sink 'gone'" in line and "ModuleNotFoundError" in line for line in said)
    assert any("stage 'unbuilt'" in line and "no method build" in line for line in said)
    (tmp_path / "urls.txt").write_text("http://127.0.0.1:1/\n")
    (tmp_path / "good.yaml").write_text("sources: [urls.txt]\nsinks: [out.jsonl]\n")
    good = fetcher(tmp_path, "lint", "good.yaml", path=path)
    assert (good.returncode, good.stdout) == (0, "good.yaml: ok\n")
    (tmp_path / "bad.yaml").write_text("sources: [urls.txt]\nsinks: [{type: gone}]\nnam: x\n")
    bad = fetcher(tmp_path, "lint", "bad.yaml", path=path)
    assert bad.returncode == 78
    gone = "sink 'gone' of broken-parts 0.1 can not be loaded"
    reason = "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert bad.stderr.splitlines() == [
        f"bad.yaml:2: sinks.0: {gone} ({reason}); mend the package or uninstall it",
        "bad.yaml:3: nam: unknown key; did you mean 'name'?",
    ]
    assert fetcher(tmp_path, "schema", path=path).returncode == 0


def test_a_package_that_ends_the_process_at_its_import_ends_no_command(tmp_path):
    path = broken(tmp_path, "[fetcher.formats]", "quits = quitting:Config")
    (tmp_path / "quitting.py").write_text("import sys\nsys.exit(0)\n")
    listed = fetcher(tmp_path, "parts", path=path)
    assert listed.returncode == 78
    assert "format 'quits' of broken-parts 0.1 can not be loaded (SystemExit: 0)" in listed.stderr
    # A suffix has every format imported, this one too.
    (tmp_path / "batch.yaml").write_text("sources: [nowhere.txt]\nsinks: [out.jsonl]\n")
    ran = fetcher(tmp_path, "run", "batch.yaml", path=path)
    assert ran.returncode == 78
    assert "nowhere.txt" in ran.stderr


@pytest.mark.parametrize("suffixes", ["None", "'.odd'", "('odd',)", "(b'.odd',)"])
def test_a_format_whose_suffixes_are_none_is_named(tmp_path, suffixes):
    path = broken(tmp_path, "[fetcher.formats]", "odd = odd_format:Config")
    (tmp_path / "odd_format.py").write_text(
        "from fetcher.settings import Settings\n"
        f"SUFFIXES = {suffixes}\n"
        "class Config(Settings):\n    type: str = 'odd'\n    def build(self): ...\n"
    )
    (tmp_path / "urls.txt").write_text("http://127.0.0.1:1/\n")
    (tmp_path / "batch.yaml").write_text("sources: [urls.txt]\nsinks: [out.jsonl]\n")
    good = fetcher(tmp_path, "lint", "batch.yaml", path=path)
    assert (good.returncode, good.stdout) == (0, "batch.yaml: ok\n")
    listed = fetcher(tmp_path, "parts", path=path)
    assert listed.returncode == 78
    assert "format 'odd' of broken-parts 0.1 can not be loaded (TypeError: SUFFIXES of odd_format is " in listed.stderr


def test_a_package_without_its_source_is_listed(tmp_path):
    path = broken(tmp_path, "[fetcher.stages]", "quiet = quiet_stage:Config")
    source = tmp_path / "quiet_stage.py"
    source.write_text(
        "from fetcher.settings import Settings\n"
        "class Config(Settings):\n    type: str = 'quiet'\n    def build(self): ...\n"
    )
    py_compile.compile(str(source), cfile=str(tmp_path / "quiet_stage.pyc"))
    source.unlink()
    listed = fetcher(tmp_path, "parts", "--json", path=path)
    assert listed.returncode == 0, listed.stderr
    assert "quiet" in [json.loads(line)["type"] for line in listed.stdout.splitlines()]
