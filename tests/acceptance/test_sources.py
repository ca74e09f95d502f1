"""Inputs that can not be had are told before anything is fetched: one line, exit 78."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CONFIG = """
name: inputs
sources: [{source}, "http://127.0.0.1:9/"]
sinks: [out.jsonl]
"""


def run(folder, source):
    (folder / "inputs.yaml").write_text(CONFIG.format(source=json.dumps(source)))
    command = [sys.executable, "-m", "fetcher", "run", "inputs.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def refused(folder, source):
    done = run(folder, source)
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert not (folder / "out.jsonl").exists()
    return done.stderr


def test_a_file_pattern_without_a_match(tmp_path):
    assert "in/*.csv: matches no file" in refused(tmp_path, {"type": "file", "path": "in/*.csv"})


def test_wrong_credentials_of_a_database(tmp_path, postgres):
    source = {
        "type": "postgres",
        "dsn": postgres.dsn_of("postgres", password="secret-wrong"),
        "query": "SELECT 'a' AS url",
    }
    assert "password authentication failed" in refused(tmp_path, source)


def test_a_table_that_is_not_there(tmp_path, postgres):
    source = {"type": "postgres", "dsn": postgres.dsn, "query": "SELECT url FROM no_such_table"}
    assert 'relation "no_such_table" does not exist' in refused(tmp_path, source)


def test_an_object_that_is_not_there(tmp_path, s3):
    s3.reset()
    source = {"type": "file", "path": "s3://nowhere/urls.csv", "options": s3.options}
    assert "there is no such object, or no such bucket" in refused(tmp_path, source)


@pytest.mark.parametrize("kind", ["sqlite", "sitemap"])
def test_a_database_or_sitemap_that_is_not_there(tmp_path, kind):
    where = {"sqlite": {"path": "no.db", "query": "SELECT 1 AS url"}, "sitemap": {"location": "no.xml"}}[kind]
    assert "no such file" in refused(tmp_path, {"type": kind} | where).lower()
