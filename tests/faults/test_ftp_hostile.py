"""ftp and ftps with servers, and people on the way, that say more, less or something else than they were asked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import serving, write_authority
from ftp_script import Session, ftp_script, start_tls
from raw_server import unused_port
from transport_factories import failure, socket_transport

from fetcher.engine.retry import Attempt, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fetcher.model import Job

BOTH_LOOPS = True
PASSWORD = "hunter2-SECRET"
EVIL = b"type=file;size=6; evil\r\n"
STORED = {"store": "file", "path": "bodies/{sha256}", "range": "resume"}


def job(url: str, **fields: Any) -> Job:
    made = make_job("test", url)
    assert made.rejected is None, made.rejected
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def opened(**sections: Any) -> Any:
    return socket_transport("ftp", **sections)


def retried(error: FetchError) -> bool:
    attempt = Attempt(number=1, age=0.0, method="RETR", kind=error.kind, sent=error.sent)
    return decide(RetrySettings(), attempt, lambda: 0.5) is not None


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA, tmp_path: Path, monkeypatch) -> tuple[Any, dict[str, Any]]:
    """Return a TLS context for a server, and the section ``http`` that trusts it."""
    monkeypatch.chdir(tmp_path)
    return serving(authority.issue_cert("127.0.0.1")), {"tls": {"ca_file": write_authority(authority, tmp_path)}}


# F13: connections that are kept


@pytest.mark.parametrize("half", [b"226 ", b"226-more\r\n", b"2", b"\r"])
async def test_f13_half_a_reply_on_an_idle_connection_is_not_the_beginning_of_the_next(half):
    sessions: list[Session] = []

    async def cutting(session: Session, argument: str) -> None:
        sessions.append(session)
        # SIZE, believed, tells that the second transfer is not whole.
        await session.transfer(b"hello" if len(sessions) == 1 else b"he")

    async with ftp_script(RETR=cutting) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).body == b"hello"
        await sessions[0].peer.send(half)
        await asyncio.sleep(0.01)  # let it cross the loopback
        error = await failure(transport, job(server.url()))
        assert server.sessions == 2
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert "2 of 5" in error.message


# F17: what is not said by TLS


def in_the_clear(before: bytes, body: bytes) -> Any:
    """Say something on the data connection as soon as it is there, and all else as it should be."""

    async def answer(session: Session, _: str) -> None:
        assert session._data is not None
        data = await session._data
        await data.send(before)
        await asyncio.sleep(0.02)  # let it cross the loopback
        await session.say("150 here it comes")
        await start_tls(data, session.server.tls)
        await data.send(body)
        session.close_data()
        await session.say("226 done")

    return answer


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("pub/", {"MLSD": in_the_clear(EVIL, b"type=file;size=5; good\r\n")}),
        ("file", {"RETR": in_the_clear(b"e", b"genuine"), "SIZE": "502 unknown"}),
        ("file", {"RETR": in_the_clear(b"hello", b"")}),
    ],
    ids=["listing", "file", "all of it"],
)
async def test_f17_data_that_come_before_tls_are_none(secured, path, answers):
    tls, http = secured
    async with ftp_script(tls=tls, **answers) as server, opened(http=http) as transport:
        error = await failure(transport, job(server.url(path, scheme="ftps")))
    assert error.kind is ErrorKind.TLS_PROTOCOL
    assert not retried(error)


async def test_f17_data_that_come_before_tls_are_not_gone_on_with(secured):
    tls, http = secured
    body = b"genuine" * 10_000
    injecting = in_the_clear(b"evil", body)

    async def once(session: Session, argument: str) -> None:
        if server.count("RETR") == 1:
            await injecting(session, argument)
        else:
            await session.do_retr(argument)

    async with ftp_script(body, tls=tls, RETR=once) as server, opened(http=http, body=STORED) as transport:
        assert (await failure(transport, job(server.url(scheme="ftps")))).kind is ErrorKind.TLS_PROTOCOL
        response = await transport.fetch(job(server.url(scheme="ftps")))
        assert not server.count("REST")
    assert response.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("closing", [True, False])
async def test_f17_a_server_that_sends_data_without_tls_says_so(secured, closing):
    tls, http = secured

    async def plainly(session: Session, _: str) -> None:
        assert session._data is not None
        data = await session._data
        await data.send(b"hello")
        if closing:
            session.close_data()
        await asyncio.sleep(0.02)
        await session.say("150 here it comes")
        await session.say("226 done")

    async with ftp_script(tls=tls, RETR=plainly) as server, opened(http=http) as transport:
        error = await failure(transport, job(server.url(scheme="ftps")))
    assert error.kind is ErrorKind.TLS_PROTOCOL


@pytest.mark.parametrize("half", [b"230 ", b"530 ", b"230-x\r\n", b"230 in already\r\n", b"2"])
async def test_f17_no_byte_from_before_tls_becomes_part_of_a_reply(secured, half):
    tls, http = secured

    async def injecting(session: Session, _: str) -> None:
        session.peer._writer.write(b"234 begin\r\n" + half)
        await session.begin_tls()

    async with ftp_script(tls=tls, AUTH=injecting) as server, opened(http=http) as transport:
        wanted = job(server.url(scheme="ftps", user=f"me:{PASSWORD}").replace(f"me:{PASSWORD}@", ""))
        error = await failure(transport, wanted)
        assert not server.count("USER")
        # It was no answer to the login, so that is not remembered either.
        server.answers.pop("AUTH")
        assert (await transport.fetch(wanted)).body == b"hello"
    assert error.kind is ErrorKind.TLS_PROTOCOL


# F20: what is whole, and of one file


async def test_f20_the_rest_of_another_version_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = b"1" * 400_000, b"2" * 400_000
    old, new = "213 20200102030405", "213 20200102030409"

    async def changing(session: Session, _: str) -> None:
        start, session.start = session.start, 0
        match server.count("RETR"):
            case 1:
                await session.transfer(first[start:200_000], "426 broken off")
            case 2:
                server.answers["MDTM"] = new
                await session.transfer(second[start:])
            case _:
                await session.transfer(first[start:])

    async with ftp_script(first, MDTM=old, RETR=changing) as server, opened(body=STORED) as transport:
        await failure(transport, job(server.url()))
        error = await failure(transport, job(server.url()))
        assert (error.kind, server.commands.count("REST 200000")) == (ErrorKind.BODY_INCOMPLETE, 1)
        server.answers["MDTM"] = old
        response = await transport.fetch(job(server.url()))
        assert server.count("REST") == 1
    assert response.sha256 == hashlib.sha256(first).hexdigest()
    assert retried(error)


@pytest.mark.parametrize("last", ["226 done", "426 broken off"])
async def test_f20_a_server_that_ignores_where_to_begin_spoils_nothing(tmp_path, monkeypatch, last):
    monkeypatch.chdir(tmp_path)
    body = os.urandom(400_000)

    async def ignoring(session: Session, _: str) -> None:
        session.start = 0
        match server.count("RETR"):
            case 1:
                await session.transfer(body[:200_000], "426 broken off")
            case 2:
                await session.transfer(body, last)
            case _:
                await session.transfer(body)

    async with ftp_script(body, RETR=ignoring) as server, opened(body=STORED) as transport:
        await failure(transport, job(server.url()))
        error = await failure(transport, job(server.url()))
        response = await transport.fetch(job(server.url()))
        assert server.count("REST") == 1
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert response.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("name", "said", "kind"),
    [
        ("x (10 bytes).txt", "for x (10 bytes).txt (5 bytes).", None),
        ("x (10 bytes).txt", "for x (10 bytes).txt (6 bytes).", ErrorKind.BODY_INCOMPLETE),
        ("x (10 bytes)", "for x (10 bytes)", None),
        ("x (10 bytes)", "for x (10 bytes) (5 bytes)", None),
    ],
)
async def test_f20_the_name_of_a_file_does_not_say_how_long_it_is(name, said, kind):
    async def announcing(session: Session, _: str) -> None:
        await session.say(f"150 Opening BINARY mode data connection {said}")
        await (await session.data()).send(b"hello")
        session.close_data()
        await session.say("226 done")

    async with ftp_script(SIZE="550 no", RETR=announcing) as server, opened() as transport:
        wanted = job(server.url(name.replace(" ", "%20")))
        if kind is None:
            assert (await transport.fetch(wanted)).body == b"hello"
        else:
            assert (await failure(transport, wanted)).kind is kind


# F7, F88: connections


async def test_f07_a_refused_data_connection_names_its_own_port():
    port = unused_port()
    async with ftp_script(EPSV=f"229 come (|||{port}|)") as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert str(port) in error.message
    assert str(server.port) not in error.message


@contextmanager
def no_files_left() -> Iterator[None]:
    """Take every file that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))  # noqa: PTH208  of integers
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        while True:
            try:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield


async def test_f88_idle_connections_of_ftp_give_their_files_up():
    # In a real house the server has files of its own; here it shares ours, and so do the connections it accepts.
    async with ftp_script() as server, opened(http={"keep_alive": "60s"}) as transport:
        for number in range(12):
            made = make_job("test", server.url(user=f"user{number}:x"))
            await transport.fetch(made)
        assert len(transport._means.pool) == 12
        with no_files_left():
            response = await transport.fetch(job(server.url()))
        assert len(transport._means.pool) < 12
    assert response.body == b"hello"


async def test_f88_a_transport_that_is_closed_is_not_asked_for_files():
    async with opened() as transport:
        connector = transport._session.connector
        assert len(connector._keepers) == 1
        await transport.close()
        assert not connector._keepers
        connector.make_room()


# F59, F60, F64: servers that are full or slow


async def test_f59_waiting_for_the_login_of_another_job_takes_no_time_of_the_request():
    async def slow(session: Session, _: str) -> None:
        await asyncio.sleep(0.2)
        await session.say("331 go on" if session.server.commands[-1].startswith("USER") else "230 in")

    async with ftp_script(USER=slow, PASS=slow) as server:
        request = {"timeout": {"read": 0.35, "total": 0.7}}
        async with opened(request=request) as transport:
            wanted = [make_job("test", server.url(user="me:x")) for _ in range(6)]
            responses = await asyncio.gather(*(transport.fetch(one) for one in wanted))
    assert [response.body for response in responses] == [b"hello"] * 6


async def test_f59_nobody_connects_before_it_is_their_turn_to_log_in():
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def waiting(session: Session, _: str) -> None:
        begun.set()
        await going_on.wait()
        await session.say("230 in")

    async with ftp_script(PASS=waiting) as server, opened() as transport:
        tasks = [asyncio.create_task(transport.fetch(make_job("test", server.url(user="me:x")))) for _ in range(5)]
        await begun.wait()
        await asyncio.sleep(0.02)  # for whoever would connect
        assert server.sessions == 1
        going_on.set()
        assert [response.body for response in await asyncio.gather(*tasks)] == [b"hello"] * 5


FULL = [
    "530 Sorry, the maximum number of clients (5) for this user already connected.",
    "530 too many users",
    "530 Sorry, max 50 users -- try again later",
    "530 connection limit reached",
    "530 the server is busy",
]


@pytest.mark.parametrize("user", ["", "me:secret"], ids=["anonymous", "account"])
@pytest.mark.parametrize("where", ["banner", "PASS"])
@pytest.mark.parametrize("reply", FULL)
async def test_f60_a_server_that_is_full_at_the_first_login_is_tried_again(reply, where, user):
    async with ftp_script(**{where: reply}) as server, opened() as transport:
        wanted = make_job("test", server.url(user=user))
        error = await failure(transport, wanted)
        if where == "banner":
            server.banner = "220 ready"
        else:
            server.answers["PASS"] = "230 in"
        assert (await transport.fetch(wanted)).body == b"hello"
    assert error.kind is ErrorKind.FTP_4XX
    assert retried(error)


async def test_f60_a_refusal_of_anonymous_is_not_remembered():
    async with ftp_script(PASS="530 not now") as server, opened() as transport:
        assert (await failure(transport, job(server.url()))).kind is ErrorKind.AUTH_FAILED
        server.answers["PASS"] = "230 in"
        assert (await transport.fetch(job(server.url()))).body == b"hello"


@pytest.mark.parametrize(
    "reply", ["530 Login incorrect, please try again", "530 too many failed attempts", "530 maximum attempts reached"]
)
async def test_f64_an_account_that_is_about_to_be_locked_is_left_alone(reply):
    async with ftp_script(PASS=reply) as server, opened() as transport:
        wanted = make_job("test", server.url(user="me:secret"))
        assert [(await failure(transport, wanted)).kind for _ in range(2)] == [ErrorKind.AUTH_FAILED] * 2
        assert server.count("PASS") == 1


# F100, F102: what is said back


@pytest.mark.parametrize("user", [f"bob-the-user:{PASSWORD}", f"me:{PASSWORD}"])
@pytest.mark.parametrize("begins", ["? ", "x" * 90])
async def test_f69_a_server_that_repeats_what_it_was_told_gives_no_password_away(user, begins):
    async def echoing(session: Session, _: str) -> None:
        line = session.server.commands[-1]
        # As the server in whose hand a user was first: the name, and then the password, too.
        await session.peer.send(f"{begins}{line}\r\n".encode())

    for command in ("USER", "PASS"):
        async with ftp_script(**{command: echoing}) as server, opened() as transport:
            error = await failure(transport, make_job("test", server.url(user=user)))
        assert error.kind is ErrorKind.BAD_ANSWER
        assert not any(part in error.message for part in ("hunter2", "SECRET", "bob-the"))


@pytest.mark.parametrize("path", ["%20-R/", "-R/", "%20%20%09--help/"])
async def test_f100_a_folder_is_no_option_of_a_listing(path):
    async with ftp_script(b"", MLSD="500 unknown") as server, opened() as transport:
        await transport.fetch(job(server.url(path)))
        asked = next(command for command in server.commands if command.startswith("LIST"))
    assert asked.startswith("LIST ./")
