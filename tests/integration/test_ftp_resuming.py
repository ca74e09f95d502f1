"""Downloads by FTP that are gone on with where they stopped, and those that must not be."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ftp_script import FtpScript, Session, ftp_script
from range_server import content
from transport_factories import failure, socket_transport

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import make_job

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from fetcher.interfaces import Transport
    from fetcher.model import Job, Response

LARGE = content(1024 * 1024 + 17)
BREAK = 600_000
BODY = {"store": "file", "path": "bodies/{sha256}", "max_size": "64MiB", "range": "resume"}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def opened(**body: Any) -> AbstractAsyncContextManager[Transport]:
    return socket_transport("ftp", body=BODY | body)


def job(server: FtpScript, **fields: Any) -> Job:
    made = make_job("test", server.url())
    for name, value in fields.items():
        setattr(made, name, value)
    return made


async def breaking_once(session: Session, _: str) -> None:
    """Break off in the middle of the first transfer; the others are whole."""
    body, session.start = session.server.body[session.start :], 0
    if session.server.count("RETR") == 1:
        await session.transfer(body[:BREAK], "426 broken off")
    else:
        await session.transfer(body)


def assert_whole(response: Response, body: bytes = LARGE) -> None:
    assert response.sha256 == hashlib.sha256(body).hexdigest()
    assert Path(response.body_path).read_bytes() == body
    assert response.body_size == len(body)


async def test_a_download_goes_on_where_it_stopped():
    async with ftp_script(LARGE, RETR=breaking_once) as server, opened() as transport:
        assert (await failure(transport, job(server))).kind is ErrorKind.BODY_INCOMPLETE
        response = await transport.fetch(job(server))
        assert f"REST {BREAK}" in server.commands
    assert_whole(response)
    assert response.resumed_at == BREAK
    assert response.wire_size == len(LARGE) - BREAK


async def test_it_goes_on_in_a_later_run():
    async with ftp_script(LARGE, RETR=breaking_once) as server:
        async with opened() as transport:
            await failure(transport, job(server))
        async with opened() as transport:
            assert_whole(await transport.fetch(job(server)))
        assert server.count("REST") == 1


@pytest.mark.parametrize("change", ["MDTM", "SIZE"])
async def test_a_file_that_was_changed_begins_anew(change):
    other = content(len(LARGE) + 1, "b") if change == "SIZE" else content(len(LARGE), "b")
    async with ftp_script(LARGE, RETR=breaking_once) as server, opened() as transport:
        await failure(transport, job(server))
        server.body = other
        if change == "MDTM":
            server.answers["MDTM"] = "213 20210102030405"
        response = await transport.fetch(job(server))
        assert not server.count("REST")
    assert_whole(response, other)


async def test_a_file_that_is_changed_while_its_rest_comes_begins_anew():
    async def changing(session: Session, argument: str) -> None:
        await breaking_once(session, argument)
        if server.count("RETR") == 2:
            server.answers["MDTM"] = "213 20210102030405"

    async with ftp_script(LARGE, RETR=changing) as server, opened() as transport:
        await failure(transport, job(server))
        error = await failure(transport, job(server))
        assert error.kind is ErrorKind.BODY_INCOMPLETE
        assert "changed" in error.message
        response = await transport.fetch(job(server))
        assert server.count("REST") == 1
    assert_whole(response)


@pytest.mark.parametrize("mdtm", ["500 unknown", "213 now", "213 20259999999999", "550 no", "recent"])
async def test_without_a_time_that_tells_versions_apart_nothing_is_kept(mdtm):
    if mdtm == "recent":
        mdtm = f"213 {time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
    async with ftp_script(LARGE, RETR=breaking_once, MDTM=mdtm) as server, opened() as transport:
        await failure(transport, job(server))
        response = await transport.fetch(job(server))
        assert not server.count("REST")
    assert_whole(response)


async def test_a_server_that_can_not_go_on_sends_all_of_it():
    async with ftp_script(LARGE, RETR=breaking_once, REST="502 unknown") as server, opened() as transport:
        await failure(transport, job(server))
        response = await transport.fetch(job(server))
        assert server.count("REST") == 1
    assert_whole(response)
    assert response.resumed_at is None


async def test_a_server_that_only_says_that_it_goes_on_is_found_out():
    async with ftp_script(LARGE, RETR=breaking_once, REST="350 go on") as server, opened() as transport:
        await failure(transport, job(server))
        error = await failure(transport, job(server))
        assert error.kind is ErrorKind.BODY_INCOMPLETE
        # What was put together is no beginning of anything.
        server.answers["REST"] = "502 unknown"
        assert_whole(await transport.fetch(job(server)))


async def test_a_checksum_is_that_of_all_of_it():
    right = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
    async with ftp_script(LARGE, RETR=breaking_once) as server, opened() as transport:
        await failure(transport, job(server, checksum=right))
        assert_whole(await transport.fetch(job(server, checksum=right)))
        assert server.count("REST") == 1


async def test_text_is_never_gone_on_with():
    async with ftp_script(LARGE, RETR=breaking_once) as server, opened() as transport:
        wanted = make_job("test", server.url("file;type=a"))
        await failure(transport, wanted)
        assert_whole(await transport.fetch(wanted))
        assert not server.count("SIZE")
        assert not server.count("REST")


async def test_what_is_not_switched_on_is_not_asked_for():
    async with ftp_script(LARGE, RETR=breaking_once) as server, opened(range="none") as transport:
        await failure(transport, job(server))
        assert_whole(await transport.fetch(job(server)))
        assert not server.count("MDTM")
        assert not server.count("REST")
