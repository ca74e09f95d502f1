"""Every config of docs/api-jobs.md is run. Those of requests: against httpbin, which shows what it was asked."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))
TESTS = Path(__file__).parents[1]


@pytest.fixture
def run(httpbin, tmp_path):
    """A function that runs an example with httpbin as its API; returns the records, what was asked, and the output."""

    def run(name, code=0, **environ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(EXAMPLES[name].replace("https://api.example.org", f"{httpbin.url}/anything"))
        ran = subprocess.run(
            [sys.executable, "-m", "fetcher", "run", path.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | environ,
        )
        assert ran.returncode == code, ran.stderr
        (output,) = (tmp_path / "out").glob("*.jsonl")
        text = output.read_text()
        records = [json.loads(line) for line in text.splitlines()]
        return records, [json.loads(record["body"]) for record in records if record["outcome"] == "ok"], text

    return run


def test_every_example_of_the_page_has_a_test():
    assert len(EXAMPLES) == PAGE.count("```yaml") >= 4
    tests = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    assert [name for name in EXAMPLES if f"def test_the_example_{name}(" not in tests] == []


def test_the_example_inline(run):
    records, asked, text = run("inline", API_TOKEN="bearer-secret")
    search, order, login, patch = sorted(zip(records, asked, strict=True), key=lambda pair: pair[0]["job_id"])
    assert search[1]["args"] == {"lang": "en", "q": "bread & butter", "page": ["1", "2"]}
    assert (order[1]["method"], order[1]["json"]) == ("POST", {"item": 7, "note": "two, please"})
    assert order[1]["headers"]["Authorization"] == "Bearer bearer-secret"
    assert (login[1]["method"], login[1]["form"]) == ("POST", {"user": "jo", "remember": "true"})
    assert patch[1]["method"] == "PATCH"
    assert base64.b64decode(patch[1]["data"].rpartition(",")[2]) == b"\x00\x01\xff"
    # What httpbin gives back is in the body, and nowhere else.
    assert text.count("bearer-secret") == 1


def test_the_example_rows(run, tmp_path):
    cities = ["Paris", "São Paulo", "../admin", "a/b?c=d&e#f", "..", "Paris"]
    rows = "".join(f'"{city}",C&F,{number}\n' for number, city in enumerate(cities))
    (tmp_path / "cities.csv").write_text(f"city,unit,id\n{rows}")
    records, _, _ = run("rows")
    bad = [record for record in records if record["outcome"] == "skipped"]
    assert [(record["error_kind"], record["meta"]["city"]) for record in bad] == [("invalid_row", "..")]
    good = [record for record in records if record["outcome"] == "ok"]
    ends = {record["meta"]["city"]: record["url"].partition("/weather/")[2].partition("?")[0] for record in good}
    assert ends == {
        "Paris": "Paris",
        "São Paulo": "S%C3%A3o%20Paulo",
        "../admin": "..%2Fadmin",
        "a/b?c=d&e#f": "a%2Fb%3Fc%3Dd%26e%23f",
    }
    asked = {record["meta"]["id"]: json.loads(record["body"]) for record in good}
    assert all(found["args"] == {"unit": "C&F"} for found in asked.values())
    assert all(found["headers"]["X-Row"] == f"number {number}" for number, found in asked.items())


def test_the_example_static(run):
    records, asked, _ = run("static")
    assert len(records) == 20
    assert all(found["args"] == {"fields": "id,name"} for found in asked)
    assert all(found["headers"]["Accept"] == "application/json" for found in asked)


def test_the_example_upload(run, tmp_path):
    (tmp_path / "scans").mkdir()
    content = b"%PDF-1.7 " + bytes(range(128)) * 2000
    (tmp_path / "scans/a.pdf").write_bytes(content)
    rows = [{"file": "a.pdf", "title": 'A "title"\r\n--x'}, {"file": "../upload.yaml", "title": "b"}]
    (tmp_path / "scans.jsonl").write_text("\n".join(map(json.dumps, rows)))
    records, (asked,), _ = run("upload", code=3)
    found = {record["meta"]["file"]: record for record in records}
    assert found["a.pdf"]["outcome"] == "ok"
    elsewhere = found["../upload.yaml"]
    assert (elsewhere["outcome"], elsewhere["error_kind"]) == ("failed", "invalid_row")
    assert "request.upload_dir (scans)" in elsewhere["error_message"]
    assert asked["form"] == {"title": 'A "title"\r\n--x'}
    assert asked["files"]["document"].encode() == content
