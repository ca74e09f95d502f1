"""Bodies that never end or are too long, and names that lead out of their folder. Rows F55, F56 and F103."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import ok, raw_server, saying
from transport_factories import HTTP_TRANSPORTS, job

from fetcher.errors import ErrorKind, FetchError
from fetcher.naming import Named, NameTemplate

if TYPE_CHECKING:
    from raw_server import Peer

CAP = 300_000
STORES = ("none", "inline", "file")
BODY = b"x" * (CAP + 1)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * 10_000
EVIL = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\0b",
    "a/../../b",
    "..\\..\\windows",
    "C:\\x",
    "con",
    "NUL.txt",
    "aux.",
    "x" * 5000,
    "\u202egpj.exe",
    "\u00e9",
    "e\u0301",
    "A",
    "a",
    "a ",
    "-rf",
    ".partial",
    "~",
    "\ud800",
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=HTTP_TRANSPORTS)
def opened(request):
    def make(store: str, **body: Any):
        path = {"path": "bodies/{sha256}"} if store == "file" else {}
        return HTTP_TRANSPORTS[request.param](body={"store": store, "max_size": CAP, **path, **body})

    return make


def files() -> list[Path]:
    return [path for path in Path().rglob("*") if path.is_file()]


def kept(response) -> bytes | None:
    return Path(response.body_path).read_bytes() if response.body_path else response.body


def endless(sent: list[int], gone: asyncio.Event):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        try:
            while True:
                await peer.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
                sent.append(len(PIECE))
        finally:
            gone.set()

    return script


@pytest.mark.parametrize("store", STORES)
async def test_f55_an_endless_stream_stops_at_the_byte_cap(opened, store):
    sent: list[int] = []
    gone = asyncio.Event()
    async with raw_server(endless(sent, gone)) as server, opened(store) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url()))
        await gone.wait()
    assert caught.value.kind is ErrorKind.BODY_TOO_LARGE
    assert CAP < caught.value.response.wire_size < CAP + 1_000_000
    assert caught.value.response.body_size <= CAP
    assert files() == []


@pytest.mark.parametrize("store", STORES)
async def test_f55_an_endless_stream_is_truncated_if_that_is_wanted(opened, store):
    sent: list[int] = []
    gone = asyncio.Event()
    async with raw_server(endless(sent, gone)) as server, opened(store, overflow="truncate") as transport:
        response = await transport.fetch(job(server.url()))
        await gone.wait()
        assert kept(response) == (None if store == "none" else b"x" * CAP)
    assert (response.truncated, response.body_size) == (True, CAP)
    assert response.sha256 == hashlib.sha256(b"x" * CAP).hexdigest()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("coding", [None, "gzip"])
async def test_f56_a_body_over_the_cap_fails_by_policy(opened, store, coding):
    answer = ok(BODY) if coding is None else ok(gzip.compress(BODY), "Content-Encoding: gzip")
    async with raw_server(saying(answer)) as server, opened(store) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url()))
    assert (caught.value.kind, caught.value.status) == (ErrorKind.BODY_TOO_LARGE, 200)
    assert f"body.max_size ({CAP} bytes)" in caught.value.message
    assert caught.value.response.body is caught.value.response.body_path is None
    assert files() == []


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize("size", [CAP - 1, CAP, CAP + 1, CAP * 3])
async def test_f56_or_is_truncated_with_true_byte_counts(opened, store, coding, size):
    body = b"x" * size
    wire = body if coding is None else gzip.compress(body)
    answer = ok(wire) if coding is None else ok(wire, "Content-Encoding: gzip")
    async with raw_server(saying(answer)) as server, opened(store, overflow="truncate") as transport:
        response = await transport.fetch(job(server.url()))
        assert kept(response) == (None if store == "none" else body[:CAP])
    assert (response.truncated, response.body_size) == (size > CAP, min(size, CAP))
    assert response.content_length == len(wire)
    assert response.wire_size == len(wire) if size <= CAP else CAP // 1000 < response.wire_size <= len(wire)
    assert response.sha256 == hashlib.sha256(body[:CAP]).hexdigest()


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize(
    "template",
    [
        "out/{host}/{path}/{sha256}{ext}",
        "out/{batch}/{job_id}{ext}",
        "out/{job_id}/{ext}",
        "out/{ext}{path:3}/{sha256}",
    ],
)
def test_f103_no_name_leads_out_of_its_folder(evil, template, tmp_path):
    named = Named(evil, evil, f"http://{evil}/{evil}", f"{evil}/{evil}", "ab" * 32)
    path = NameTemplate(template).render(named)
    parts = path.split("/")
    assert parts[0] == "out"
    assert len(parts) == template.count("/") + 1
    for part in parts[1:]:
        assert part.isascii()
        assert part.isprintable()
        assert 0 < len(part) <= 255
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert not set(part) & set('/\\:*?"<>|')
        assert part.partition(".")[0].lower() not in {"con", "nul", "aux", "prn"}
    Path(path).parent.mkdir(parents=True)
    Path(path).write_bytes(b"")
    assert Path(path).resolve().is_relative_to(tmp_path / "out")


def test_f103_other_jobs_have_other_names_on_every_file_system():
    template = NameTemplate("out/b/{job_id}")
    names = [template.render(Named(evil, "h", "http://h/", None, "ab" * 32)).lower() for evil in EVIL]
    assert len(set(names)) == len(EVIL)


async def test_f103_a_server_does_not_choose_where_its_body_goes(opened, tmp_path):
    async with (
        raw_server(saying(ok(b"x", "Content-Type: ../../text/html", "Content-Disposition: attachment"))) as server,
        opened("file", path="bodies/{host}/{path}{ext}-{sha256}") as transport,
    ):
        asked = job(server.url("/../../%2e%2e/..%2f..%2fetc/passwd"))
        response = await transport.fetch(asked)
        assert [path.resolve() for path in files()] == [(tmp_path / response.body_path)]
    assert response.body_path.startswith("bodies/127.0.0.1/_")
    assert response.body_path.count("/") == 2
