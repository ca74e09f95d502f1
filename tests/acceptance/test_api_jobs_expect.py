"""The example of docs/api-jobs.md for ``expect``, against an API whose exports take their time."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from raw_server import raw_server

from fetcher.assembly import Batch
from fetcher.config import load

PAGE = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL))
JSON, HTML = "application/json; charset=utf-8", "text/html"
# What becomes of each export: its answers in turn, the last of them from then on.
EXPORTS = {
    "1": [(200, JSON, '{"status": "done"}')],
    "2": [
        (202, JSON, "{}"),
        (200, JSON, '{"status": "pending"}'),
        (200, HTML, "busy"),
        (200, JSON, '{"status": "done"}'),
    ],
    "3": [(404, JSON, '{"code": "no_such_export"}')],
    "4": [(404, JSON, '{"code": "no_such_api"}')],
}


class Api:
    def __init__(self):
        self.asked = Counter()

    async def __call__(self, peer):
        while True:
            export = (await peer.request()).split(b" ")[1].decode().rpartition("/")[2]
            answers = EXPORTS[export]
            status, kind, body = answers[min(self.asked[export], len(answers) - 1)]
            self.asked[export] += 1
            head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            await peer.send((head + body).encode())


async def test_the_example_expect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api = Api()
    async with raw_server(api) as server:
        text = EXAMPLES["expect"].replace("https://api.example.org", server.url("")).replace("2s", "1ms")
        (tmp_path / "expect.yaml").write_text(text)
        batch = Batch(load("expect.yaml", environ={}))
        await batch.open()
        try:
            assert await batch.run()
        finally:
            await batch.close()
    records = [json.loads(line) for line in (tmp_path / "out/exports.jsonl").read_text().splitlines()]
    found = {record["url"][-1]: record for record in records}
    assert {key: record["outcome"] for key, record in found.items()} == {"1": "ok", "2": "ok", "3": "ok", "4": "failed"}
    assert found["4"]["error_kind"] == "unexpected"
    assert api.asked == {"1": 1, "2": 4, "3": 1, "4": 10}
