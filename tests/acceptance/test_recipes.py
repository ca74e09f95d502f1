"""Every recipe of docs/recipes.md is loaded; those that need no other server are run against the origin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from origin_process import origin_process

from fetcher.config import load

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
RECIPES = {
    name: (text, flag == ", run")
    for name, flag, text in re.findall(r"<!-- recipe: (\w+)(, run)? -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
}


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


def test_every_config_of_the_page_is_a_recipe():
    assert len(RECIPES) == PAGE.count("```yaml") > 8


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name, origin, tmp_path, monkeypatch):
    for secret in ("HOOK_SECRET", "SMTP_PASSWORD"):
        monkeypatch.setenv(secret, "x")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:pass@127.0.0.1/shop")
    text, runs = RECIPES[name]
    path = tmp_path / f"{name}.yaml"
    path.write_text(text.replace("127.0.0.1:8900", f"127.0.0.1:{origin.port}"))
    load(str(path))
    if runs:
        command = [sys.executable, "-m", "fetcher", "run", path.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        assert "all accounted for" in done.stderr
        assert any((tmp_path / "out").iterdir())
