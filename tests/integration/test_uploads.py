"""Files in requests, with both exchanges: as httpbin reads them, and before servers that do not take them."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from raw_server import ok, raw_server
from transport_factories import HTTP_EXCHANGES, failure, http_transport, job

from fetcher.errors import ErrorKind
from fetcher.model import FormPart

HUGE = 16 * 1024 * 1024
LENGTH = re.compile(rb"content-length: (\d+)\r\n", re.IGNORECASE)


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request, tmp_path):
    """A function that opens a transport whose files are in ``tmp_path``."""

    def make(**settings):
        return http_transport(request.param, request={"upload_dir": str(tmp_path), **settings})

    return make


@pytest.fixture
def huge(tmp_path):
    """A file that fills every buffer on the way."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(HUGE)
    return [FormPart("f", path="huge")]


def open_files():
    """Return the names of all files that this process has open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found.add(fd.readlink().name)
    return found


async def head_of(peer):
    head = await peer.receive_until(b"\r\n\r\n")
    return head, int(LENGTH.search(head)[1])


async def taking(peer):
    """Take whole requests of any size, and tell how long each was."""
    while True:
        _, length = await head_of(peer)
        left = length
        while left:
            left -= len(await peer.receive(min(left, 65536)))
        await peer.send(ok(b"%d" % length))


async def test_httpbin_reads_every_part(opened, httpbin, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/ä.txt").write_text("first\nfile")
    (tmp_path / "empty").write_bytes(b"")
    parts = [
        FormPart("plain", value="a\r\n--b: ü"),
        FormPart('odd "name"\r\nx: y', value=""),
        FormPart("text", path="sub/ä.txt"),
        FormPart("named", path="sub/ä.txt", filename='x"\r\ny: z', content_type="image/png"),
        FormPart("nothing", path=str(tmp_path / "empty")),
        FormPart("made", value="{}", filename="made.json"),
    ]
    async with opened() as transport:
        response = await transport.fetch(job(f"{httpbin.url}/anything", parts=parts))
    assert response.status == 200, response.body
    asked = json.loads(response.body)
    assert asked["method"] == response.method == "POST"
    assert asked["form"] == {"plain": "a\r\n--b: ü", 'odd "name"%0D%0Ax: y': ""}  # %22 is read back as a quote
    assert asked["files"] == {"text": "first\nfile", "named": "first\nfile", "nothing": "", "made": "{}"}
    assert asked["headers"]["Content-Type"].startswith("multipart/form-data; boundary=")


async def test_what_a_part_says_of_itself(opened, tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    seen = []

    async def script(peer):
        seen.append(await peer.request())
        await peer.send(ok(b""))

    parts = [FormPart("f", path="a.png"), FormPart("g", path="a.png", filename='x"\r\ny', content_type="a/b")]
    async with raw_server(script) as server, opened() as transport:
        await transport.fetch(job(server.url(), parts=parts, method="PUT"))
    assert b'form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nPNG\r\n--' in seen[0]
    assert b'form-data; name="g"; filename="x%22%0D%0Ay"\r\nContent-Type: a/b\r\n\r\nPNG\r\n--' in seen[0]
    assert seen[0].startswith(b"PUT ")


async def test_a_file_is_never_in_memory_as_a_whole(opened, huge):
    async with raw_server(taking) as server, opened() as transport:
        tracemalloc.start()
        try:
            response = await transport.fetch(job(server.url(), parts=huge))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # The connection is as good as any after a request.
        assert int(response.body) > HUGE
        assert (await transport.fetch(job(server.url(), parts=[FormPart("a", value="b")]))).status == 200
        assert server.connections == 1
    assert peak < HUGE / 4


async def test_no_more_of_a_file_is_read_than_the_server_takes(opened, huge):
    async def script(peer):
        await head_of(peer)
        await asyncio.Event().wait()

    async with raw_server(script) as server, opened(timeout={"read": "300ms"}) as transport:
        tracemalloc.start()
        try:
            error = await failure(transport, job(server.url(), parts=huge))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert error.kind == ErrorKind.READ_TIMEOUT
    assert peak < HUGE / 4


async def test_an_answer_before_the_end_ends_the_sending(opened, huge):
    answered, gone = asyncio.Event(), asyncio.Event()

    async def script(peer):
        if peer.number > 1:
            await taking(peer)
        await head_of(peer)
        await peer.receive(100_000)
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await answered.wait()
        await peer.gone()
        gone.set()

    async with raw_server(script) as server, opened() as transport:
        response = await asyncio.wait_for(transport.fetch(job(server.url(), parts=huge)), 10)
        assert (response.status, response.body) == (413, b"big")
        answered.set()
        await asyncio.wait_for(gone.wait(), 10)
        # What the server still waits for is not made up of the next request.
        assert (await transport.fetch(job(server.url(), parts=[FormPart("a", value="b")]))).status == 200
        assert server.connections == 2


async def test_a_file_that_changes_while_it_is_sent_ends_the_job(opened, huge, tmp_path):
    async def script(peer):
        await head_of(peer)
        await peer.receive(100_000)
        with (tmp_path / "huge").open("ab") as file:
            file.write(b"more")
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(server.url(), parts=huge))
    assert error.kind == ErrorKind.INVALID_ROW
    assert "'huge' was changed while it was sent" in str(error)
    assert error.sent


@pytest.mark.parametrize("status", [303, 307])
async def test_a_redirect_reads_the_files_anew_or_not_at_all(opened, tmp_path, status):
    (tmp_path / "a").write_text("content")
    seen = []

    async def script(peer):
        while True:
            seen.append(await peer.request())
            moved = b"HTTP/1.1 %d Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n" % status
            await peer.send(moved if len(seen) == 1 else ok(b""))

    async with raw_server(script) as server, opened() as transport:
        response = await transport.fetch(job(server.url(), parts=[FormPart("a", path="a")]))
    assert response.method == ("GET" if status == 303 else "POST")
    assert b"content\r\n--" in seen[0]
    assert (b"content\r\n--" in seen[1], b"multipart" in seen[1]) == ((False, False) if status == 303 else (True, True))


async def test_a_connection_that_ends_meanwhile_is_told_of(opened, huge):
    async def script(peer):
        await head_of(peer)
        peer.reset()

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(server.url(), parts=huge))
    assert error.kind in {ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED}
    assert error.sent


async def test_a_cancelled_upload_leaves_nothing_behind(opened, huge):
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(peer):
        await head_of(peer)
        arrived.set()
        await peer.gone()
        gone.set()

    async with raw_server(script) as server, opened() as transport:
        fetching = asyncio.create_task(transport.fetch(job(server.url(), parts=huge)))
        await arrived.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.wait_for(gone.wait(), 10)
    await asyncio.get_running_loop().shutdown_default_executor()  # a block may just be read
    assert "huge" not in open_files()


async def test_a_slow_server_is_no_silence_as_long_as_it_takes_more(opened, tmp_path):
    # As long as it is slow, more is left than all buffers on the way can hold.
    with (tmp_path / "file").open("wb") as file:
        file.truncate(4 * HUGE)

    async def script(peer):
        _, left = await head_of(peer)
        for step in range(4 * 16):
            left -= len(await peer.receive(HUGE // 16))
            await asyncio.sleep(0.1 if step < 16 else 0)
        await peer.receive(left)
        await peer.send(ok(b"done"))

    async with raw_server(script) as server, opened(timeout={"read": "1500ms"}) as transport:
        response = await transport.fetch(job(server.url(), parts=[FormPart("f", path="file")]))
    assert response.body == b"done"
