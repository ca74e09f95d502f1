"""Listings in forms that a real server at hand does not have, and in pieces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ftp_script import Session, ftp_script
from transport_factories import failure, socket_transport

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import make_job

if TYPE_CHECKING:
    from fetcher.model import Response

UNIX = b"total 2\r\n-rw-r--r-- 1 a b 5 Jan  2 12:00 one\r\ndrwxr-xr-x 2 a b 1 Jan  2 12:00 sub\r\n"


async def listed(body: bytes, *, command: str = "LIST", **sections: Any) -> Response:
    async with (
        ftp_script(**{command: lambda session, _: session.transfer(body)}) as server,
        socket_transport("ftp", **sections) as transport,
    ):
        return await transport.fetch(make_job("1", server.url("pub/")))


async def test_lines_that_nobody_reads_are_left_as_they_are():
    lines = b"+i8388621.29609,m824255902,/,\tdev\r\n+i8388621.44468,m839956783,r,s10376,\tRFCEPLF\r\n"
    response = await listed(lines)
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.body == lines.replace(b"\r\n", b"\n")
    assert response.wire_size == len(lines)


async def test_a_line_among_others_that_nobody_reads_is_an_entry_of_its_own():
    response = await listed(UNIX + b"what is this\r\n")
    entries = json.loads(response.body)
    assert [entry.get("name") for entry in entries] == ["one", "sub", None]
    assert entries[2] == {"line": "what is this"}


@pytest.mark.parametrize("body", [b"", b"total 0\r\n"])
async def test_nothing_is_an_empty_listing(body):
    response = await listed(body)
    assert (json.loads(response.body), response.content_type) == ([], "application/json")


async def test_a_listing_may_come_byte_by_byte():
    async def slowly(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        for byte in b"type=file; gr\xc3\xbc\r\ntype=dir; b":
            await data.send(bytes([byte]))
        session.close_data()
        await session.say("226 done")

    async with ftp_script(MLSD=slowly) as server, socket_transport("ftp") as transport:
        response = await transport.fetch(make_job("1", server.url("pub/")))
    assert [entry["name"] for entry in json.loads(response.body)] == ["gr\u00fc", "b"]


async def test_what_is_no_mlsd_is_no_listing():
    async with (
        ftp_script(MLSD=lambda session, _: session.transfer(UNIX)) as server,
        socket_transport("ftp") as transport,
    ):
        error = await failure(transport, make_job("1", server.url("pub/")))
    assert error.kind is ErrorKind.BAD_ANSWER


async def test_a_server_that_knows_no_listing_says_so():
    async with ftp_script(LIST="502 unknown") as server, socket_transport("ftp") as transport:
        for _ in range(2):
            error = await failure(transport, make_job("1", server.url("pub/")))
            assert error.kind is ErrorKind.FTP_5XX


async def test_a_folder_that_may_not_be_read_is_refused_and_the_connection_goes_on():
    async with ftp_script(MLSD="550 not yours") as server, socket_transport("ftp") as transport:
        error = await failure(transport, make_job("1", server.url("pub/")))
        assert (await transport.fetch(make_job("1", server.url("file")))).body == b"hello"
        assert server.sessions == 1
    assert error.kind is ErrorKind.FTP_5XX


async def test_who_is_logged_out_logs_in_again():
    async def once(session: Session, argument: str) -> None:
        await session.say("530 log in first") if server.sessions == 1 else await session.do_retr(argument)

    async with ftp_script(RETR=once) as server, socket_transport("ftp") as transport:
        assert (await failure(transport, make_job("1", server.url()))).kind is ErrorKind.AUTH_FAILED
        assert (await transport.fetch(make_job("1", server.url()))).body == b"hello"
        assert server.sessions == 2
