"""The examples of docs/api-jobs.md for keys and budgets, against an API that counts."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

from raw_server import ok, raw_server

from fetcher.assembly import Batch
from fetcher.config import load

PAGE = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))
KEY = "s3cret-of-the-weather"


class Api:
    def __init__(self):
        self.asked, self.hosts = [], Counter()

    async def __call__(self, peer):
        while True:
            request = (await peer.request()).decode()
            self.asked.append((time.monotonic(), request.split(" ")[1]))
            self.hosts[re.search(r"(?i)host: (\w+)", request)[1]] += 1
            await peer.send(ok())


async def records(folder, name, out, *changes):
    text = EXAMPLES[name]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "example.yaml").write_text(text)
    batch = Batch(load("example.yaml", environ={}))
    await batch.open()
    try:
        assert await batch.run()
    finally:
        await batch.close()
    return [json.loads(line) for line in (folder / "out" / out).read_text().splitlines()]


async def test_the_example_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEATHER_KEY", KEY)
    api = Api()
    async with raw_server(api) as server:
        found = await records(
            tmp_path,
            "keys",
            "weather.jsonl",
            ("https://api.example.org", server.url("")),
            ("hosts: [api.example.org", "insecure: true\n      hosts: [127.0.0.1"),
        )
    assert {record["outcome"] for record in found} == {"ok"}
    assert sorted(target for _, target in api.asked) == sorted(f"/weather?q=city-{n}&appid={KEY}" for n in range(1, 21))
    came = [at for at, _ in api.asked]
    assert came[-1] - came[0] > 1.8
    kept = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"weather.jsonl", "budgets.json"} <= set(kept)
    assert not any(KEY.encode() in content for content in kept.values())


async def test_the_example_budgets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api = Api()
    async with raw_server(api) as server:
        found = await records(
            tmp_path,
            "budgets",
            "items.jsonl",
            ("https://{a,b}.example.org", server.url("", host="{a,b}.test")),
            ("a.example.org:", "a.test:"),
            ("budget: [5/s", "budget: [20/s"),
            ("sinks:", "http: {resolve: {'*.test': 127.0.0.1}}\nsinks:"),
        )
    assert {record["outcome"] for record in found} == {"ok"}
    assert api.hosts == {"a": 20, "b": 20}
    came = [at for at, _ in api.asked]
    assert came[-1] - came[0] > 0.9
