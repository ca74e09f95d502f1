"""Requests that are made of what others have written: rows, and the files that they name."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

import pytest
from raw_server import answering, ok, raw_server
from transport_factories import HTTP_EXCHANGES, failure, http_transport, job

from fetcher.errors import ErrorKind
from fetcher.model import FormPart
from fetcher.sources.file import FileSourceConfig

HOSTILE = [
    "a\r\nx-evil: 1",
    "a\nb",
    "a\0b",
    "?admin=1&x=2#top",
    "../../etc/passwd",
    "%2e%2e%2f",
    "a b+c",
    '"}, "admin": {"x": "',
    "'; DROP TABLE users; --",
    "{other}{{",
    '"; filename="x"\r\nContent-Type: text/html\r\n\r\n<script>',
    "@evil.test:80/",
    "日本\u2028語\U0001f600",
]


async def jobs_of(tmp_path, template, rows):
    """Return what jobs a file of rows gives, by a template."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileSourceConfig.model_validate({"path": str(path), "job": template}).build()
    source.check()
    return [made async for chunk in source.read(None) for made in chunk.jobs]


# Control characters


@pytest.mark.parametrize("where", ["headers", "method", "auth", "token"])
@pytest.mark.parametrize("value", ["GET\r\nx: y", "a\nb", "a\0b"])
async def test_f100_a_line_end_out_of_a_row_ends_no_line_of_a_request(tmp_path, where, value):
    said = {
        "headers": {"headers": {"x-name": "by {v}"}},
        "method": {"method": "{v}"},
        "auth": {"auth": {"username": "{v}", "password": "p"}},
        "token": {"auth": {"token": "{v}"}},
    }
    (made,) = await jobs_of(tmp_path, {"url": "http://a.test/", **said[where]}, [{"v": value}])
    assert made.rejected.kind == ErrorKind.INVALID_ROW
    assert made.rejected.message.startswith(f"{tmp_path}/rows.jsonl:1: ")


async def test_f100_a_line_end_out_of_a_row_is_no_second_command(tmp_path):
    template = {"url": "tcp://127.0.0.1:{port}", "body": "GET {key}\r\n"}
    rows = [{"port": 7, "key": "name"}, {"port": 7, "key": "name\r\nFLUSHALL"}, {"port": 7, "key": "a\x1b[0m"}]
    good, *bad = await jobs_of(tmp_path, template, rows)
    assert (good.url, good.method, good.body) == ("tcp://127.0.0.1:7", "SEND", b"GET name\r\n")
    assert all("would be taken for a command" in made.rejected.message for made in bad)


# Files


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
@pytest.mark.parametrize(
    "path", ["../secret", "{outside}/secret", "link", "folder/secret", "pipe", ".", "gone", "inner/../../secret"]
)
async def test_f103_no_row_has_a_file_sent_that_lies_outside_of_the_upload_dir(tmp_path, exchange, path):
    (tmp_path / "secret").write_text("secret")
    within = tmp_path / "within"
    (within / "inner").mkdir(parents=True)
    (within / "link").symlink_to(tmp_path / "secret")
    (within / "folder").symlink_to(tmp_path)
    os.mkfifo(within / "pipe")
    part = FormPart("f", path=path.format(outside=tmp_path))
    async with (
        raw_server(answering(ok())) as server,
        http_transport(exchange, request={"upload_dir": str(within)}) as transport,
    ):
        error = await failure(transport, job(server.url(), parts=[part]))
        assert server.connections == 0
    assert error.kind == ErrorKind.INVALID_ROW
    assert f"request.upload_dir ({within})" in str(error)
    assert not error.sent


async def test_f103_links_within_the_upload_dir_are_as_good_as_files(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    seen = []

    async def script(peer):
        seen.append(await peer.request())
        await peer.send(ok())

    settings = {"upload_dir": str(tmp_path / "link")}
    async with raw_server(script) as server, http_transport("connection", request=settings) as transport:
        assert (await transport.fetch(job(server.url(), parts=[FormPart("f", path="a")]))).status == 200
    assert b"content" in seen[0]


# Syntax of where a value goes


async def test_f105_what_a_row_has_is_data_wherever_it_goes(tmp_path, httpbin):
    base = f"{httpbin.url}/anything"
    ways = {
        "args": {"url": base, "params": {"v": "{row.v}"}},
        "form": {"url": base, "form": {"v": "{v}"}},
        "json": {"url": base, "json": {"v": "{v}", "more": "<{v}>"}},
        "data": {"url": base, "body": "{v}", "headers": {"content-type": "text/plain"}},
        "parts": {"url": base, "multipart": [{"name": "v", "value": "{v}"}]},
        "inner": {"url": f"{base}?v={{v}}&w=1"},
    }
    rows = [{"v": value} for value in HOSTILE]
    async with http_transport("connection") as transport:
        for way, template in ways.items():
            for made, value in zip(await jobs_of(tmp_path, template, rows), HOSTILE, strict=True):
                asked = json.loads((await transport.fetch(made)).body)
                expected = {"v": value}
                expected |= {"more": f"<{value}>"} if way == "json" else {"w": "1"} if way == "inner" else {}
                found = asked[{"inner": "args", "parts": "form"}.get(way, way)]
                assert found == (value if way == "data" else expected), way
                assert asked["url"].partition("?")[0] == base
                assert "X-Evil" not in asked["headers"]
                assert asked["files"] == {}


async def test_f105_what_a_row_has_is_one_segment_of_a_path_and_one_label_of_a_host(tmp_path):
    template = {"url": "http://api.test/a/{v}/z"}
    for made, value in zip(await jobs_of(tmp_path, template, [{"v": v} for v in HOSTILE]), HOSTILE, strict=True):
        assert made.url == f"http://api.test/a/{quote(value, safe='')}/z"
    for value in ("", ".", "..", None):
        (made,) = await jobs_of(tmp_path, template, [{"v": value}])
        assert made.rejected.kind == ErrorKind.INVALID_ROW
    for value in ("a.test/x?", "user@evil.test", "evil.test#", "evil.test:80", "a b", "", "a\\b", "[::1]", "a%2eb"):
        (made,) = await jobs_of(tmp_path, {"url": "http://{v}.example.org/"}, [{"v": value}])
        assert made.rejected is not None, value
