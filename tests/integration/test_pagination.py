"""Listings page by page, over real sockets: all forms, what goes to which origin, and what the summary says."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from batches import TEST_HOSTS, run_batch
from raw_server import raw_server
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


# Who is told what


def page(link=None, body=b"{}"):
    head = b"" if link is None else f'Link: <{link}>; rel="next"\r\n'.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body)


SECRET = {"authorization": "Bearer own", "x-key": "own", "cookie": "own=1", "x-other": "open"}
DEFAULTS = {"headers": {"proxy-authorization": "theirs", "x-secret": "theirs", "x-open": "open"}}
DEFAULTS |= {"secret_headers": ["X-Key", "X-Secret"]}


async def two_pages(folder, there, **sections):
    """Fetch a page that names another one at ``there``, and that one; return the requests for both."""
    asked = []

    async def first(peer):
        while True:
            asked.append(await peer.request())
            await peer.send(page(there(ports) if len(asked) == 1 else None))

    async def second(peer):
        asked.append(await peer.request())
        await peer.send(page())

    async with raw_server(first) as one, raw_server(second) as other:
        ports = {"a": one.port, "b": other.port}
        job = {"url": f"http://a.test:{one.port}/1", "headers": SECRET}
        records = await run_batch(folder, [job], pagination={"next": "link"}, request=DEFAULTS, **sections)
    assert [record["outcome"] for record in records] == ["ok", "ok"]
    return [request.lower() for request in asked]


async def test_a_next_page_of_the_same_origin_is_asked_for_with_all_that_the_first_was(tmp_path):
    one, two = await two_pages(tmp_path, lambda ports: f"http://a.test:{ports['a']}/2")
    assert one.replace(b"/1 ", b"/2 ") == two
    assert b"bearer own" in two
    assert b"x-secret: theirs" in two


async def test_a_next_page_elsewhere_gets_no_secret_of_the_job_nor_of_the_batch(tmp_path):
    auth = [{"hosts": ["*.test"], "type": "bearer", "token": "configured", "insecure": True}]
    _, two = await two_pages(
        tmp_path, lambda ports: f"http://me:secret@b.test:{ports['b']}/2", http=TEST_HOSTS | {"auth": auth}
    )
    for secret in (b"own", b"theirs", b"configured", b"authorization", b"cookie", b"secret"):
        assert secret not in two, secret
    assert b"x-other: open" in two
    assert b"x-open: open" in two


async def test_a_next_page_that_the_guard_blocks_is_blocked(tmp_path, origin):
    asked = []

    async def serve(peer):
        asked.append(await peer.request())
        await peer.send(page("http://169.254.169.254/latest/meta-data/"))

    async with raw_server(serve) as server:
        guard = {"guard": {"allow": ["127.0.0.1"]}}
        records = await run_batch(
            tmp_path, [f"http://a.test:{server.port}/"], pagination={"next": "link"}, http=TEST_HOSTS | guard
        )
    last = next(record for record in records if "parent_id" in record)
    assert (last["error_kind"], last["parent_id"], last["page"]) == ("blocked", "0-1", 2)


async def test_a_next_page_that_is_none_fails_this_one_and_is_not_tried_again(tmp_path):
    asked = []

    async def serve(peer):
        while True:
            asked.append(await peer.request())
            await peer.send(page("gopher://a.test/"))

    async with raw_server(serve) as server:
        (record,) = await run_batch(
            tmp_path, [f"http://a.test:{server.port}/"], pagination={"next": "link"}, max_failures="100%"
        )
    assert (record["outcome"], record["error_kind"], record["attempts"]) == ("failed", "bad_pagination", 1)
    assert record["error_message"].startswith("the next page: points to 'gopher://a.test/'")
    assert (record["status"], record["page"]) == (200, 1)
    assert len(asked) == 1


async def test_only_what_was_expected_has_a_next_page(tmp_path, origin):
    expect = {"json": "page == `1`", "retry": False}
    records = await run_batch(tmp_path, [f"{origin}/items?total=95"], pagination={"next": "link"}, expect=expect)
    assert [(record["page"], record["outcome"]) for record in records] == [(1, "ok"), (2, "failed")]
    assert records[1]["error_kind"] == "unexpected"
