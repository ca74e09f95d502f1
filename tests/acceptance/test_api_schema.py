"""The document of the API is true: requests made from it, thousands of them, get the answers that it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from origin_process import origin_process
from serve_process import serve_process

from fetcher.service.settings import hash_token

SEED = 20_251_121
TOKEN = "t" * 43
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES", "15")
# What is well formed can still be a config that makes no sense, or a batch that there is not.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 413, 415, 422]
"""
CONFIG = f"""
service:
  tokens:
    - {{name: schema, hash: "{hash_token(TOKEN)}", scopes: [read, write]}}
"""


@contextmanager
def service(folder):
    """Start a service that has something to fetch: what the examples of the document name."""
    with origin_process() as origin:
        (folder / "urls.csv").write_text(f"url\n{origin.url}/status/200\n{origin.url}/status/404\n")
        (folder / "service.yaml").write_text(CONFIG)
        (folder / "schemathesis.toml").write_text(SETTINGS)
        with serve_process(folder, config="service.yaml") as process:
            yield process


def schemathesis(folder, url):
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--seed", str(SEED), "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing,stateful"),
        *("--exclude-path", "/v1/events"),  # it has no end
        *("--checks", "all", "--warnings", "off", "--no-color", "--suppress-health-check", "all"),
        *("--generation-database", "none"),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)  # seconds where there is nothing else to do; minutes beside everything else
def test_the_api_does_what_its_document_says(tmp_path):
    with service(tmp_path) as process:
        done = schemathesis(tmp_path, process.url)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        count = sum(len(methods) for methods in process.ask("GET", "/openapi.json")["paths"].values())
        assert f"{count - 1} selected / {count} total" in done.stdout
        faults = [line for line in process.log() if line["event"] == "api_fault"]
        assert faults == []
        written = [line for line in process.log() if line["event"] == "api_write"]
        reached = {(line["operation"], line["status"]) for line in written}
        # It got through to what the operations do, and not only to what they refuse.
        assert {("submitBatch", 201), ("submitBatch", 422), ("deleteBatch", 204), ("pauseBatch", 409)} <= reached
