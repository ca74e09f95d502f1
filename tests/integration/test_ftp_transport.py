"""ftp and ftps against a real server: files, listings, logins, TLS, and connections that are used again."""

# ruff: noqa: ASYNC240  the files of a test are small and near

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import write_authority
from OpenSSL import SSL
from servers.ftp import COMMANDS, PASSWORD, USER, FtpServer, ftp_server
from transport_factories import failure, socket_transport

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import make_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.model import Job


BOTH_LOOPS = True


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


async def test_an_empty_file_is_a_file(server):
    server.write("empty", b"")
    async with socket_transport("ftp") as transport:
        response = await transport.fetch(job(server.url("empty")))
    assert (response.body, response.body_size, response.content_length) == (b"", 0, 0)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a b.txt", "a%20b.txt"),
        ("gr\u00fc\u00dfe/\u00e4.txt", "gr\u00fc\u00dfe/\u00e4.txt"),
        ("what?x=1", "what?x=1"),
        ("100%.txt", "100%25.txt"),
        ("-la", "-la"),
        ("plain", "%2Fplain"),
        ("plain", "/plain"),
        ("text", "text;type=i"),
    ],
)
async def test_names_are_taken_from_the_url(server, name, path):
    server.write(name, b"found")
    async with socket_transport("ftp") as transport:
        assert (await transport.fetch(job(server.url(path)))).body == b"found"


async def test_lines_of_text_may_be_asked_for(server):
    server.write("lines", b"one\ntwo\n")
    async with socket_transport("ftp") as transport:
        response = await transport.fetch(job(server.url("lines;type=a")))
    assert response.body == b"one\r\ntwo\r\n"
    assert response.content_length is None


@pytest.mark.parametrize("path", ["pub/", "pub/;type=d", "pub;type=d", "%2Fpub/"])
async def test_a_folder_is_listed(server, path):
    server.write("pub/one.txt", b"1")
    server.write("pub/gr\u00fc\u00dfe", b"12345")
    server.write("pub/sub/two", b"")
    async with socket_transport("ftp") as transport:
        response = await transport.fetch(job(server.url(path)))
    assert (response.method, response.content_type) == ("LIST", "application/json")
    entries = {entry["name"]: entry for entry in json.loads(response.body)}
    assert {name: (entry["type"], entry["size"]) for name, entry in entries.items()} == {
        "one.txt": ("file", 1),
        "gr\u00fc\u00dfe": ("file", 5),
        "sub": ("dir", None),
    }
    assert entries["one.txt"]["modify"].endswith("Z")
    assert response.wire_size
    assert response.body_size == len(response.body)


async def test_the_folder_of_a_login_and_the_root_are_listed(server):
    server.write("one.txt", b"1")
    async with socket_transport("ftp") as transport:
        for path in ("", "/", "%2F"):
            response = await transport.fetch(job(server.url(path)))
            assert [entry["name"] for entry in json.loads(response.body)] == ["one.txt"]


async def test_an_empty_folder_has_no_entries(server):
    (server.folder / "void").mkdir()
    async with socket_transport("ftp") as transport:
        assert json.loads((await transport.fetch(job(server.url("void/")))).body) == []


async def test_a_server_without_mlsd_is_asked_for_a_list(folder):
    commands = {key: value for key, value in COMMANDS.items() if key not in {"MLSD", "EPSV"}}
    with ftp_server(folder, proto_cmds=commands) as server:
        server.write("pub/one two.txt", b"123")
        server.write("pub/sub/x", b"")
        (folder / "pub" / "link").symlink_to("sub")
        async with socket_transport("ftp") as transport:
            for _ in range(2):
                response = await transport.fetch(job(server.url("pub/")))
    entries = {entry["name"]: (entry["type"], entry["size"]) for entry in json.loads(response.body)}
    assert entries["one two.txt"] == ("file", 3)
    assert entries["sub"] == ("dir", None)
    assert set(entries) == {"one two.txt", "sub", "link"}
    # What it does not know is asked for once.
    assert (server.count("MLSD"), server.count("EPSV"), server.count("LIST")) == (1, 1, 2)


async def test_what_is_not_there_is_refused_and_the_connection_goes_on(server):
    server.write("there", b"yes")
    async with socket_transport("ftp") as transport:
        error = await failure(transport, job(server.url("missing")))
        assert (await transport.fetch(job(server.url("there")))).body == b"yes"
    assert error.kind is ErrorKind.FTP_5XX
    assert "550" in error.message
    assert server.connections == 1


async def test_one_login_does_for_many_files(server):
    for number in range(100):
        server.write(f"{number}", str(number).encode())
    async with socket_transport("ftp") as transport:
        for number in range(100):
            assert (await transport.fetch(job(server.url(str(number))))).body == str(number).encode()
    assert server.logins == [("anonymous", True)]
    assert server.connections == 1
    assert server.count("TYPE") == 1


async def test_many_at_once_use_no_more_connections_than_there_are_of_them(server):
    server.write("file", b"x")
    async with socket_transport("ftp") as transport:
        for _ in range(5):
            await asyncio.gather(*(transport.fetch(job(server.url("file"))) for _ in range(10)))
    assert server.connections == 10


async def test_a_user_of_the_url_logs_in_and_shares_no_connection(server):
    server.write("file", b"x")
    async with socket_transport("ftp") as transport:
        wanted = job(server.url("file", user=f"{USER}:{PASSWORD}"))
        assert PASSWORD not in wanted.url
        response = await transport.fetch(wanted)
        await transport.fetch(job(server.url("file")))
        await transport.fetch(job(server.url("file", user=f"{USER}:{PASSWORD}")))
    assert PASSWORD not in response.final_url
    assert server.logins == [(USER, True), ("anonymous", True)]


async def test_the_logins_of_the_config_are_for_their_hosts(server):
    server.write("file", b"x")
    logins = [
        {"hosts": ["other.test", "127.0.0.1:1"], "username": "nobody", "password": "wrong"},
        {"hosts": ["127.0.0.*"], "username": USER, "password": PASSWORD},
    ]
    http = {"resolve": {"anonymous.test": "127.0.0.1"}}
    async with socket_transport("ftp", http=http, logins=logins) as transport:
        await transport.fetch(job(server.url("file")))
        await transport.fetch(job(server.url("file", host="anonymous.test")))
    assert server.logins == [(USER, True), ("anonymous", True)]


async def test_a_refused_login_is_tried_once_whatever_the_number_of_jobs(server):
    server.write("file", b"x")
    async with socket_transport("ftp") as transport:
        wanted = [job(server.url("file", user=f"{USER}:guess")) for _ in range(20)]
        errors = await asyncio.gather(*(failure(transport, one) for one in wanted))
        errors.append(await failure(transport, wanted[0]))
        assert (await transport.fetch(job(server.url("file")))).body == b"x"
    assert {error.kind for error in errors} == {ErrorKind.AUTH_FAILED}
    assert [login for login in server.logins if login[0] == USER] == [(USER, False)]
    assert all("guess" not in error.message and USER not in error.message for error in errors)


async def test_an_idle_connection_is_closed_in_time(server):
    server.write("file", b"x")
    async with socket_transport("ftp", http={"keep_alive": 0.05}) as transport:
        await transport.fetch(job(server.url("file")))
        await asyncio.sleep(0.3)
        await transport.fetch(job(server.url("file")))
    assert server.connections == 2


async def test_a_connection_that_the_server_has_closed_is_replaced_at_once(folder):
    with ftp_server(folder, timeout=0.2) as server:
        server.write("file", b"x")
        async with socket_transport("ftp") as transport:
            await transport.fetch(job(server.url("file")))
            await asyncio.sleep(0.5)
            assert (await transport.fetch(job(server.url("file")))).body == b"x"
        assert server.connections == 2


async def test_over_ipv6(folder):
    with ftp_server(folder, host="::1") as server:
        server.write("file", b"six")
        async with socket_transport("ftp") as transport:
            response = await transport.fetch(job(server.url("file")))
    assert (response.body, response.remote_ip) == (b"six", "::1")


async def test_behind_a_nat_the_address_of_pasv_is_not_believed(folder):
    commands = {key: value for key, value in COMMANDS.items() if key != "EPSV"}
    with ftp_server(folder, proto_cmds=commands, masquerade_address="192.0.2.1") as server:
        server.write("file", b"x")
        async with socket_transport("ftp") as transport:
            assert (await transport.fetch(job(server.url("file")))).body == b"x"
    assert server.count("PASV") == 1


# Bodies


async def test_a_file_becomes_a_file(server, tmp_path):
    server.write("file", b"x" * 500_000)
    body = {"store": "file", "path": str(tmp_path / "out" / "{sha256}")}
    async with socket_transport("ftp", body=body) as transport:
        response = await transport.fetch(job(server.url("file")))
    assert Path(response.body_path).read_bytes() == b"x" * 500_000


async def test_a_checksum_is_checked(server):
    server.write("file", b"x")
    right = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    async with socket_transport("ftp") as transport:
        assert (await transport.fetch(job(server.url("file"), checksum=right))).body == b"x"
        error = await failure(transport, job(server.url("file"), checksum=right[:-1] + "0"))
    assert error.kind is ErrorKind.CHECKSUM_MISMATCH


async def test_after_a_truncated_transfer_the_connection_is_not_used_again(server):
    server.write("file", b"x" * 3_000_000)
    async with socket_transport("ftp", body={"max_size": 1000, "overflow": "truncate"}) as transport:
        for _ in range(2):
            response = await transport.fetch(job(server.url("file")))
            assert (response.truncated, response.body_size, response.content_length) == (True, 1000, 3_000_000)
    assert server.connections == 2


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    return {"tls": {"ca_file": write_authority(authority, tmp_path)}, "resolve": {"good.test": "127.0.0.1"}}


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_tls_on_both_connections(folder, tmp_path, authority, version):
    with ftp_server(folder, certificate=authority.issue_cert("good.test")) as server:
        server.tls_context.set_max_proto_version(version)
        server.write("file", b"x" * 300_000)
        server.write("pub/one", b"1")
        async with socket_transport("ftp", http=trusting(authority, tmp_path)) as transport:
            for _ in range(3):
                response = await transport.fetch(job(server.url("file", scheme="ftps", host="good.test")))
                assert response.body == b"x" * 300_000
            listing = await transport.fetch(job(server.url("pub/", scheme="ftps", host="good.test")))
    assert response.verified
    assert [entry["name"] for entry in json.loads(listing.body)] == ["one"]
    assert server.connections == 1
    assert server.commands.index("AUTH") < server.commands.index("USER") < server.commands.index("PROT")


async def test_without_verification_the_record_says_so(folder, authority):
    with ftp_server(folder, certificate=authority.issue_cert("good.test")) as server:
        server.write("file", b"x")
        async with socket_transport("ftp") as transport:
            response = await transport.fetch(job(server.url("file", scheme="ftps"), verify=False))
            error = await failure(transport, job(server.url("file", scheme="ftps")))
    assert (response.body, response.verified) == (b"x", False)
    assert error.kind is ErrorKind.TLS_UNTRUSTED
    # The password of nobody was given to whoever that was.
    assert server.count("USER") == 1
