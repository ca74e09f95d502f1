"""What the README shows is run here: its config, its output, its sink, its commands, its layout."""

import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

from origin_process import origin_process

from fetcher import registry
from fetcher.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(marker):
    """Return the code block that follows a marker."""
    match = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert match, marker
    return match[1]


def shape(text):
    """Return a summary without what differs from run to run: durations, rates, what bounds a long one."""
    text = re.sub(r"[\d.]+ m?s\b|[\d,]+ jobs/s", "N", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("bound by")]


def run(folder, *arguments, secrets=()):
    return subprocess.run(
        [sys.executable, "-m", "fetcher", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | dict.fromkeys(secrets, "x"),
    )


def test_the_five_lines_print_what_the_readme_shows(tmp_path):
    config = block("example: pages.yaml")
    assert len(config.splitlines()) == 5
    with origin_process() as origin:
        (tmp_path / "pages.yaml").write_text(config.replace("127.0.0.1:8900", f"127.0.0.1:{origin.port}"))
        done = run(tmp_path, "run", "pages.yaml")
    assert done.returncode == 0, done.stderr
    command, *shown = block("output: pages.yaml").splitlines()
    assert command == "$ fetcher run pages.yaml"
    assert shape(done.stderr) == shape("\n".join(shown))


def test_the_record_has_the_fields_that_the_readme_shows(tmp_path):
    shown = re.search(r"```json\n(\{.*\})\n```", README)[1]
    with origin_process() as origin:
        got = run(tmp_path, "get", "--no-body", f"{origin.url}/bytes/1024")
    fields = re.findall(r'"(\w+)":', got.stdout)
    assert [name for name in fields if name != "connect_s"] == re.findall(r'[{,]"(\w+)":', shown)


def test_the_sink_of_the_readme_works(tmp_path, monkeypatch):
    module = types.ModuleType("lines_sink")
    exec(compile(block("example: lines_sink.py"), "lines_sink.py", "exec"), module.__dict__)
    module.LinesConfig.model_rebuild(_types_namespace=vars(module))
    monkeypatch.setitem(sys.modules, "lines_sink", module)
    monkeypatch.setitem(registry.BUILT_IN["sinks"], "lines", "lines_sink:LinesConfig")
    registry.parts.cache_clear()
    registry.config_class.cache_clear()
    try:
        monkeypatch.chdir(tmp_path)
        with origin_process() as origin:
            urls = [f"{origin.url}/bytes/1", f"{origin.url}/status/404"]
            (tmp_path / "batch.yaml").write_text(f"sources: {urls}\nsinks: [{{type: lines, path: good.txt}}]\n")
            monkeypatch.setattr("fetcher.cli.run.raise_file_limit", lambda: None)
            assert app(["run", "batch.yaml"]) == 3
    finally:
        registry.parts.cache_clear()
        registry.config_class.cache_clear()
    assert (tmp_path / "good.txt").read_text() == f"{urls[0]}\n"


def test_every_command_is_in_the_table(capsys):
    cells = re.findall(r"^\| (`fetcher [^|]*) \|", README.replace("\\|", " "), re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`fetcher (\w+)", cell)}
    assert listed == {name for name in app if not name.startswith("-")}


def test_every_config_of_the_repository_is_good():
    for path in sorted((ROOT / "config").glob("*.yaml")):
        done = run(ROOT, "lint", str(path), secrets=re.findall(r"env: (\w+)", path.read_text()))
        assert done.returncode == 0, done.stderr


def test_the_quickstart_runs(tmp_path):
    with origin_process() as origin:
        source = f"http://127.0.0.1:{origin.port}/bytes/1024?page={{1..1000}}"
        done = run(tmp_path, "run", str(ROOT / "config" / "quickstart.yaml"), "-s", f"sources.0={source}")
    assert done.returncode == 0, done.stderr
    assert "1,000 jobs = ok 1,000" in done.stderr


def test_the_layout_is_there():
    names = [word for line in block("layout").splitlines()[1:] for word in re.findall(r"\w+(?:/|\.py)", line)]
    assert len(names) > 15
    for name in names:
        assert (ROOT / "fetcher" / name).exists(), name


def test_the_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets


def test_the_extras_of_the_readme_are_there():
    with (ROOT / "pyproject.toml").open("rb") as file:
        there = tomllib.load(file)["project"]["optional-dependencies"].keys()
    [named] = re.findall(r"pip install -c constraints\.txt -e '\.\[(.+)\]'", README)
    assert set(named.split(",")) <= there
    assert "fetcher[" not in README
