"""The commands of docs/service.md, run one after the other against a service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from origin_process import origin_process
from serve_process import serve_process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/service.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_page_do_what_it_says(tmp_path):
    start, *commands = BLOCKS
    assert start.startswith("fetcher serve config/service.yaml")
    assert len(commands) == 3
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    config = str(ROOT / "config/service.yaml")
    with origin_process() as origin, serve_process(tmp_path, config=config) as service:
        script = "set -euo pipefail\n" + "".join(commands)
        script = script.replace("http://127.0.0.1:8900", origin.url.rstrip("/"))
        script = script.replace("http://127.0.0.1:8080", service.url)
        environment = os.environ | {"PATH": path, "FETCHER_TO": service.url}
        done = subprocess.run(
            ["bash", "-c", script],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        batches = service.ask("GET", "/v1/batches")["batches"]
        assert sorted(batch["name"] for batch in batches) == ["mine", "pages", "two", "urls"]
        assert len(records := (tmp_path / "records.jsonl").read_text().splitlines()) == 200
        assert {json.loads(line)["outcome"] for line in records} == {"ok"}


def test_every_setting_that_the_page_names_is_there():
    schema = json.dumps(json.loads(_schema()))
    for name in set(re.findall(r"`service\.([a-z_]+)", TEXT)):
        assert f'"{name}"' in schema, name


def _schema() -> str:
    from fetcher.config import json_schema  # noqa: PLC0415  only here
    from fetcher.service.settings import ServiceConfig  # noqa: PLC0415

    return json.dumps(json_schema(ServiceConfig))
