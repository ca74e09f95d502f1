"""Bodies in files, downloads that are gone on with, checksums and revalidation, over real sockets."""

# ruff: noqa: ASYNC240  the files of a test are small and near

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import sqlite3
import ssl
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from range_server import content, range_server
from raw_server import answering, ok, raw_server, saying
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.errors import ConfigError, ErrorKind, FetchError, SinkError, StateBusyError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from raw_server import RawServer, Script

    from fetcher.interfaces import Transport
    from fetcher.model import Job

MIB = 1024 * 1024
LARGE = content(2 * MIB + 17)
DIGEST = hashlib.sha256(LARGE).hexdigest()
FILES = {"store": "file", "path": "bodies/{sha256}", "max_size": "64MiB"}
RESUMED = FILES | {"range": "resume"}
OLD = formatdate(1_700_000_000, usegmt=True)
MUCH_LATER = formatdate(1_700_086_400, usegmt=True)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    def make(body: dict[str, Any] = FILES, **http: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, body=body, **http)

    return make


async def failure(transport: Transport, wanted: Job) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value


def files(folder: str = "bodies") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# Files


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 2 * MIB + 17])
async def test_a_body_becomes_a_file(opened, size):
    body = LARGE[:size]
    async with raw_server(saying(ok(body))) as server, opened() as transport:
        response = await transport.fetch(job(server.url()))
    digest = hashlib.sha256(body).hexdigest()
    assert (response.body, response.body_size, response.wire_size) == (None, size, size)
    assert (response.sha256, response.body_path) == (digest, f"bodies/{digest}")
    assert Path(response.body_path).read_bytes() == body
    assert files() == [digest]
    assert not Path("bodies/.partial").exists()


async def test_a_coded_body_is_stored_as_it_is_without_its_codings(opened):
    answer = ok(gzip.compress(LARGE), "Content-Encoding: gzip")
    async with raw_server(saying(answer)) as server, opened() as transport:
        response = await transport.fetch(job(server.url()))
    assert (response.body_size, response.sha256) == (len(LARGE), DIGEST)
    assert Path(response.body_path).read_bytes() == LARGE


async def test_small_bodies_go_into_the_record_if_they_may(opened):
    async with (
        raw_server(answering(ok(b"x" * 100), ok(b"x" * 101), ok(b""))) as server,
        opened(FILES | {"inline_max": 100}) as transport,
    ):
        small, larger, empty = [await transport.fetch(job(server.url())) for _ in range(3)]
    assert (small.body, small.body_path, small.sha256) == (b"x" * 100, None, hashlib.sha256(b"x" * 100).hexdigest())
    assert (larger.body, Path(larger.body_path).read_bytes()) == (None, b"x" * 101)
    assert (empty.body, empty.body_path) == (b"", None)


async def test_an_inline_bound_above_a_batch_is_kept_to(opened):
    async with (
        raw_server(answering(ok(LARGE[:MIB]), ok(LARGE[: MIB + 1]))) as server,
        opened(FILES | {"inline_max": MIB}) as transport,
    ):
        small, larger = [await transport.fetch(job(server.url())) for _ in range(2)]
    assert (small.body, small.body_path) == (LARGE[:MIB], None)
    assert Path(larger.body_path).read_bytes() == LARGE[: MIB + 1]


async def test_equal_bodies_are_stored_once_and_large_ones_at_the_same_time_are_not_mixed(opened):
    bodies = [content(MIB, str(number % 4)) for number in range(12)]

    async def script(peer):
        await peer.send(ok(bodies[int((await peer.request()).split(b" ")[1][1:])]))

    async with raw_server(script) as server, opened() as transport:

        async def fetch(number):
            wanted = job(server.url(f"/{number}"))
            wanted.id = str(number)
            return await transport.fetch(wanted)

        responses = await asyncio.gather(*map(fetch, range(12)))
    for response, body in zip(responses, bodies, strict=True):
        assert Path(response.body_path).read_bytes() == body
    assert len(files()) == 4


async def test_two_attempts_of_one_job_at_the_same_time_do_not_meet(opened):
    async with raw_server(saying(ok(LARGE))) as server, opened(RESUMED) as transport:
        responses = await asyncio.gather(*(transport.fetch(job(server.url())) for _ in range(5)))
    assert [response.sha256 for response in responses] == [DIGEST] * 5
    assert files() == [DIGEST]


@pytest.mark.parametrize("answer", [ok(LARGE).replace(b"200 OK", b"404 Not Found"), b"HTTP/1.1 204 X\r\n\r\n"])
async def test_only_bodies_of_success_are_stored(opened, answer):
    async with raw_server(saying(answer)) as server, opened() as transport:
        response = await transport.fetch(job(server.url()))
    assert (response.body, response.body_path) == (None, None)
    assert not Path("bodies").exists() or files() == []


async def test_head_stores_nothing(opened):
    async with raw_server(saying(ok(b"")[:-2] + b"\r\n")) as server, opened() as transport:
        response = await transport.fetch(job(server.url(), method="HEAD"))
    assert response.body_path is None


async def test_durable_bodies_are_there_as_well(opened):
    body = FILES | {"durability": "fsync", "path": "bodies/{sha256:2}/{sha256}"}
    async with raw_server(saying(ok(LARGE))) as server, opened(body) as transport:
        response = await transport.fetch(job(server.url()))
    assert Path(response.body_path).read_bytes() == LARGE


async def test_a_broken_body_leaves_no_file(opened):
    head = ok(LARGE)[: MIB + 1000]
    async with raw_server(saying(head)) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
        assert files() == []
    assert (error.kind, error.response.body_path) == (ErrorKind.BODY_INCOMPLETE, None)
    assert 0 < error.response.body_size < len(LARGE)


async def test_a_cancelled_fetch_leaves_no_file(opened):
    started = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.send(ok(LARGE)[:MIB])
        started.set()
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        fetching = asyncio.create_task(transport.fetch(job(server.url())))
        await started.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert files() == []


async def test_leftovers_of_a_dead_run_are_cleared_out_and_nothing_else(opened):
    work = Path("bodies/.partial/batch")
    work.mkdir(parents=True)
    for name in ("0" * 32 + ".part", "0" * 32 + ".json", "1" * 32 + "-7.part", "2" * 32 + ".json.new"):
        (work / name).write_bytes(b"{}")
    (work / "mine.txt").write_bytes(b"mine")
    async with opened():
        assert files() == [".partial/batch/mine.txt"]


async def test_a_work_folder_has_one_run_at_a_time(opened):
    async with opened():
        with pytest.raises(StateBusyError, match="another run is storing bodies there"):
            async with opened():
                pass
    async with opened():
        pass


async def test_a_folder_that_can_not_be_written_is_a_config_error(opened):
    Path("file").write_bytes(b"")
    with pytest.raises(ConfigError, match="can not be written"):
        async with opened(FILES | {"path": "file/{sha256}"}):
            pass


async def test_a_disk_that_takes_no_more_stops_the_run_and_not_the_job(opened):
    async with raw_server(saying(ok(LARGE))) as server, opened(FILES | {"path": "bodies/{sha256}"}) as transport:
        Path("bodies", DIGEST).mkdir()  # a folder where the file has to be
        with pytest.raises(SinkError, match=DIGEST):
            await transport.fetch(job(server.url()))
        assert files() == []


# Going on with a download


async def interrupted(transport, server, **fields) -> FetchError:
    error = await failure(transport, job(server.url(), **fields))
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    return error


async def test_an_interrupted_download_is_gone_on_with(opened):
    async with range_server(LARGE, breaks=[MIB, 100_000]) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
        assert files() == [DIGEST]
    first, second, third = server.requests
    assert "range" not in first
    assert first["accept-encoding"] == "identity"
    assert second["if-range"] == '"v1"'
    offset = asked_from(third)
    assert 0 < asked_from(second) <= MIB
    assert asked_from(second) < offset <= asked_from(second) + 100_000
    assert (response.status, response.resumed_at, response.sha256) == (206, offset, DIGEST)
    assert (response.body_size, response.wire_size) == (len(LARGE), len(LARGE) - offset)
    assert Path(response.body_path).read_bytes() == LARGE


def asked_from(request) -> int:
    return int(request["range"].removeprefix("bytes=").removesuffix("-"))


async def test_it_is_gone_on_with_by_another_process(opened):
    async with range_server(LARGE, breaks=[MIB]) as server:
        async with opened(RESUMED) as transport:
            await interrupted(transport, server)
        async with opened(RESUMED) as transport:
            response = await transport.fetch(job(server.url()))
    assert (response.resumed_at, response.sha256) == (asked_from(server.requests[1]), DIGEST)


async def test_after_a_timeout_it_is_gone_on_with(opened):
    async with range_server(LARGE) as server:
        server.pause = 60.0

        async with opened(RESUMED, request={"timeout": {"read": 0.2}}) as transport:
            error = await failure(transport, job(server.url()))
            assert error.kind is ErrorKind.READ_TIMEOUT
            server.pause = 0.0
            response = await transport.fetch(job(server.url()))
    assert (response.resumed_at, response.sha256) == (64 * 1024, DIGEST)


async def test_a_server_without_ranges_sends_all_of_it_again(opened):
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        server.ranges = False
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
    assert (response.status, response.resumed_at, response.sha256) == (200, None, DIGEST)
    assert asked_from(server.requests[1]) > 0
    assert Path(response.body_path).read_bytes() == LARGE


async def test_a_body_that_has_changed_is_fetched_from_the_start(opened):
    other = content(2 * MIB, "b")
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        server.body, server.etag = other, '"v2"'
        response = await transport.fetch(job(server.url()))
    assert (response.status, response.resumed_at) == (200, None)
    assert Path(response.body_path).read_bytes() == other


@pytest.mark.parametrize(
    "lie",
    [
        f"bytes 0-{len(LARGE) - 1}/{len(LARGE)}",
        f"bytes {MIB + 1}-{len(LARGE) - 1}/{len(LARGE)}",
        f"bytes {MIB}-{len(LARGE) - 1}/{len(LARGE) + 1}",
        f"bytes {MIB}-{len(LARGE) - 2}/{len(LARGE)}",
        f"bytes {MIB}-{len(LARGE)}/{len(LARGE)}",
        f"bytes {MIB}-5/{len(LARGE)}",
        f"items {MIB}-{len(LARGE) - 1}/{len(LARGE)}",
        "",
    ],
)
async def test_a_part_that_is_not_what_was_asked_for_is_not_used(opened, lie):
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        server.lies = [lie]
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
    assert ["range" in request for request in server.requests] == [False, True, False]
    assert (response.status, response.resumed_at, response.sha256) == (200, None, DIGEST)
    assert Path(response.body_path).read_bytes() == LARGE


async def test_a_part_of_another_version_is_not_used(opened):
    """A server that ignores If-Range, but says what it sends."""
    other = content(len(LARGE), "b")

    async def script(peer):
        request = await peer.request()
        if b"Range:" in request:
            where = f"Content-Range: bytes {MIB}-{len(other) - 1}/{len(other)}"
            part = ok(other[MIB:], 'ETag: "v2"', where).replace(b"200 OK", b"206 Partial Content")
            await peer.send(part)
        elif peer.number == 1:
            await peer.send(ok(LARGE, 'ETag: "v1"')[: -len(LARGE) + MIB])
        else:
            await peer.send(ok(other, 'ETag: "v2"'))

    async with raw_server(script) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
    assert Path(response.body_path).read_bytes() == other


async def test_a_part_with_another_date_than_the_beginning_is_not_used(opened):
    other = content(len(LARGE), "b")
    newer = formatdate(1_700_000_060, usegmt=True)

    async def script(peer):
        request = await peer.request()
        head = f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\n"
        if b"Range:" in request:
            where = f"Content-Range: bytes {MIB}-{len(other) - 1}/{len(other)}"
            part = ok(other[MIB:], where, f"Last-Modified: {newer}").replace(b"200 OK", b"206 Partial Content")
            await peer.send(part)
        elif peer.number == 1:
            lines = f"{head}Content-Length: {len(LARGE)}\r\nLast-Modified: {OLD}\r\n\r\n"
            await peer.send(lines.encode() + LARGE[:MIB])
        else:
            await peer.send(ok(other, f"Last-Modified: {newer}"))

    async with raw_server(script) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
    assert (server.connections, response.resumed_at) == (3, None)
    assert Path(response.body_path).read_bytes() == other


async def test_a_server_that_says_that_there_is_no_more_is_asked_for_all_of_it(opened):
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        server.body = LARGE[:1000]  # ... under the same tag
        response = await transport.fetch(job(server.url()))
    assert (response.status, response.resumed_at) == (200, None)
    assert Path(response.body_path).read_bytes() == LARGE[:1000]


@pytest.mark.parametrize(
    ("etag", "modified", "date", "resumes"),
    [
        ('"v1"', None, None, True),
        ('W/"v1"', None, None, False),
        ('W/"v1"', OLD, MUCH_LATER, False),
        (None, OLD, MUCH_LATER, True),
        (None, OLD, None, False),
        (None, OLD, OLD, False),
        (None, "yesterday", MUCH_LATER, False),
        (None, None, None, False),
    ],
)
async def test_only_what_can_not_have_changed_unseen_is_gone_on_with(opened, etag, modified, date, resumes):
    async with range_server(LARGE, etag=etag, breaks=[MIB]) as server, opened(RESUMED) as transport:
        server.modified = modified
        server.extra = (f"Date: {date}",) if date else ()
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url()))
    assert (response.resumed_at is not None) == ("range" in server.requests[1]) == resumes
    assert response.sha256 == DIGEST


@pytest.mark.parametrize("extra", ["Content-Encoding: identity-ish", "Accept-Ranges: none"])
async def test_what_can_not_be_gone_on_with_is_not_kept(opened, extra):
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        server.extra = (extra,)
        await interrupted(transport, server)
        await transport.fetch(job(server.url()))
    assert "range" not in server.requests[1]


async def test_a_range_of_the_users_own_is_left_alone(opened):
    async with range_server(LARGE) as server, opened(RESUMED) as transport:
        response = await transport.fetch(job(server.url(), headers=[("Range", "bytes=1000-")]))
    assert (response.status, response.resumed_at, response.body_size) == (206, None, len(LARGE) - 1000)
    assert server.requests[0]["range"] == "bytes=1000-"


async def test_a_job_of_another_url_does_not_go_on_with_it(opened):
    async with range_server(LARGE, breaks=[MIB]) as server, opened(RESUMED) as transport:
        await interrupted(transport, server)
        response = await transport.fetch(job(server.url("/other")))
    assert "range" not in server.requests[1]
    assert response.resumed_at is None


async def test_without_the_setting_nothing_is_kept(opened):
    async with range_server(LARGE, breaks=[MIB]) as server, opened() as transport:
        await interrupted(transport, server)
        assert files() == []
        response = await transport.fetch(job(server.url()))
    assert response.resumed_at is None


async def test_a_cap_counts_what_was_there_before(opened):
    body = RESUMED | {"max_size": MIB + 500_000}
    async with range_server(LARGE, breaks=[MIB]) as server, opened(body) as transport:
        await interrupted(transport, server)
        error = await failure(transport, job(server.url()))
        assert files() == []
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_a_cap_that_has_come_down_since_then_is_kept_to(opened):
    async with range_server(LARGE, breaks=[MIB]) as server:
        async with opened(RESUMED) as transport:
            await interrupted(transport, server)
        async with opened(RESUMED | {"max_size": 1000, "overflow": "truncate"}) as transport:
            response = await transport.fetch(job(server.url()))
    assert (response.truncated, response.body_size, response.resumed_at) == (True, 1000, None)
    assert Path(response.body_path).read_bytes() == LARGE[:1000]


async def test_a_part_that_nobody_asked_for_is_no_body(opened):
    part = ok(b"part", "Content-Range: bytes 0-3/10").replace(b"200 OK", b"206 Partial Content")
    async with raw_server(saying(part)) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert (error.kind, error.status) == (ErrorKind.BAD_HTTP, 206)


# Checksums


def checksum(algorithm: str, body: bytes) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, body, usedforsecurity=False).hexdigest()}"


@pytest.mark.parametrize("store", ["none", "inline", "file"])
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
async def test_a_checksum_is_verified(opened, store, algorithm):
    body = FILES | {"store": store}
    async with raw_server(saying(ok(LARGE))) as server, opened(body) as transport:
        response = await transport.fetch(job(server.url(), checksum=checksum(algorithm, LARGE)))
        error = await failure(transport, job(server.url(), checksum=checksum(algorithm, b"other")))
        assert response.sha256 == DIGEST
        assert error.kind is ErrorKind.CHECKSUM_MISMATCH
        assert checksum(algorithm, LARGE) in error.message
        assert error.response.body_size == len(LARGE)
        assert (files() if store == "file" else []) == ([DIGEST] if store == "file" else [])


async def test_a_body_with_another_checksum_is_not_kept(opened):
    async with raw_server(saying(ok(LARGE))) as server, opened(RESUMED) as transport:
        await failure(transport, job(server.url(), checksum=checksum("sha1", b"other")))
        assert files() == []


async def test_a_checksum_asks_for_the_body_without_codings(opened):
    async with range_server(LARGE) as server, opened({"store": "none"}) as transport:
        await transport.fetch(job(server.url(), checksum=checksum("sha256", LARGE)))
        await transport.fetch(job(server.url(), headers=[("Accept-Encoding", "br")], checksum=f"sha256:{DIGEST}"))
    assert [request["accept-encoding"] for request in server.requests] == ["identity", "br"]


async def test_an_error_page_is_not_held_to_a_checksum(opened):
    answer = ok(b"gone").replace(b"200 OK", b"404 Not Found")
    async with raw_server(saying(answer)) as server, opened() as transport:
        response = await transport.fetch(job(server.url(), checksum=checksum("md5", LARGE)))
    assert response.status == 404


@pytest.mark.parametrize("store", ["none", "inline", "file"])
async def test_a_304_to_a_condition_of_the_users_own_has_no_body_that_a_checksum_is_of(opened, store):
    answer = b'HTTP/1.1 304 X\r\nETag: "v1"\r\n\r\n'
    async with raw_server(saying(answer)) as server, opened(FILES | {"store": store}, cache=True) as transport:
        own = [("If-None-Match", '"v1"')]
        error = await failure(transport, job(server.url(), headers=own, checksum=checksum("md5", LARGE)))
    assert (error.kind, error.status) == (ErrorKind.CHECKSUM_MISMATCH, 304)


async def test_head_brings_no_body_that_a_checksum_is_of(opened):
    async with raw_server(saying(ok(b"", "X-A: 1"))) as server, opened() as transport:
        error = await failure(transport, job(server.url(), method="HEAD", checksum=checksum("md5", LARGE)))
    assert (error.kind, error.status) == (ErrorKind.CHECKSUM_MISMATCH, 200)


async def test_parts_that_do_not_make_up_the_body_are_thrown_away_and_it_is_tried_again(opened):
    """A server that changes a body under one and the same tag."""
    async with range_server(content(len(LARGE), "b"), breaks=[MIB]) as server, opened(RESUMED) as transport:
        wanted = checksum("md5", LARGE)
        await interrupted(transport, server, checksum=wanted)
        server.body = LARGE
        error = await interrupted(transport, server, checksum=wanted)
        assert "what was resumed is not one body" in error.message
        response = await transport.fetch(job(server.url(), checksum=wanted))
    assert (response.resumed_at, response.sha256) == (None, DIGEST)


# Revalidation


@pytest.mark.parametrize("store", ["none", "inline", "file"])
async def test_what_has_not_changed_is_not_sent_again(opened, store):
    body = FILES | {"store": store}
    async with range_server(LARGE) as server:
        server.extra = ("Content-Type: text/x-test",)
        async with opened(body, cache=True) as transport:
            first = await transport.fetch(job(server.url()))
        async with opened(body, cache=True) as transport:
            second = await transport.fetch(job(server.url()))
    assert server.requests[1]["if-none-match"] == '"v1"'
    assert server.sent == len(LARGE)
    assert (first.status, first.revalidated) == (200, False)
    assert (second.status, second.revalidated, second.wire_size) == (304, True, 0)
    for response in (first, second):
        assert (response.sha256, response.body_size, response.content_type) == (DIGEST, len(LARGE), "text/x-test")
        assert response.body == (LARGE if store == "inline" else None)
        assert response.body_path == (f"bodies/{DIGEST}" if store == "file" else None)


async def test_it_is_known_within_the_same_run(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        await transport.fetch(job(server.url()))
        assert (await transport.fetch(job(server.url()))).revalidated


async def test_what_has_changed_takes_the_place_of_what_was_known(opened):
    other = content(1000, "b")
    async with range_server(LARGE) as server:
        for body, etag in ((LARGE, '"v1"'), (other, '"v2"'), (other, '"v2"')):
            server.body, server.etag = body, etag
            async with opened(cache={"path": "c.db"}) as transport:
                response = await transport.fetch(job(server.url()))
    assert [request.get("if-none-match") for request in server.requests] == [None, '"v1"', '"v2"']
    assert (response.revalidated, response.sha256) == (True, hashlib.sha256(other).hexdigest())


async def test_a_date_will_do(opened):
    async with range_server(LARGE, etag=None) as server, opened(cache=True) as transport:
        server.modified = OLD
        for _ in range(2):
            await transport.fetch(job(server.url()))
    assert server.requests[1]["if-modified-since"] == OLD.lower()


async def test_without_the_file_nothing_is_asked_conditionally(opened):
    async with range_server(LARGE) as server:
        for _ in range(2):
            async with opened(cache=True) as transport:
                response = await transport.fetch(job(server.url()))
                Path(response.body_path).unlink()
    assert "if-none-match" not in server.requests[1]


@pytest.mark.parametrize(
    ("extra", "headers"),
    [
        ("Cache-Control: private, No-Store", []),
        ("Vary: *", []),
        ("Vary: Accept, Cookie", []),
        ("Content-Encoding: unknown", []),
        ("X-A: 1", [("If-Modified-Since", OLD)]),
        ("X-A: 1", [("Cache-Control", "no-store")]),
    ],
)
async def test_what_is_not_remembered(opened, extra, headers):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        server.extra = (extra,)
        for _ in range(2):
            await transport.fetch(job(server.url(), headers=headers))
    assert "if-none-match" not in server.requests[1]


async def test_a_truncated_body_is_not_remembered(opened):
    body = {"store": "inline", "max_size": 1000, "overflow": "truncate"}
    async with range_server(LARGE) as server, opened(body, cache=True) as transport:
        for _ in range(2):
            response = await transport.fetch(job(server.url()))
    assert (response.truncated, response.body_size) == (True, 1000)
    assert "if-none-match" not in server.requests[1]


async def test_conditions_of_the_users_own_are_left_alone(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        await transport.fetch(job(server.url()))
        response = await transport.fetch(job(server.url(), headers=[("If-None-Match", '"v1"')]))
    assert (response.status, response.revalidated, response.sha256) == (304, False, hashlib.sha256(b"").hexdigest())


async def test_a_variant_is_asked_for_by_the_headers_that_it_depends_on(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        server.extra = ("Vary: Accept-Language",)
        for language in ("de", "de", "fr"):
            await transport.fetch(job(server.url(), headers=[("Accept-Language", language)]))
    assert ["if-none-match" in request for request in server.requests] == [False, True, False]


async def test_another_checksum_asks_for_the_body(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        await transport.fetch(job(server.url()))
        known = await transport.fetch(job(server.url(), checksum=f"sha256:{DIGEST}"))
        error = await failure(transport, job(server.url(), checksum=checksum("sha256", b"other")))
    assert known.revalidated
    assert error.kind is ErrorKind.CHECKSUM_MISMATCH


async def test_a_304_that_nobody_asked_for_is_a_failure(opened):
    async with raw_server(saying(b'HTTP/1.1 304 X\r\nETag: "a"\r\n\r\n')) as server, opened(cache=True) as transport:
        error = await failure(transport, job(server.url()))
    assert (error.kind, error.status) == (ErrorKind.HTTP_3XX, 304)


async def test_a_304_about_another_version_is_not_believed(opened):
    async def script(peer):
        while True:
            conditional = b"If-None-Match" in await peer.request()
            await peer.send(b'HTTP/1.1 304 X\r\nETag: "v9"\r\n\r\n' if conditional else ok(LARGE, 'ETag: "v1"'))

    async with raw_server(script) as server, opened(cache=True) as transport:
        for _ in range(2):
            response = await transport.fetch(job(server.url()))
    assert (response.status, response.revalidated, response.sha256) == (200, False, DIGEST)


async def test_a_redirected_url_is_known_by_where_it_leads(opened):
    async with range_server(LARGE) as target:
        redirect = f"HTTP/1.1 302 X\r\nLocation: {target.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw_server(answering(redirect, redirect)) as server, opened(cache=True) as transport:
            for _ in range(2):
                response = await transport.fetch(job(server.url()))
    assert (response.status, response.revalidated, response.final_url) == (304, True, target.url())


@pytest.mark.parametrize("damage", [b"SQLite format 3\0" + b"x" * 5000, b"not a database" * 100])
async def test_a_cache_that_can_not_be_read_stops_the_run(opened, damage):
    Path("c.db").write_bytes(damage)
    with pytest.raises(StateError, match=r"c\.db"):
        async with opened(cache={"path": "c.db"}):
            pass
    assert Path("c.db").read_bytes() == damage


async def test_a_database_of_something_else_is_not_touched(opened):
    with sqlite3.connect("c.db") as db:
        db.execute("CREATE TABLE mine(a)")
    db.close()
    with pytest.raises(StateError, match="not a cache"):
        async with opened(cache={"path": "c.db"}):
            pass


async def test_a_file_that_is_another_body_by_now_is_not_taken_for_it(opened):
    """Two URLs in turn write a file of one name and size."""
    body = FILES | {"path": "bodies/{batch}-{job_id}"}

    async def script(peer):
        while True:
            request = await peer.request()
            path = request.split(b" ")[1]
            whole = ok(b"body of " + path, f'ETag: "{path.decode()}"')
            await peer.send(b"HTTP/1.1 304 X\r\n\r\n" if b"If-None-Match" in request else whole)

    async with raw_server(script) as server, opened(body, cache=True) as transport:
        for path in ("/a", "/b"):
            await transport.fetch(job(server.url(path)))
        again = await transport.fetch(job(server.url("/a"), checksum=checksum("sha256", b"body of /a")))
        assert (again.status, again.revalidated) == (200, False)
        assert Path(again.body_path).read_bytes() == b"body of /a"
        assert again.sha256 == hashlib.sha256(b"body of /a").hexdigest()


async def test_a_file_that_was_damaged_is_fetched_again_and_not_asked_for_by_its_tag_any_more(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        first = await transport.fetch(job(server.url()))
        Path(first.body_path).write_bytes(b"x" * len(LARGE))
        again = await transport.fetch(job(server.url()))
        assert (again.revalidated, Path(again.body_path).read_bytes()) == (False, LARGE)
    assert ["if-none-match" in request for request in server.requests] == [False, True, False]


async def test_what_does_not_fit_is_forgotten_even_if_it_can_not_be_had_again(opened):
    async with range_server(LARGE) as server, opened(cache=True) as transport:
        first = await transport.fetch(job(server.url()))
        Path(first.body_path).write_bytes(b"x" * len(LARGE))
        server.breaks = [1000]
        await failure(transport, job(server.url()))
        await transport.fetch(job(server.url()))
    assert ["if-none-match" in request for request in server.requests] == [False, True, False, False]


async def test_a_checksum_is_not_taken_on_trust_where_no_body_is_kept(opened):
    async with range_server(LARGE) as server, opened({"store": "none"}, cache=True) as transport:
        await transport.fetch(job(server.url()))
        response = await transport.fetch(job(server.url(), checksum=f"sha256:{DIGEST}"))
    assert (response.status, response.revalidated) == (200, False)


async def test_the_hash_of_one_version_never_goes_with_the_body_of_another(opened):
    """While a 304 about the first version is on its way, another job learns the second."""
    asked, answer = asyncio.Event(), asyncio.Event()
    versions = {"body": b"version one", "tag": '"1"'}

    async def script(peer):
        while True:
            request = await peer.request()
            if b"X-Slow" in request and b"If-None-Match" in request:
                asked.set()
                await answer.wait()
                await peer.send(b'HTTP/1.1 304 X\r\nETag: "1"\r\n\r\n')
            else:
                await peer.send(ok(versions["body"], f"ETag: {versions['tag']}"))

    async with raw_server(script) as server, opened({"store": "inline"}, cache=True) as transport:
        await transport.fetch(job(server.url()))
        versions |= {"body": b"VERSION TWO", "tag": '"2"'}
        slow = asyncio.create_task(transport.fetch(job(server.url(), headers=[("X-Slow", "1")])))
        await asked.wait()
        await transport.fetch(job(server.url()))
        answer.set()
        response = await slow
    assert response.body == b"VERSION TWO"
    assert (response.revalidated, response.sha256) == (False, hashlib.sha256(response.body).hexdigest())


# What one may be told is not for another


@pytest.mark.parametrize(
    ("header", "http", "request_"),
    [
        (("Authorization", "Bearer alice"), {}, {}),
        (("COOKIE", "u=alice"), {}, {}),
        (("Proxy-Authorization", "Basic YWxpY2U="), {}, {}),
        (("x-api-key", "alice"), {}, {"secret_headers": ["X-Api-Key"]}),
        (("Host", "alice.test"), {}, {}),
        (None, {"auth": [{"hosts": ["127.*"], "username": "alice", "password": "x", "type": "basic"}]}, {}),
        (None, {"cookies": True}, {}),
    ],
)
async def test_what_was_answered_to_credentials_is_given_to_nobody_else(opened, header, http, request_):
    headers = [] if header is None else [header]
    async with range_server(LARGE) as server:
        for theirs, sections in ((headers, http), ([], {})):
            async with opened(cache=True, request=request_, **sections) as transport:
                response = await transport.fetch(job(server.url(), headers=theirs))
                assert not response.revalidated
    assert not any("if-none-match" in request for request in server.requests)


@pytest.mark.parametrize(
    ("header", "http", "request_"),
    [
        (("Authorization", "Bearer bob"), {}, {}),
        (("Cookie", "u=bob"), {}, {}),
        (("X-Api-Key", "bob"), {}, {"secret_headers": ["X-API-KEY"]}),
        (None, {"auth": [{"hosts": ["*"], "username": "bob", "password": "x", "type": "basic"}]}, {}),
        (None, {"cookies": True}, {}),
    ],
)
async def test_what_was_answered_to_nobody_in_particular_is_not_given_for_credentials(opened, header, http, request_):
    headers = [] if header is None else [header]
    async with range_server(LARGE) as server:
        for theirs, sections in (([], {}), (headers, http)):
            async with opened(cache=True, request=request_, **sections) as transport:
                response = await transport.fetch(job(server.url(), headers=theirs))
    assert (response.status, response.revalidated) == (200, False)
    assert not any("if-none-match" in request for request in server.requests)


async def test_credentials_for_another_host_change_nothing(opened):
    auth = [{"hosts": ["other.test"], "username": "a", "password": "b", "type": "basic"}]
    async with range_server(LARGE) as server, opened(cache=True, auth=auth) as transport:
        for _ in range(2):
            response = await transport.fetch(job(server.url()))
    assert response.revalidated


# Who could be anybody is not believed later


async def _forging(peer):
    """Forge a body under the tag of the real one, and break off where that is asked for."""
    while True:
        request = await peer.request()
        whole = ok(b"FORGED BODY!", 'ETag: "real"')
        if b"X-Break" in request:
            await peer.send(whole[:-6])
            return
        await peer.send(whole)


def _part(body: bytes, start: int) -> bytes:
    where = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
    return ok(body[start:], 'ETag: "real"', where).replace(b"200 OK", b"206 Partial Content")


async def _real(peer):
    while True:
        request = await peer.request()
        if b"If-None-Match" in request:
            await peer.send(b'HTTP/1.1 304 X\r\nETag: "real"\r\n\r\n')
        elif wanted := re.search(rb"Range: bytes=(\d+)-", request):
            await peer.send(_part(REAL, int(wanted[1])))
        else:
            await peer.send(ok(REAL, 'ETag: "real"'))


class Site:
    """One address, at which now an impostor answers and now the origin, whose authority is in ca.pem."""

    def __init__(self, server: RawServer, tls: ssl.SSLContext) -> None:
        self.url = server.url()
        self._tls = tls
        self._origin = trustme.CA()
        self._origin.cert_pem.write_to_path("ca.pem")
        self.becomes_an_impostor()

    def becomes_an_impostor(self) -> None:
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._tls)
        self.script: Script = _forging

    def becomes_the_origin(self, script: Script = _real) -> None:
        self._origin.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.script = script


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with raw_server(lambda peer: serving.script(peer), tls=tls) as server:  # noqa: PLW0108  it changes
        serving = Site(server, tls)
        yield serving


REAL = b"REAL  BODY.."
TLS = {"tls": {"ca_file": "ca.pem"}}
BREAKING = [("X-Break", "1")]


@pytest.mark.parametrize("store", ["inline", "file"])
async def test_what_an_unverified_server_said_is_not_remembered_for_verified_jobs(opened, site, store):
    body = FILES | {"store": store}
    async with opened(body, cache=True, **TLS) as transport:
        first = await transport.fetch(job(site.url, verify=False))
    site.becomes_the_origin()
    async with opened(body, cache=True, **TLS) as transport:
        response = await transport.fetch(job(site.url))
        unverified = await transport.fetch(job(site.url, verify=False))
        again = await transport.fetch(job(site.url))
    assert first.sha256 == hashlib.sha256(b"FORGED BODY!").hexdigest()
    assert (response.revalidated, response.sha256) == (False, hashlib.sha256(REAL).hexdigest())
    assert (unverified.status, unverified.verified) == (200, False)
    assert (again.status, again.verified, again.sha256) == (304, True, response.sha256)


@pytest.mark.parametrize("by", ["job", "batch"])
async def test_what_an_unverified_server_began_is_not_gone_on_with_by_verified_jobs(opened, site, by):
    tls, fields = (TLS, {"verify": False}) if by == "job" else ({"tls": {"verify": False}}, {})
    async with opened(RESUMED, **tls) as transport:
        await failure(transport, job(site.url, headers=BREAKING, **fields))
    assert len(files()) == 2
    site.becomes_the_origin()
    async with opened(RESUMED, **TLS) as transport:
        response = await transport.fetch(job(site.url))
    assert (response.verified, response.resumed_at) == (True, None)
    assert Path(response.body_path).read_bytes() == REAL


async def test_what_is_unverified_never_becomes_a_part_of_what_a_verified_server_began(opened, site):
    async def breaking_off(peer):
        await peer.request()
        await peer.send(ok(REAL, 'ETag: "real"')[:-6])

    async def forging_the_rest(peer):
        asked_for_it = b"Range: bytes=6-" in await peer.request()
        forged = b"FORGED BODY!"
        await peer.send((_part(forged, 6) if asked_for_it else ok(forged, 'ETag: "real"'))[:-3])

    async with opened(RESUMED, **TLS) as transport:
        site.becomes_the_origin(breaking_off)
        await failure(transport, job(site.url))
        site.becomes_an_impostor()
        site.script = forging_the_rest
        await failure(transport, job(site.url, verify=False))
        site.becomes_the_origin()
        response = await transport.fetch(job(site.url))
    assert Path(response.body_path).read_bytes() == REAL


async def test_what_a_client_certificate_was_shown_for_is_not_remembered(opened, site):
    trustme.CA().issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path("client.pem")
    site.becomes_the_origin()
    tls = TLS["tls"] | {"client_cert": "client.pem"}
    async with opened(cache=True, tls=tls) as transport:
        responses = [await transport.fetch(job(site.url)) for _ in range(2)]
    assert [response.revalidated for response in responses] == [False, False]
