import shlex
from pathlib import Path

import pytest

from fetcher.cli.demo import _config, _write
from fetcher.config import load


@pytest.mark.parametrize("name", ["demo", "x, y", "a: b # c", 'it\'s "so"', "${HOME}", "{1}", "b\\n", "\u00e9"])
def test_the_config_of_any_folder_can_be_loaded(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    _write(folder, 3, 4711)
    config = load(folder / "demo.yaml")
    assert str(config.sources[0].path) == str(folder / "urls.csv")
    assert str(config.queue.path) == str(folder / "demo.db")
    assert str(config.sinks[0].path) == str(folder / "pages.jsonl")


def test_the_comment_says_how_to_run_it_again():
    lines = [line.removeprefix("#").strip() for line in _config(Path("x, y"), 4711).splitlines()]
    assert "fetcher origin --port 4711" in lines
    assert shlex.join(["fetcher", "run", "--fresh", "x, y/demo.yaml"]) in lines
