"""ftp and ftps against a real server: files, listings, logins, TLS, and connections that are used again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import uvloop
from certificates import write_authority
from servers.ftp import PASSWORD, USER, FtpServer, ftp_server
from transport_factories import failure, socket_transport

from fetcher.errors import ErrorKind
from fetcher.intake import make_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fetcher.model import Job


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def job(url: str, **fields: Any) -> Job:
    made = make_job("test", url)
    assert made.rejected is None, made.rejected
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    root.mkdir()
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[FtpServer]:
    with ftp_server(folder) as running:
        yield running


async def test_a_file_is_fetched_whole(server):
    body = os.urandom(300_000)
    server.write("pub/file.bin", body)
    async with socket_transport("ftp") as transport:
        response = await transport.fetch(job(server.url("pub/file.bin")))
    assert response.body == body
    assert (response.status, response.method, response.content_length) == (None, "RETR", len(body))
    assert (response.body_size, response.wire_size, response.truncated) == (len(body), len(body), False)
    assert response.sha256 == hashlib.sha256(body).hexdigest()
    assert (response.remote_ip, response.final_url) == ("127.0.0.1", server.url("pub/file.bin"))
    assert response.timings.connect is not None
    assert response.timings.first_byte is not None
