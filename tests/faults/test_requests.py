"""Requests that are made of what others have written: rows, and the files that they name."""

from __future__ import annotations

import errno
import json
import os
from urllib.parse import quote

import pytest
from raw_server import answering, ok, raw_server
from transport_factories import HTTP_EXCHANGES, failure, http_transport, job

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import FormPart
from fetcher.sources.file import FileSourceConfig
from fetcher.transports.http.uploads import Upload

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


@pytest.mark.parametrize("steps", ["inner/file", "inner/deep/file", "file"])
async def test_f103_what_becomes_a_link_after_it_was_resolved_leads_nowhere(tmp_path, monkeypatch, steps):
    swap_after_resolving(monkeypatch, str(tmp_path / "within" / steps), two_files(tmp_path, steps))
    with pytest.raises(FetchError, match=f"the file '{steps}' can not be read: ") as caught:
        await Upload([FormPart("f", path=steps)], str(tmp_path / "within")).measure()
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.INVALID_ROW, False)


@pytest.mark.parametrize("steps", ["inner/file", "inner/deep/file", "file"])
async def test_f103_what_becomes_a_link_after_it_was_measured_leads_nowhere(tmp_path, steps):
    swap = two_files(tmp_path, steps)
    upload = Upload([FormPart("f", path=steps)], str(tmp_path / "within"))
    await upload.measure()
    swap()
    blocks = upload.blocks(lambda: None)
    assert b"Content-Disposition" in await anext(blocks)
    with pytest.raises(FetchError, match=f"the file '{steps}' can not be read any more: ") as caught:
        await anext(blocks)
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.INVALID_ROW, True)


async def test_f103_a_link_that_is_gone_while_it_is_followed_fails_the_job_alone(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    swap_after_resolving(monkeypatch, str(tmp_path / "a"), fail)
    with pytest.raises(FetchError, match="the file 'a' can not be read: Invalid argument") as caught:
        await Upload([FormPart("f", path="a")], str(tmp_path)).measure()
    assert caught.value.kind == ErrorKind.INVALID_ROW


def two_files(tmp_path, steps):
    """Make one file within a folder and one outside; return what puts a link to the other in the way to the first."""
    for folder in ("within", "outside"):
        path = tmp_path / folder / steps
        path.parent.mkdir(parents=True)
        path.write_text(folder)
    first = steps.partition("/")[0]

    def swap():
        (tmp_path / "within" / first).rename(tmp_path / "away")
        (tmp_path / "within" / first).symlink_to(tmp_path / "outside" / first)

    return swap


def swap_after_resolving(monkeypatch, wanted, swap):
    """Have something happen just after the links in a path were followed."""
    resolve = os.path.realpath

    def resolved(path, **options):
        real = resolve(path, **options)
        if str(path) == wanted:
            swap()
        return real

    monkeypatch.setattr("os.path.realpath", resolved)


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
