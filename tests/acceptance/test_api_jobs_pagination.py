"""The examples of docs/api-jobs.md for ``pagination``, against the lists of the origin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from origin_process import origin_process

PAGE = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()
SECTION = PAGE.partition("\n## Pagination\n")[2].partition("\n## ")[0]
EXAMPLE = re.findall(r"<!-- example: pages -->\n```yaml\n(.*?)```", SECTION, re.DOTALL)[0]
FORMS = re.findall(r"^- `((?:next|cursor|page|offset): .*?)` ", SECTION, re.MULTILINE)


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


@pytest.fixture
def run(origin, tmp_path):
    """A function that runs a config, and returns its records and what it said."""

    def run(text):
        (tmp_path / "pages.yaml").write_text(text.replace("https://api.example.org", origin.url.rstrip("/")))
        command = [sys.executable, "-m", "fetcher", "run", "pages.yaml"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        assert "all accounted for" in ran.stderr
        return [json.loads(line) for line in (tmp_path / "out/items.jsonl").read_text().splitlines()], ran.stderr

    return run


def test_the_example_pages(run):
    records, said = run(EXAMPLE)
    # The origin has a hundred items, ten on a page.
    assert {(record.get("parent_id"), record["page"]) for record in records} == {
        (root if page > 1 else None, page) for root in ("0-1", "1-1") for page in range(1, 11)
    }
    assert "20 jobs = ok 20" in said


def test_all_ways_are_there():
    assert {form.partition(":")[0] for form in FORMS} == {"next", "cursor", "page", "offset"}
    assert len(FORMS) == 5


@pytest.mark.parametrize("form", FORMS)
def test_every_way_that_is_shown_finds_all_items(run, form):
    records, _ = run(yaml.safe_dump(yaml.safe_load(EXAMPLE) | {"pagination": yaml.safe_load(form)}))
    assert all(re.fullmatch(r"[01]-1(~\d+)?", record["job_id"]) for record in records)
    items = [item["id"] for record in records for item in json.loads(record["body"])["items"]]
    assert sorted(items) == sorted([*range(100), *range(100)])


def test_a_bound_is_told_at_the_end(run):
    records, said = run(EXAMPLE.replace("500", "3"))
    assert [record["has_more"] for record in records] == [True] * 6
    assert "2 have more than pagination.max_pages (3): cut there" in said
