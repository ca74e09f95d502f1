"""Listings page by page, over real sockets: all forms, what goes to which origin, and what the summary says."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from batches import TEST_HOSTS, run_batch
from rich.console import Console
from unit.origin.wire_client import running

from fetcher.assembly import Batch
from fetcher.cli.summary import render
from fetcher.config import Config

FORMS = {
    "link": {"next": "link"},
    "cursor": {"cursor": {"json": "next_cursor"}},
    "url": {"cursor": {"url": "next"}},
    "page": {"page": {"items": "items"}},
    "pages": {"page": {"total": "pages"}},
    "offset": {"offset": {"limit": 10, "limit_param": "limit", "items": "items"}},
    "total": {"offset": {"limit": 10, "limit_param": "limit", "items": "items", "total": "total"}},
}


@pytest.fixture
async def origin():
    async with running() as server:
        yield f"http://a.test:{server.port}"


def listed(records):
    """Return which items each listing had, as its pages had them."""
    found = {}
    for record in sorted(records, key=lambda record: record.get("page", 1)):
        items = json.loads(record["body"])["items"]
        found.setdefault(record.get("parent_id", record["job_id"]), []).extend(item["id"] for item in items)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("total", [95, 100, 1, 0])
async def test_every_form_finds_every_item_once(tmp_path, origin, form, total):
    jobs = [f"{origin}/items?total={total}&size=10&n={n}" for n in range(3)]
    records = await run_batch(tmp_path, jobs, pagination=FORMS[form])
    assert listed(records) == {f"0-{n}": list(range(total)) for n in range(1, 4)}
    # Where nobody says that a page is the last, the one behind it has no items.
    pages = max(1, -(-total // 10)) + (total % 10 == 0 and total > 0 and form in {"page", "offset"})
    pages += form == "page" and total % 10 > 0
    assert Counter(record.get("page") for record in records) == dict.fromkeys(range(1, pages + 1), 3)
    assert all(record["has_more"] is (record["page"] < pages) for record in records)
    assert all("parent_id" in record for record in records if record["page"] > 1)


async def test_a_cursor_in_a_json_body(tmp_path, origin):
    job = {"url": f"{origin}/items?total=35", "method": "POST", "json": {"q": 1}, "meta": {"row": 7}}
    section = {"cursor": {"json": "next_cursor", "in": "json"}}
    retry = {"methods": ["GET", "POST"]}
    records = await run_batch(tmp_path, [job], pagination=section, retry=retry)
    assert listed(records) == {"0-1": list(range(35))}
    assert [record["meta"] for record in records] == [{"row": 7}] * 4


async def test_the_bound_is_seen_in_the_records_and_in_the_summary(tmp_path, origin):
    config = {
        "sources": [{"type": "inline", "jobs": [{"url": f"{origin}/items?n={n}"} for n in range(3)]}],
        "queue": "memory",
        "http": TEST_HOSTS,
        "pagination": {"next": "link", "max_pages": 4},
        "sinks": [{"type": "file", "path": str(tmp_path / "out.jsonl")}],
    }
    batch = Batch(Config.model_validate(config))
    batch.check()
    await batch.open()
    try:
        assert await batch.run()
        assert batch.engine.accounted
    finally:
        await batch.close()
    screen = Console(file=io.StringIO(), width=200)
    screen.print(render(batch))
    assert "3 have more than pagination.max_pages (4): cut there" in screen.file.getvalue()
    assert "12 jobs = ok 12" in screen.file.getvalue()
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["has_more"] for record in records if record["page"] == 4] == [True] * 3


async def test_only_what_was_expected_has_a_next_page(tmp_path, origin):
    expect = {"json": "page == `1`", "retry": False}
    records = await run_batch(tmp_path, [f"{origin}/items?total=95"], pagination={"next": "link"}, expect=expect)
    assert [(record["page"], record["outcome"]) for record in records] == [(1, "ok"), (2, "failed")]
    assert records[1]["error_kind"] == "unexpected"
