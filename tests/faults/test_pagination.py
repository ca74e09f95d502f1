"""Next pages are named by servers: none of them decides who is asked what, and as whom."""

from __future__ import annotations

import json

import pytest
from batches import TEST_HOSTS, run_batch
from raw_server import raw_server


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


async def test_f47_a_next_page_of_the_same_origin_is_asked_for_with_all_that_the_first_was(tmp_path):
    one, two = await two_pages(tmp_path, lambda ports: f"http://a.test:{ports['a']}/2")
    assert one.replace(b"/1 ", b"/2 ") == two
    assert b"bearer own" in two
    assert b"x-secret: theirs" in two


async def test_f47_a_next_page_elsewhere_gets_no_secret_of_the_job_nor_of_the_batch(tmp_path):
    auth = [{"hosts": ["*.test"], "type": "bearer", "token": "configured", "insecure": True}]
    _, two = await two_pages(
        tmp_path, lambda ports: f"http://me:secret@b.test:{ports['b']}/2", http=TEST_HOSTS | {"auth": auth}
    )
    for secret in (b"own", b"theirs", b"configured", b"authorization", b"cookie", b"secret"):
        assert secret not in two, secret
    assert b"x-other: open" in two
    assert b"x-open: open" in two


async def test_f77_a_next_page_that_the_guard_blocks_is_blocked(tmp_path):
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


@pytest.mark.parametrize(
    "there", ["file:///etc/passwd", "ftp://a.test/", "data:,x", "javascript:alert(1)", "gopher://a/"]
)
async def test_f42_a_next_page_that_is_not_http_fails_this_one_and_is_not_tried_again(tmp_path, there):
    record, asked = await refused(tmp_path, page(there), {"next": "link"})
    assert record["error_message"].startswith(f"the next page: points to '{there}")
    assert (record["status"], record["page"], record["attempts"]) == (200, 1, 1)
    assert len(asked) == 1


@pytest.mark.parametrize("there", [r"/2\r\nX-Split: 1", r"/2 HTTP/1.1\r\n\r\nGET /3", r"http://a\u0000b/"])
async def test_f100_a_next_url_splits_no_request(tmp_path, there):
    answer = page(body=f'{{"next": "{there}"}}'.encode())
    asked = []

    async def serve(peer):
        while True:
            asked.append(await peer.request())
            await peer.send(answer if len(asked) == 1 else page())

    async with raw_server(serve) as server:
        records = await run_batch(
            tmp_path, [f"http://a.test:{server.port}/"], pagination={"cursor": {"url": "next"}}, max_failures="100%"
        )
    assert b"\r\nx-split" not in b"".join(asked).lower()
    assert [request.split(b" ")[0] for request in asked] == [b"GET"] * len(records)


async def test_f100_a_cursor_is_data_whatever_it_is(tmp_path):
    asked = []

    async def serve(peer):
        while True:
            asked.append(await peer.request())
            await peer.send(page(body=rb'{"next": "a&admin=1#\r\nX: y/../%00"}' if len(asked) == 1 else b"{}"))

    async with raw_server(serve) as server:
        await run_batch(tmp_path, [f"http://a.test:{server.port}/?q=1"], pagination={"cursor": {"json": "next"}})
    assert asked[1].startswith(b"GET /?q=1&cursor=a%26admin%3D1%23%0D%0AX%3A%20y%2F..%2F%2500 HTTP/1.1\r\n")


async def refused(folder, answer, section):
    """Return the record of a page that leads nowhere, and what was asked."""
    asked = []

    async def serve(peer):
        while True:
            asked.append(await peer.request())
            await peer.send(answer)

    async with raw_server(serve) as server:
        url = f"http://a.test:{server.port}/"
        (record,) = await run_batch(folder, [url], pagination=section, max_failures="100%")
    assert (record["outcome"], record["error_kind"]) == ("failed", "bad_pagination")
    return record, asked


@pytest.mark.parametrize("section", [{"next": "link"}, {"cursor": {"url": "next"}}])
async def test_f107_a_key_that_a_next_url_repeats_is_used_and_not_shown(tmp_path, section):
    asked = []

    async def serve(peer):
        while True:
            request = await peer.request()
            asked.append(request.split(b" ")[1].decode())
            there = f"{asked[-1]}&page=2" if len(asked) == 1 else None
            await peer.send(page(there, json.dumps({"next": there}).encode()))

    key = {"type": "api_key", "hosts": ["a.test"], "name": "key", "in": "query", "key": "geh/eim!", "insecure": True}
    async with raw_server(serve) as server:
        url = f"http://a.test:{server.port}/?q=1"
        first, second = await run_batch(tmp_path, [url], pagination=section, http=TEST_HOSTS | {"auth": [key]})
    assert asked == ["/?q=1&key=geh%2Feim%21", "/?q=1&key=geh%2Feim%21&page=2"]
    for name in ("body", "sha256"):
        del first[name], second[name]
    assert "eim" not in json.dumps([first, second])
    assert second["url"] == second["final_url"] == f"{url}&key=***&page=2"


@pytest.mark.parametrize(("secret", "asked_twice"), [("demo", True), ("demo-0123456789", False)])
async def test_f107_a_next_url_is_not_changed_by_a_short_key_and_has_no_long_one_in_its_path(
    tmp_path, secret, asked_twice
):
    asked = []

    async def serve(peer):
        while True:
            asked.append((await peer.request()).split(b" ")[1].decode())
            await peer.send(page(f"/{secret}/x?cat={secret}&key={secret}" if len(asked) == 1 else None))

    key = {"type": "api_key", "hosts": ["a.test"], "name": "key", "in": "query", "key": secret, "insecure": True}
    http = TEST_HOSTS | {"auth": [key]}
    async with raw_server(serve) as server:
        url = f"http://a.test:{server.port}/"
        records = await run_batch(tmp_path, [url], pagination={"next": "link"}, http=http, max_failures="100%")
    if asked_twice:
        assert asked == ["/?key=demo", "/demo/x?cat=demo&key=demo"]
        assert records[1]["url"] == records[1]["final_url"] == f"{url}demo/x?cat=demo&key=***"
    else:
        (record,) = records
        assert (record["error_kind"], len(asked)) == ("bad_pagination", 1)
        assert secret not in json.dumps({name: record[name] for name in record if name != "body"})
